"""A search starts from the trials of finished ones, and waits for them."""

from typing import Any

from crossfold_operator.cluster.base import Key
from crossfold_operator.names import Kind
from tests.fakes.memory_cluster import MemoryCluster
from tests.fakes.world import NAMESPACE, World, tune

RATE = {"name": "learning_rate", "type": "Float", "min": 1e-5, "max": 1e-2, "scale": "Log"}
PLAIN: dict[str, Any] = {
    "crossValidation": {"folds": 1, "foldMethod": "None"},
    "racing": {"enabled": False},
    "algorithm": {"name": "TPE", "settings": {"startupTrials": 3}},
    "parameters": [RATE],
}


def status_of(world: World, name: str) -> dict[str, Any]:
    return world.cluster.status(Kind.TUNE, name)


def degraded(status: dict[str, Any]) -> tuple[str, str, str]:
    found = next(c for c in status["conditions"] if c["type"] == "Degraded")
    return found["status"], found["reason"], found.get("message", "")


def chosen(world: World, name: str) -> list[Any]:
    trials = world.cluster.of(Kind.CROSS_VALIDATION)
    return [t["spec"]["hyperparameters"] for t in trials if t["metadata"]["name"].startswith(f"{name}-cv")]


async def test_a_search_waits_for_the_tunes_that_it_starts_from_and_is_informed_by_them() -> None:
    world = World(MemoryCluster())
    world.cluster.apply(tune("next", **PLAIN, maxTrials=2, warmStart=[{"name": "pilot"}]))
    await world.settle()
    assert status_of(world, "next")["phase"] == "Pending"
    assert degraded(status_of(world, "next")) == (
        "True",
        "WaitingForTune",
        "spec.warmStart: Tune 'pilot': there is no such Tune; the search begins when it has finished",
    )
    world.cluster.apply(tune("pilot", **PLAIN, maxTrials=5))
    await world.step()
    await world.reconcile(Key(Kind.TUNE, NAMESPACE, "next"))
    assert "it has not finished" in degraded(status_of(world, "next"))[2]
    assert chosen(world, "next") == []
    await world.run()
    assert status_of(world, "pilot")["phase"] == "Complete"
    await world.reconcile(Key(Kind.TUNE, NAMESPACE, "next"))
    await world.run()
    status = status_of(world, "next")
    assert status["phase"] == "Complete"
    assert degraded(status)[0] == "False"
    assert status["search"]["warmStart"] == {"trials": 5, "unfit": 0}
    alone = World(MemoryCluster())
    alone.cluster.apply(tune("next", **PLAIN, maxTrials=2))
    await alone.run()
    assert chosen(alone, "next") != chosen(world, "next")
    assert status_of(alone, "next")["search"]["historyDigest"] != status["search"]["historyDigest"]


async def test_what_does_not_fit_is_counted_and_named() -> None:
    world = World(MemoryCluster())
    world.cluster.apply(tune("pilot", **PLAIN, maxTrials=4, fixed=[{"name": "gamma", "value": 0.5}]))
    await world.run()
    world.cluster.apply(tune("next", **PLAIN, maxTrials=1, warmStart=[{"name": "pilot"}]))
    await world.run()
    assert status_of(world, "next")["search"]["warmStart"] == {
        "trials": 0,
        "unfit": 4,
        "message": "4 of 4 trials do not fit: Tune pilot: its 'gamma' is 0.5, and 0.9 here (4 trials)",
    }


async def test_a_search_that_has_begun_goes_on_without_a_source_that_is_deleted() -> None:
    world = World(MemoryCluster())
    world.cluster.apply(tune("pilot", **PLAIN, maxTrials=3))
    await world.run()
    world.cluster.apply(tune("next", **PLAIN, maxTrials=3, parallelism=1, warmStart=[{"name": "pilot"}]))
    await world.step()
    assert len(chosen(world, "next")) >= 1
    world.cluster.remove(Key(Kind.TUNE, NAMESPACE, "pilot"))
    await world.run()
    status = status_of(world, "next")
    assert status["phase"] == "Complete"
    assert len(chosen(world, "next")) == 3
    assert "warmStart" not in status["search"]
