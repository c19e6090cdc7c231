"""Leader election: one at a time, whatever the API server does. In virtual time, over a Lease in memory."""

import asyncio
import contextlib
import copy

import pytest

from crossfold_operator.cluster.base import Unavailable
from crossfold_operator.cluster.client import ApiError
from crossfold_operator.leader import Leader, LeaseLost


class Leases:
    """The API server's part in it: one Lease, with versions and conflicts."""

    def __init__(self):
        self.lease = None
        self.version = 0
        self.down_for = set()
        self.frozen_for = set()

    def client(self, name):
        leases = self

        class Client:
            async def request(self, verb, path, *, body=None, timeout=15.0, **_):  # noqa: ASYNC109 -- as the client
                await asyncio.sleep(0.01)
                if name in leases.down_for:
                    raise Unavailable("refused")
                if name in leases.frozen_for:
                    await asyncio.sleep(timeout)
                    raise Unavailable("timed out")
                return leases.answer(verb, body)

        return Client()

    def answer(self, verb, body):
        if verb == "GET":
            if self.lease is None:
                raise ApiError(404, "NotFound", "")
            return copy.deepcopy(self.lease)
        if verb == "POST" and self.lease is not None:
            raise ApiError(409, "AlreadyExists", "")
        if verb == "PUT" and body["metadata"]["resourceVersion"] != self.lease["metadata"]["resourceVersion"]:
            raise ApiError(409, "Conflict", "")
        self.version += 1
        self.lease = copy.deepcopy(body)
        self.lease["metadata"]["resourceVersion"] = str(self.version)
        return copy.deepcopy(self.lease)


class Candidate:
    """A process: acquires, holds, works while it holds, and again."""

    working: set = set()

    def __init__(self, leases, name, log):
        self.leader = Leader(leases.client(name), namespace="ns", name="lease", identity=name)
        self.name, self.log = name, log

    async def live(self):
        while True:
            await self.leader.acquire()
            self.log.append((self.name, "leads", round(asyncio.get_running_loop().time() - 1000, 1)))
            assert not Candidate.working, "two lead at a time"
            Candidate.working = {self.name}
            try:
                await self.leader.hold()
            except LeaseLost:
                self.log.append((self.name, "lost", round(asyncio.get_running_loop().time() - 1000, 1)))
            finally:
                Candidate.working = set()


@pytest.fixture
def play(virtual):
    def run(script):
        async def main():
            Candidate.working = set()
            leases, log = Leases(), []
            lives = {name: Candidate(leases, name, log) for name in "ab"}
            tasks = {name: asyncio.create_task(c.live()) for name, c in lives.items()}
            await script(leases, lives, tasks)
            for task in tasks.values():
                task.cancel()
            for result in await asyncio.gather(*tasks.values(), return_exceptions=True):
                assert isinstance(result, asyncio.CancelledError | type(None)), result
            return log, leases

        return virtual(main())

    return run


async def end(task):
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task


def test_one_leads_and_keeps_leading(play):
    async def script(leases, lives, tasks):
        await asyncio.sleep(1000)

    log, leases = play(script)
    assert log == [("a", "leads", 0.0)]
    assert leases.lease["spec"]["leaseTransitions"] == 0


def test_a_crash_is_taken_over_within_19_seconds(play):
    async def script(leases, lives, tasks):
        await asyncio.sleep(100)
        await end(tasks["a"])
        await asyncio.sleep(100)

    log, leases = play(script)
    assert [entry[:2] for entry in log] == [("a", "leads"), ("b", "leads")]
    assert 115 - 2 <= log[1][2] <= 119
    assert leases.lease["spec"]["leaseTransitions"] == 1


def test_a_graceful_end_is_taken_over_within_3_seconds(play):
    async def script(leases, lives, tasks):
        await asyncio.sleep(100)
        await end(tasks["a"])
        await lives["a"].leader.release()
        await asyncio.sleep(100)

    log, _ = play(script)
    assert log[1][:2] == ("b", "leads")
    assert log[1][2] <= 103


@pytest.mark.parametrize("how", ["down_for", "frozen_for"])
def test_a_leader_without_an_api_server_stops_before_anybody_takes_over(play, how):
    async def script(leases, lives, tasks):
        await asyncio.sleep(100)
        getattr(leases, how).add("a")
        await asyncio.sleep(100)

    log, _ = play(script)
    assert [entry[:2] for entry in log] == [("a", "leads"), ("a", "lost"), ("b", "leads")]
    assert log[1][2] <= 110.1
    assert log[2][2] >= log[1][2] + 3


def test_everybody_waits_while_the_api_server_is_away_and_one_leads_after_that(play):
    async def script(leases, lives, tasks):
        await asyncio.sleep(100)
        leases.down_for |= {"a", "b"}
        await asyncio.sleep(300)
        leases.down_for.clear()
        await asyncio.sleep(100)

    log, _ = play(script)
    assert [entry[1] for entry in log] == ["leads", "lost", "leads"]


def test_a_short_outage_changes_nothing(play):
    async def script(leases, lives, tasks):
        await asyncio.sleep(100)
        leases.frozen_for.add("a")
        await asyncio.sleep(5)
        leases.frozen_for.clear()
        await asyncio.sleep(100)

    log, _ = play(script)
    assert log == [("a", "leads", 0.0)]


def test_a_lease_that_somebody_took_is_lost_at_once(play):
    async def script(leases, lives, tasks):
        await asyncio.sleep(100)
        leases.lease["spec"]["holderIdentity"] = "stranger"
        leases.lease["metadata"]["resourceVersion"] = "1000"
        leases.version = 1000
        await asyncio.sleep(5)

    log, _ = play(script)
    assert log[1][:2] == ("a", "lost")
    assert log[1][2] <= 102.1


def test_release_leaves_the_lease_of_another(play):
    async def script(leases, lives, tasks):
        await asyncio.sleep(10)
        await lives["b"].leader.release()

    _, leases = play(script)
    assert leases.lease["spec"]["holderIdentity"] == "a"
