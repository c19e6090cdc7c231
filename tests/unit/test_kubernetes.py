"""KubernetesCluster where answers and events cross, and what errors become. Over a scripted API server."""

import asyncio

import pytest

from crossfold_operator.cluster.base import Key, Refused, Unavailable
from crossfold_operator.cluster.client import ApiError
from crossfold_operator.cluster.kubernetes import KubernetesCluster
from crossfold_operator.names import Kind
from tests.waiting import until

KEY = Key(Kind.TRAIN_RUN, "ns", "a")
EMPTY = {"metadata": {"resourceVersion": "1"}, "items": []}


def obj(version=5, uid="u", **metadata):
    return {
        "apiVersion": "crossfold.dev/v1alpha1",
        "kind": "TrainRun",
        "metadata": {"name": "a", "namespace": "ns", "uid": uid, "resourceVersion": str(version), **metadata},
        "spec": {},
    }


class Server:
    """Answers by verb with what a test wrote down, in order; an exception is raised."""

    def __init__(self, **answers):
        self.answers = answers
        self.asked = []
        self.before = {}

    async def request(self, verb, path, *, query=None, body=None, **_):
        self.asked.append((verb, path, body))
        if verb in self.before:
            self.before[verb]()
        given = self.answers.get(verb, [])
        answer = given.pop(0) if given else EMPTY
        if isinstance(answer, Exception):
            raise answer
        return answer


def opened(**answers):
    changes = []
    server = Server(**answers)
    cluster = KubernetesCluster(server, namespace="ns", on_change=changes.append, resync_seconds=300)
    return cluster, server, changes


def error(code, message="said"):
    return ApiError(code, "", message)


@pytest.mark.parametrize("code", [400, 403, 405, 413, 422])
async def test_refusals(code):
    cluster, _, _ = opened(POST=[error(code)])
    with pytest.raises(Refused) as refused:
        await cluster.create(obj())
    assert (refused.value.code, refused.value.message) == (code, "said")


@pytest.mark.parametrize("code", [401, 404, 408, 429, 500, 502, 503, 504])
async def test_what_passes_by_itself(code):
    cluster, _, _ = opened(POST=[error(code)])
    with pytest.raises(Unavailable):
        await cluster.create(obj())


async def test_a_taken_name_whose_holder_is_gone_is_tried_again():
    cluster, _, _ = opened(POST=[error(409), obj(5)], GET=[error(404)])
    creation = await cluster.create(obj())
    assert not creation.existed
    assert cluster.get(KEY) == obj(5)


async def test_a_name_that_stays_taken_by_nobody_is_left_for_later():
    cluster, server, _ = opened(POST=[error(409)] * 9, GET=[error(404)] * 9)
    with pytest.raises(Unavailable, match="said"):
        await cluster.create(obj())
    assert len(server.asked) == 6


async def test_a_status_is_written_on_the_version_that_it_was_judged_by():
    cluster, server, _ = opened(PATCH=[obj(6)])
    cluster.observe("ADDED", obj(5))
    await cluster.patch(KEY, "u", {"status": {"attempt": 1}}, status=True)
    verb, path, body = server.asked[-1]
    assert (verb, path) == ("PATCH", "/apis/crossfold.dev/v1alpha1/namespaces/ns/trainruns/a/status")
    assert body == {"status": {"attempt": 1}, "metadata": {"uid": "u", "resourceVersion": "5"}}


async def test_a_conflict_brings_the_newer_version_and_is_tried_again():
    cluster, _, changes = opened(PATCH=[error(409)], GET=[obj(7)])
    cluster.observe("ADDED", obj(5))
    with pytest.raises(Unavailable):
        await cluster.patch(KEY, "u", {"status": {}}, status=True)
    assert cluster.get(KEY)["metadata"]["resourceVersion"] == "7"
    assert len(changes) == 2


@pytest.mark.parametrize("code", [409, 422])
@pytest.mark.parametrize("holder", [error(404), obj(9, uid="other")])
async def test_a_patch_of_what_became_another_object_is_none(code, holder):
    cluster, _, _ = opened(PATCH=[error(code)], GET=[holder])
    cluster.observe("ADDED", obj(5))
    assert await cluster.patch(KEY, "u", {"spec": {}}) is None


async def test_a_patch_of_what_is_gone_forgets_it():
    cluster, _, changes = opened(PATCH=[error(404)])
    cluster.observe("ADDED", obj(5))
    assert await cluster.patch(KEY, "u", {"spec": {}}) is None
    assert cluster.get(KEY) is None
    assert len(changes) == 2


async def test_an_answer_later_than_the_event_of_its_change_changes_nothing():
    cluster, server, changes = opened(PATCH=[obj(6)])
    cluster.observe("ADDED", obj(5))
    server.before["PATCH"] = lambda: cluster.observe("MODIFIED", obj(7, labels={"newer": "1"}))
    patched = await cluster.patch(KEY, "u", {"spec": {}})
    assert patched["metadata"]["labels"] == {"newer": "1"}
    assert len(changes) == 2


async def test_an_answer_later_than_the_deletion_does_not_bring_it_back():
    cluster, server, _ = opened(PATCH=[obj(6)])
    cluster.observe("ADDED", obj(5))
    server.before["PATCH"] = lambda: cluster.observe("DELETED", obj(8))
    await cluster.patch(KEY, "u", {"spec": {}})
    assert cluster.get(KEY) is None


async def test_the_deletion_of_an_earlier_object_leaves_the_one_that_has_its_name():
    cluster, _, changes = opened()
    cluster.observe("ADDED", obj(9, uid="new"))
    cluster.observe("DELETED", obj(8, uid="old"))
    assert cluster.get(KEY)["metadata"]["uid"] == "new"
    assert len(changes) == 2


async def test_a_list_removes_what_it_lacks_and_keeps_what_is_younger():
    cluster, _, changes = opened()
    cluster.observe("ADDED", obj(5))
    cluster.observe("ADDED", {**obj(12, uid="v"), "metadata": {**obj(12, uid="v")["metadata"], "name": "b"}})
    cluster.list_ended(Kind.TRAIN_RUN, 10, set())
    assert cluster.get(KEY) is None
    assert cluster.get(KEY._replace(name="b")) is not None
    assert changes[-1] == changes[0]


async def test_an_unseen_deletion_is_found_after_a_watch_started_over(virtual_cluster):
    cluster, server = virtual_cluster
    server.answers["GET"] = []
    cluster.observe("ADDED", obj(1))
    cluster.observe(None, {**obj(1), "metadata": {**obj(1)["metadata"], "name": "b", "uid": "v"}})
    await until(lambda: cluster.get(KEY) is None, "that the object is gone")


@pytest.fixture
async def virtual_cluster(monkeypatch):
    monkeypatch.setattr("crossfold_operator.cluster.kubernetes._SETTLE_SECONDS", 0.1)
    cluster, server, _ = opened()
    task = asyncio.create_task(cluster._relist_for_ever())
    yield cluster, server
    task.cancel()


async def test_a_change_that_is_not_understood_is_told_and_survived(caplog):
    def fail(_):
        raise ValueError("what is this")

    cluster = KubernetesCluster(Server(), namespace="", on_change=fail, resync_seconds=1)
    cluster.observe("ADDED", obj(5))
    assert cluster.get(KEY) is not None
    assert caplog.records[-1].object == "TrainRun/ns/a"


async def test_what_is_cached_is_slim():
    cluster, _, _ = opened()
    bulk = {
        "managedFields": [{}],
        "annotations": {"kubectl.kubernetes.io/last-applied-configuration": "{}", "mine": "1"},
    }
    cluster.observe("ADDED", obj(5, **bulk))
    kept = cluster.get(KEY)["metadata"]
    assert "managedFields" not in kept
    assert kept["annotations"] == {"mine": "1"}
    pod = {
        "metadata": {"name": "p", "namespace": "ns", "uid": "p", "resourceVersion": "1", "annotations": {"a": "b"}},
        "spec": {"nodeName": "n", "containers": [{}]},
        "status": {"phase": "Running", "hostIP": "1.2.3.4", "containerStatuses": []},
    }
    cluster.listed(Kind.POD, [pod])
    assert cluster.get(Key(Kind.POD, "ns", "p")) == {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "p", "namespace": "ns", "uid": "p", "resourceVersion": "1"},
        "spec": {"nodeName": "n"},
        "status": {"phase": "Running", "containerStatuses": []},
    }


async def test_a_deletion_that_is_over_at_once_is_known_at_once():
    cluster, server, _ = opened(DELETE=[{"kind": "Status", "status": "Success"}])
    cluster.observe("ADDED", obj(5))
    await cluster.delete(KEY, "u")
    assert cluster.get(KEY) is None
    options = server.asked[-1][2]
    assert (options["propagationPolicy"], options["preconditions"]) == ("Foreground", {"uid": "u"})


async def test_an_event_that_repeats_is_one_event_with_a_count():
    cluster, server, _ = opened(POST=[error(409)], GET=[{"count": 4}], PATCH=[{}])
    for _ in range(3):
        await cluster.event(obj(), warning=True, reason="Pruned", message="m")
    assert [verb for verb, _, _ in server.asked] == ["POST", "GET", "PATCH"]
    assert server.asked[-1][2]["count"] == 5


@pytest.mark.parametrize("trouble", [error(403), error(500), Unavailable("down")])
async def test_an_event_that_cannot_be_recorded_is_no_error(trouble):
    cluster, server, _ = opened(POST=[trouble, {}])
    for _ in range(3):
        await cluster.event(obj(), warning=False, reason="Pruned", message="m")
    # It is tried again the next time, and then it is there.
    assert [verb for verb, _, _ in server.asked] == ["POST", "POST"]
    assert server.asked[-1][2]["count"] == 1


async def test_warnings_come_newest_first_and_without_our_own():
    def warning(reason, at, component="kubelet"):
        return {
            "reason": reason,
            "message": "m",
            "lastTimestamp": at,
            "source": {"component": component},
            "metadata": {},
        }

    items = [
        warning("Old", "2026-01-01T00:00:00Z"),
        warning("Ours", "2026-01-03T00:00:00Z", "crossfold-operator"),
        {"reason": "New", "message": "m", "eventTime": "2026-01-02T00:00:00.000000Z", "metadata": {}},
    ]
    cluster, _, _ = opened(GET=[{"items": items}])
    assert [w.reason for w in await cluster.warnings(obj())] == ["New", "Old"]
