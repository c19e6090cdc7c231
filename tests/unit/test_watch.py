"""List and watch: nothing that a watch missed stays unseen. In virtual time, over a scripted API server."""

import asyncio

import pytest

from crossfold_operator.cluster.base import Unavailable
from crossfold_operator.cluster.client import ApiError
from crossfold_operator.cluster.watch import PAGE, ListWatch
from crossfold_operator.names import Kind


def pod(name, version):
    return {"metadata": {"name": name, "namespace": "ns", "uid": name, "resourceVersion": str(version)}}


def event(kind, name, version):
    return {"type": kind, "object": pod(name, version)}


def bookmark(version):
    return {"type": "BOOKMARK", "object": {"metadata": {"resourceVersion": str(version)}}}


class Server:
    """Answers lists and watches with what a test wrote down, in order; an exception is raised."""

    def __init__(self, *, lists, watches):
        self.lists, self.watches = list(lists), list(watches)
        self.asked = []

    async def request(self, verb, path, *, query, timeout):  # noqa: ASYNC109 -- as the client
        self.asked.append(("list", dict(query)))
        answer = self.lists.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    async def stream(self, path, query, *, idle):
        self.asked.append(("watch", query["resourceVersion"]))
        if not self.watches:
            await asyncio.Event().wait()
        for item in self.watches.pop(0):
            if isinstance(item, Exception):
                raise item
            yield item


class Sink:
    def __init__(self):
        self.told = []

    def listed(self, kind, page):
        self.told.append(("listed", [o["metadata"]["name"] for o in page]))

    def list_ended(self, kind, version, seen):
        self.told.append(("ended", version, sorted(name for _, name in seen)))

    def observe(self, event_type, obj):
        assert (obj["kind"], obj["apiVersion"]) == ("Pod", "v1")
        self.told.append((event_type, obj["metadata"]["name"]))


def listing(version, *names, more=""):
    return {
        "metadata": {"resourceVersion": str(version), "continue": more},
        "items": [pod(n, version) for n in names],
    }


def play(virtual, server, seconds=60):
    async def main():
        sink = Sink()
        watch = ListWatch(server, Kind.POD, "ns", "x=y", sink)
        task = asyncio.create_task(watch.run())
        await asyncio.sleep(seconds)
        assert not task.done(), "a watch must not end"
        task.cancel()
        return sink.told

    return virtual(main())


def test_a_list_comes_in_pages(virtual):
    server = Server(lists=[listing(5, "a", more="next"), listing(5, "b")], watches=[])
    assert play(virtual, server) == [("listed", ["a"]), ("listed", ["b"]), ("ended", 5, ["a", "b"])]
    first = {"labelSelector": "x=y", "limit": str(PAGE)}
    assert server.asked == [("list", first), ("list", {**first, "continue": "next"}), ("watch", "5")]


def test_a_watch_that_ends_goes_on_where_it_was(virtual):
    server = Server(lists=[listing(5)], watches=[[event("ADDED", "a", 7), bookmark(9)], [event("DELETED", "a", 12)]])
    assert play(virtual, server) == [("listed", []), ("ended", 5, []), ("ADDED", "a"), ("DELETED", "a")]
    assert [version for what, version in server.asked if what == "watch"] == ["5", "9", "12"]


def test_a_watch_that_breaks_goes_on_where_it_was(virtual):
    server = Server(lists=[listing(5)], watches=[[event("ADDED", "a", 7), Unavailable("cut")], [Unavailable("down")]])
    play(virtual, server)
    assert [version for what, version in server.asked if what == "watch"] == ["5", "7", "7"]


@pytest.mark.parametrize(
    "gone",
    [ApiError(410, "Expired", ""), {"type": "ERROR", "object": {"code": 410, "reason": "Expired", "message": "old"}}],
)
def test_a_history_that_is_gone_is_listed_anew(virtual, gone):
    server = Server(lists=[listing(5, "a"), listing(50)], watches=[[gone]])
    assert play(virtual, server)[-2:] == [("listed", []), ("ended", 50, [])]
    assert server.asked[-1] == ("watch", "50")


@pytest.mark.parametrize(
    "error",
    [
        Unavailable("down"),
        ApiError(404, "NotFound", ""),
        ApiError(403, "Forbidden", ""),
        ApiError(410, "", ""),
        KeyError("x"),
    ],
)
def test_a_list_that_fails_is_tried_again(virtual, error):
    server = Server(lists=[error, error, listing(5, "a")], watches=[])
    assert play(virtual, server)[-1] == ("ended", 5, ["a"])


def test_pages_that_expire_are_begun_again(virtual):
    server = Server(
        lists=[listing(5, "a", more="next"), ApiError(410, "Expired", ""), listing(6, "a", more="n"), listing(6, "b")],
        watches=[],
    )
    assert play(virtual, server)[-1] == ("ended", 6, ["a", "b"])


def test_an_event_that_cannot_be_understood_is_no_end(virtual):
    server = Server(lists=[listing(5), listing(8, "a")], watches=[[{"type": "ADDED", "object": None}]])
    assert play(virtual, server)[-1] == ("ended", 8, ["a"])


def test_a_server_that_is_away_is_asked_ever_less_often(virtual):
    server = Server(lists=[Unavailable("down")] * 1000, watches=[])
    play(virtual, server, seconds=600)
    assert 40 <= len(server.asked) <= 50
