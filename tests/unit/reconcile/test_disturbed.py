"""A tree that is disturbed ends as the undisturbed one: crashes between any two writes, lost answers, late news."""

import random
from typing import Any

import pytest

from crossfold_operator.api.tune import TuneSpec
from crossfold_operator.cluster.base import Obj
from crossfold_operator.names import Kind
from crossfold_operator.search.sampler import ask
from crossfold_trainer.contract.metrics import Direction
from tests.fakes import world as w
from tests.fakes.memory_cluster import MemoryCluster
from tests.fakes.mortal import Mortal
from tests.fakes.world import World, cross_validation, tune

SMALL = tune(maxTrials=2, parallelism=3, crossValidation={"folds": 2})
TPE = tune(
    maxTrials=6,
    parallelism=2,
    crossValidation={"folds": 2},
    algorithm={"name": "TPE", "seed": 7},
    parameters=[
        {"name": "learning_rate", "type": "Float", "min": 1e-5, "max": 1e-2, "scale": "Log"},
        {"name": "batch_size", "type": "Int", "min": 2, "max": 64},
    ],
)


def bumpy(run: str, attempt: int) -> w.Ending:
    """Some of everything that is tried again."""
    first = {"t-cv0-f1s42": w.CRASH, "t-cv1-f0s42": w.INTERRUPTED, "t-cv0-f0s42": w.LOST, "t-cv1-f1s42": w.NO_RESULT}
    return first.get(run, w.SUCCESS) if attempt == 1 else w.SUCCESS


async def finished(world: World, manifest: Obj) -> dict[str, Obj]:
    world.cluster.apply(manifest)
    await world.run()
    return w.tree(world.cluster)


def check(cluster: MemoryCluster) -> None:
    """What holds for every finished tree, whatever happened to it."""
    for trial in cluster.of(Kind.CROSS_VALIDATION):
        records = trial["status"]["runs"]
        assert len({(r["fold"], r["seed"]) for r in records}) == len(records) > 0
        for record in records:
            run = cluster.status(Kind.TRAIN_RUN, record["run"])
            assert (record.get("score"), record["phase"]) == (run.get("score"), run["phase"])
    for obj in cluster.of(Kind.TUNE):
        complete = [t for t in cluster.of(Kind.CROSS_VALIDATION) if t["status"]["phase"] == "Complete"]
        best = max(complete, key=lambda t: (float(t["status"]["score"]), -_number(t)))
        assert obj["status"]["best"]["crossValidation"] == best["metadata"]["name"]
        points = [str(t["spec"]["hyperparameters"]) for t in cluster.of(Kind.CROSS_VALIDATION)]
        assert len(set(points)) == len(points)


def _number(trial: Obj) -> int:
    return int(trial["metadata"]["labels"]["crossfold.dev/trial"])


def trainings(cluster: MemoryCluster) -> list[str]:
    """Jobs that were created, with repetitions."""
    return [key.name for verb, key in cluster.writes if verb == "create" and key.kind is Kind.JOB]


async def undisturbed(manifest: Obj, script: w.Script) -> World:
    world = World(MemoryCluster(), script)
    await finished(world, manifest)
    check(world.cluster)
    return world


async def test_a_crash_at_any_write_changes_nothing() -> None:
    plain = await undisturbed(SMALL, bumpy)
    expected, calls = w.tree(plain.cluster), len(plain.cluster.calls)
    assert calls > 40
    for at in range(1, calls + 1):
        world = Mortal(MemoryCluster(), bumpy, at)
        assert await finished(world, SMALL) == expected, f"crash at call {at}"
        assert world.deaths == 1
        assert sorted(trainings(world.cluster)) == sorted(trainings(plain.cluster))


@pytest.mark.parametrize("seed", range(12))
async def test_lost_answers_change_nothing(seed: int) -> None:
    expected = w.tree((await undisturbed(SMALL, bumpy)).cluster)
    rng = random.Random(seed)
    cluster = MemoryCluster()
    cluster.faults = lambda verb, key: rng.choice(["before", "after"]) if rng.random() < 0.3 else None
    world = World(cluster, bumpy)
    assert await finished(world, SMALL) == expected
    assert world.unavailable > 10
    check(cluster)


class Late(World):
    """A world in which news reaches the operator late and in pieces, and the operator restarts now and then."""

    def __init__(self, cluster: MemoryCluster, script: w.Script, seed: int) -> None:
        super().__init__(cluster, script)
        self._rng = random.Random(seed)
        cluster.lagging = True

    async def settle(self, limit: int = 20_000) -> None:
        for _ in range(limit):
            while self.cluster.collect():
                pass
            self.cluster.deliver(self._rng.choice([0, 0, 1, 1, 2, 5]))
            if self._rng.random() < 0.02:
                self.restart()
            if not self.cluster.woken:
                if not self.cluster.news:
                    return
                continue
            key = self._rng.choice(list(self.cluster.woken))
            del self.cluster.woken[key]
            await self.reconcile(key)
        raise AssertionError("no end")


@pytest.mark.parametrize("seed", range(12))
async def test_a_late_cache_changes_nothing_that_is_decided(seed: int) -> None:
    """With a stale view a slot may stay empty for a moment; parameters, results and the best do not change."""
    plain = await undisturbed(SMALL, bumpy)
    rng = random.Random(seed)
    world = Late(MemoryCluster(), bumpy, seed)
    world.cluster.faults = lambda verb, key: rng.choice(["before", "after"]) if rng.random() < 0.1 else None
    assert await finished(world, SMALL) == w.tree(plain.cluster)
    assert world.most_running <= 3
    check(world.cluster)


async def test_tpe_asks_the_same_when_runs_end_in_the_same_order() -> None:
    plain = await undisturbed(TPE, lambda run, attempt: w.SUCCESS)
    expected, calls = w.tree(plain.cluster), len(plain.cluster.calls)
    rng = random.Random(1)
    for at in sorted(rng.sample(range(1, calls + 1), 6)):
        world = Mortal(MemoryCluster(), lambda run, attempt: w.SUCCESS, at)
        assert await finished(world, TPE) == expected, f"crash at call {at}"
        assert world.deaths == 1


async def test_tpe_is_told_of_every_trial_that_ended_before() -> None:
    """The parameters of each trial are those that a sampler with the trials so far would choose."""
    from crossfold_operator.observe.trials import read_trial
    from crossfold_operator.plan.tune import history

    cluster = MemoryCluster()
    world = World(cluster)
    cluster.apply(TPE)
    spec = TuneSpec.model_validate(TPE["spec"])
    names_searched = frozenset(p.name for p in spec.parameters)
    asked: dict[int, Any] = {}
    while True:
        before = [
            read_trial(t, _number(t), names_searched, lambda uid: [])
            for t in sorted(cluster.of(Kind.CROSS_VALIDATION), key=_number)
        ]
        await world.settle()
        new = sorted(cluster.of(Kind.CROSS_VALIDATION), key=_number)[len(before) :]
        if len(new) == 1:
            # Terminal phases are written in the same settling, before the next trial is asked.
            told = [
                read_trial(t, _number(t), names_searched, lambda uid: [])
                for t in sorted(cluster.of(Kind.CROSS_VALIDATION), key=_number)[: len(before)]
            ]
            asked[len(before)] = ask(
                spec.parameters, spec.algorithm, Direction.MAXIMIZE, history(told, len(before)), len(before)
            ) == {p["name"]: p["value"] for p in new[0]["spec"]["hyperparameters"]}
        if not await _one_ends(world):
            break
    assert asked
    assert all(asked.values()), asked


async def _one_ends(world: World) -> bool:
    for job in world.unfinished():
        if not job.get("status"):
            world.start(job)
    await world.settle()
    if not world.unfinished():
        return False
    world.cluster.clock.advance(w.SECONDS)
    world.end(world.unfinished()[0])
    return True


async def test_a_standalone_cross_validation_survives_a_crash_at_any_write() -> None:
    manifest = cross_validation(crossValidation={"folds": 2}, parallelism=1)
    plain = World(MemoryCluster())
    expected, calls = await finished(plain, manifest), len(plain.cluster.calls)
    assert calls > 10
    for at in range(1, calls + 1):
        world = Mortal(MemoryCluster(), lambda run, attempt: w.SUCCESS, at)
        assert await finished(world, manifest) == expected, f"crash at call {at}"
        assert world.deaths == 1


@pytest.mark.parametrize("seed", range(6))
async def test_suspending_at_random_loses_no_result(seed: int) -> None:
    expected = w.tree((await undisturbed(SMALL, lambda run, attempt: w.SUCCESS)).cluster)
    rng = random.Random(seed)
    world = World(MemoryCluster())
    world.cluster.apply(SMALL)
    head = {k: SMALL[k] for k in ("apiVersion", "kind", "metadata")}
    for _ in range(4):
        for _ in range(rng.randrange(3)):
            await world.step()
        for job in world.unfinished()[: rng.randrange(4)]:
            if not job.get("status"):
                world.start(job)
        if rng.random() < 0.5:
            await world.settle()
        world.cluster.apply({**head, "spec": {"suspend": True}})
        if rng.random() < 0.7:
            await world.settle()
        if rng.random() < 0.3:
            world.restart()
        world.cluster.apply({**head, "spec": {"suspend": False}})
    await world.run()
    check(world.cluster)
    assert _results(w.tree(world.cluster)) == _results(expected)


def _results(tree: dict[str, Obj]) -> dict[str, Any]:
    return {
        name: [(r["run"], r["score"], r["values"]) for r in obj["status"]["runs"]]
        for name, obj in tree.items()
        if name.startswith("CrossValidation/")
    }
