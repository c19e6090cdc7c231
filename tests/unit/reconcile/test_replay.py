"""A search that is killed at each decision, and goes on from the children alone, takes the same way."""

import contextlib
from typing import Any

import pytest

from crossfold_operator.cluster.base import Key
from crossfold_operator.names import Kind
from crossfold_operator.reconcile.reconciler import Reconciler
from crossfold_operator.search import sampler
from tests.fakes import world as w
from tests.fakes.memory_cluster import MemoryCluster
from tests.fakes.world import World, tune

PARAMETERS = [
    {"name": "learning_rate", "type": "Float", "min": 1e-5, "max": 1e-2, "scale": "Log"},
    {"name": "gamma", "type": "Float", "min": 0.5, "max": 0.99, "scale": "ReverseLog"},
    {"name": "batch_size", "type": "Int", "min": 2, "max": 64},
    {"name": "focal_loss_alpha", "type": "Categorical", "values": [None, 0.25, 0.5]},
]


def searched(name: str, trials: int) -> dict[str, Any]:
    return tune(
        algorithm={"name": name, "seed": 5},
        parameters=PARAMETERS,
        initialTrials=[{"parameters": [{"name": "focal_loss_alpha", "value": None}]}],
        crossValidation={"folds": 1, "foldMethod": "None"},
        racing={"enabled": False},
        maxTrials=trials,
        maxFailedTrials=trials,
        parallelism=4,
    )


def eventful(run: str, attempt: int) -> w.Ending:
    """Every seventh trial diverges, every eleventh fails, every fifth is interrupted once."""
    trial = int(run.removeprefix("t-cv").partition("-")[0])
    if trial % 7 == 3:
        return w.DIVERGED
    if trial % 11 == 5:
        return w.OOM_KILLED
    return w.INTERRUPTED if trial % 5 == 1 and attempt == 1 else w.SUCCESS


class Killed(BaseException):
    """The process is gone."""


class Haunted(World):
    """A world whose operator is killed twice for each trial: before the trial is created, and right after that."""

    def __init__(self, cluster: MemoryCluster) -> None:
        super().__init__(cluster, eventful)
        self.deaths = 0
        self._dead = False
        self._seen: dict[Key, int] = {}

        def fault(verb: str, key: Key) -> str | None:
            fatal = self._fatal(verb, key)
            self._dead = self._dead or fatal
            if self._dead:
                raise Killed
            return None

        cluster.faults = fault

    def _fatal(self, verb: str, key: Key) -> bool:
        """The first attempt to create each trial, and the call after the second one."""
        fatal = any(count == 2 for count in self._seen.values())
        self._seen = {k: 3 if count == 2 else count for k, count in self._seen.items()}
        if not fatal and verb == "create" and key.kind is Kind.CROSS_VALIDATION:
            self._seen[key] = self._seen.get(key, 0) + 1
            fatal = self._seen[key] == 1
        return fatal

    async def reconcile(self, key: Key) -> None:
        with contextlib.suppress(Killed):
            await super().reconcile(key)
        if self._dead:
            self._dead = False
            self.deaths += 1
            sampler.forget()
            # A new process looks at every object; where nothing is due nothing happens, and the test need not wait for it.
            self.reconciler = Reconciler(self.cluster, self.settings, self.cluster.clock)
            self.cluster.woken |= {k: None for k in self.cluster.objects if k.kind is Kind.TUNE} | {key: None}


async def asked(world: World, manifest: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The parameters of each trial, and the Tune's status."""
    world.cluster.apply(manifest)
    await world.run()
    trials = {cv["metadata"]["name"]: cv["spec"]["hyperparameters"] for cv in world.cluster.of(Kind.CROSS_VALIDATION)}
    return trials, world.cluster.status(Kind.TUNE, "t")


@pytest.mark.parametrize(("name", "trials"), [("TPE", 60), ("CMAES", 24)])
async def test_a_search_that_is_killed_at_each_decision_takes_the_same_way(name: str, trials: int) -> None:
    undisturbed, status = await asked(World(MemoryCluster(), eventful), searched(name, trials))
    assert len(undisturbed) == trials
    assert status["trials"]["unstable"] > 0
    assert status["trials"]["failed"] > 0
    haunted = Haunted(MemoryCluster())
    again, found = await asked(haunted, searched(name, trials))
    assert haunted.deaths >= 2 * trials - 5
    assert again == undisturbed
    for part in ("search", "best", "trials"):
        assert found[part] == status[part]
