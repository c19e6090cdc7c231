"""Limits of an administrator in whole trees."""

from typing import Any

from crossfold_operator.cluster.base import Key, Obj, Unavailable
from crossfold_operator.names import Condition, Kind
from crossfold_operator.queue import Overdue
from crossfold_operator.reconcile.reconciler import Reconciler
from crossfold_operator.reconcile.slots import RECOUNT, Slots
from crossfold_operator.settings import Settings
from tests.fakes.memory_cluster import Clock, MemoryCluster
from tests.fakes.world import NAMESPACE, World, cross_validation, train_run, tune


class Waking(World):
    """A world whose operator wakes what may go on."""

    def operator(self) -> Reconciler:
        def wake(key: Key) -> None:
            self.cluster.woken[key] = None

        return Reconciler(self.cluster, self.settings, self.cluster.clock, wake=wake)

    def in_flight(self, prefix: str = "") -> int:
        """Jobs that have not ended."""
        return sum(job["metadata"]["name"].startswith(prefix) for job in self.unfinished())

    def limited(self, name: str, kind: Kind = Kind.TUNE) -> tuple[str, str] | None:
        found = [c for c in self.cluster.status(kind, name)["conditions"] if c["type"] == Condition.LIMITED]
        return (found[0]["reason"], found[0]["message"]) if found else None


def world(**limits: int) -> Waking:
    return Waking(MemoryCluster(), settings=Settings(trainer_image="registry/trainer:1", **limits))


def wide(name: str, **changes: Any) -> Obj:
    space = [{"name": "learning_rate", "type": "Float", "min": 0.001, "max": 0.1}]
    content = {"algorithm": {"name": "Random"}, "parameters": space, "racing": {"enabled": False}}
    return tune(name, **{**content, "crossValidation": {"folds": 2}, "maxTrials": 8, "parallelism": 10, **changes})


async def test_trials_and_parallelism_are_cut_and_nothing_is_lost() -> None:
    it = world(trials_per_tune=3, parallelism_per_tune=2)
    it.cluster.apply(wide("t"))
    await it.start_all()
    assert it.in_flight() == 2
    limited = it.limited("t")
    assert limited is not None
    assert limited[0] == "TrialsLimited"
    assert all(part in limited[1] for part in ("maxTrials is 8", "parallelism is 10", "limits.parallelismPerTune"))
    await it.run()
    status = it.cluster.status(Kind.TUNE, "t")
    assert (status["phase"], status["trials"]["complete"], it.most_running) == ("Complete", 3, 2)
    # The limit is raised: the operator starts anew, and the Tune goes on to what its spec says.
    it.settings = Settings(trainer_image="registry/trainer:1", trials_per_tune=8)
    it.restart()
    await it.run()
    status = it.cluster.status(Kind.TUNE, "t")
    assert (status["phase"], status["trials"]["complete"]) == ("Complete", 8)
    assert it.limited("t") is None


async def test_a_spec_within_its_limits_shows_no_condition() -> None:
    it = world(trials_per_tune=8, parallelism_per_tune=10, runs_per_namespace=100)
    it.cluster.apply(wide("t"))
    await it.run()
    assert it.limited("t") is None


async def test_runs_of_a_namespace_are_shared_fairly_and_never_above_the_limit() -> None:
    it = world(runs_per_namespace=6)
    it.cluster.apply(wide("a"))
    await it.start_all()
    assert it.in_flight("a-") == 6
    it.cluster.apply(wide("b"))
    it.cluster.apply(cross_validation("c", crossValidation={"folds": 5}, parallelism=5))
    await it.start_all()
    assert it.in_flight() == 6
    assert it.limited("b", Kind.TUNE) is not None
    reason, message = it.limited("c", Kind.CROSS_VALIDATION) or ("", "")
    assert (reason, "limits.runsPerNamespace" in message, "6" in message) == ("RunsLimited", True, True)
    seen = []
    while any(job["metadata"]["name"].startswith("a-") for job in it.unfinished()) and len(seen) < 40:
        it.cluster.clock.advance(60)
        it.end(next(job for job in it.unfinished() if job["metadata"]["name"].startswith("a-")))
        await it.start_all()
        seen.append((it.in_flight("a-"), it.in_flight("b-"), it.in_flight("c-")))
        assert sum(seen[-1]) <= 6
        if seen[-1] == (2, 2, 2):
            break
    assert seen[-1] == (2, 2, 2)
    await it.run()
    assert it.most_running <= 6
    assert {it.cluster.status(Kind.TUNE, name)["phase"] for name in "ab"} == {"Complete"}
    assert it.cluster.status(Kind.CROSS_VALIDATION, "c")["phase"] == "Complete"


async def test_a_restart_counts_what_exists_before_it_starts_anything() -> None:
    it = world(runs_per_namespace=4)
    it.cluster.apply(train_run("alone"))
    await it.start_all()
    it.cluster.apply(wide("a"))
    await it.start_all()
    assert (it.in_flight(), it.in_flight("a-")) == (4, 3)
    it.cluster.apply(wide("b"))
    it.restart()
    # The newcomer is looked at first.
    it.cluster.woken = {Key(Kind.TUNE, NAMESPACE, "b"): None, **it.cluster.woken}
    await it.start_all()
    assert (it.in_flight(), it.in_flight("b-")) == (4, 0)


async def test_another_namespace_has_a_limit_of_its_own() -> None:
    it = world(runs_per_namespace=2)
    other = wide("t")
    other["metadata"]["namespace"] = "elsewhere"
    it.cluster.apply(wide("t"))
    it.cluster.apply(other)
    await it.settle()
    assert len(it.cluster.of(Kind.TRAIN_RUN)) == 4


def run(name: str, root: str, phase: str = "Running") -> Obj:
    return {"metadata": {"name": name, "namespace": "n", "uid": name, "labels": {"crossfold.dev/root-uid": root}},
            "status": {"phase": phase}}  # fmt: skip


def test_slots_that_were_granted_count_before_their_runs_exist() -> None:
    woken: list[Key] = []
    clock = Clock()
    existing = [run("x-0", "x"), run("x-1", "x", "Succeeded")]
    slots = Slots(5, lambda: existing, woken.append, clock)
    a, b = (Key(Kind.TUNE, "n", name) for name in "ab")
    assert slots.grant(a, "a", 0, 9) == 4
    assert slots.grant(b, "b", 0, 9) == 0
    # Its runs were refused: the next look says so, and whoever waits is woken.
    assert slots.grant(a, "a", 0, 0) == 0
    assert woken == [b]
    assert slots.grant(b, "b", 0, 9) == 4
    # What belonged to a root that is gone is counted anew after a while.
    existing.clear()
    assert slots.grant(b, "b", 4, 5) == 0
    clock.advance(RECOUNT.total_seconds() + 1)
    assert slots.grant(b, "b", 4, 5) == 1


def test_a_root_that_is_gone_frees_its_slots() -> None:
    woken: list[Key] = []
    slots = Slots(2, list, woken.append, Clock())
    a, b = (Key(Kind.TUNE, "n", name) for name in "ab")
    assert slots.grant(a, "a", 0, 5) == 2
    assert slots.grant(b, "b", 0, 5) == 0
    slots.forget(a)
    assert woken == [b]
    assert slots.grant(b, "b", 0, 5) == 2
    assert Slots(0, list, woken.append, Clock()).grant(a, "a", 99, 5) == 5


async def test_an_object_that_cannot_be_reconciled_says_so_until_it_can() -> None:
    it = world()
    it.cluster.apply(wide("t"))
    await it.start_all()
    key = Key(Kind.TUNE, NAMESPACE, "t")
    for error, reason, part in (
        (Overdue("it took longer than 60 s and was cancelled"), "ReconcileTimedOut", "60 s"),
        (ValueError("bug"), "ReconcileFailed", "3 times"),
    ):
        await it.reconciler.tell(key, error, 3)
        status = it.cluster.status(Kind.TUNE, "t")
        degraded = next(c for c in status["conditions"] if c["type"] == Condition.DEGRADED)
        assert (degraded["status"], degraded["reason"], part in degraded["message"]) == ("True", reason, True)
        assert status["trials"]["running"] > 0
    await it.reconcile(key)
    degraded = next(c for c in it.cluster.status(Kind.TUNE, "t")["conditions"] if c["type"] == Condition.DEGRADED)
    assert degraded["status"] == "False"
    await it.reconciler.tell(Key(Kind.TUNE, NAMESPACE, "gone"), Unavailable("x"), 3)
