"""Tunes that share an operator: its queue, its worker processes and its reconciler, over a cluster in memory."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

from crossfold_operator import names
from crossfold_operator.cluster.base import Key, Obj
from crossfold_operator.names import Condition, Kind
from crossfold_operator.queue import Spacing, WorkQueue
from crossfold_operator.reconcile.reconciler import Reconciler
from crossfold_operator.settings import Settings
from crossfold_operator.workers.pool import SearchPool
from tests.fakes.memory_cluster import MemoryCluster
from tests.fakes.world import NAMESPACE, tune

DIMENSIONS = 24
TOLD = 40
"""Trials that have ended when the expensive Tune is extended."""
EXPENSIVE = tune(
    "gp",
    algorithm={"name": "GP", "seed": 1},
    parameters=[{"name": f"x-{n}", "type": "Float", "min": 0.0, "max": 1.0} for n in range(DIMENSIONS)],
    crossValidation={"folds": 2},
    racing={"enabled": False},
    maxTrials=TOLD + 48,
    parallelism=96,
)


class Operator:
    """An operator over a cluster in memory: what changes there is looked at."""

    def __init__(self, seconds: float) -> None:
        self.cluster = MemoryCluster()
        self.pool = SearchPool(size=2, seconds=seconds)
        settings = Settings(trainer_image="registry/trainer:1")
        reconciler = Reconciler(self.cluster, settings, self.cluster.clock, search=self.pool, wake=self.wake)
        self.queue = WorkQueue(reconciler, workers=4, spacing=Spacing(), deadline=60, tell=reconciler.tell)

    def wake(self, key: Key) -> None:
        self.queue.add(key)

    def apply(self, obj: Obj) -> None:
        self.cluster.apply(obj)
        self.pass_on()

    def pass_on(self) -> None:
        """Hand on what changed in the cluster."""
        woken, self.cluster.woken = list(self.cluster.woken), {}
        for key in woken:
            self.queue.add(key)

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(0.01)
            self.pass_on()

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        tasks = [asyncio.create_task(self.queue.run()), asyncio.create_task(self._watch())]
        try:
            yield
        finally:
            self.queue.stop()
            tasks[1].cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await self.pool.close()

    def trials(self, name: str) -> int:
        prefix = f"{name}-cv"
        return sum(cv["metadata"]["name"].startswith(prefix) for cv in self.cluster.of(Kind.CROSS_VALIDATION))

    def degraded(self, name: str) -> str:
        obj = self.cluster.objects[Key(Kind.TUNE, NAMESPACE, name)]
        conditions = (obj.get("status") or {}).get("conditions", ())
        return next((c["reason"] for c in conditions if c["type"] == Condition.DEGRADED), "")


def ended(number: int, owner: str, now: str) -> Obj:
    """A complete trial of the expensive Tune."""
    values = [{"name": f"x-{n}", "value": ((11 * number + 3 * n) % 43) / 43} for n in range(DIMENSIONS)]
    reference = {"apiVersion": names.API_VERSION, "kind": "Tune", "name": "gp", "uid": owner, "controller": True}
    meta: dict[str, Any] = {"name": f"gp-cv{number}", "namespace": NAMESPACE, "ownerReferences": [reference]}
    score = str(round(((13 * number) % 37) / 37, 6))
    return {
        "apiVersion": names.API_VERSION,
        "kind": "CrossValidation",
        "metadata": {**meta, "creationTimestamp": now},
        "spec": {"hyperparameters": values},
        "status": {"phase": "Complete", "score": score, "std": "0.01", "expected": 2, "succeeded": 2, "endTime": now},
    }


async def extended(operator: Operator) -> None:
    """The expensive Tune with trials that have ended, and slots for 48 more."""
    operator.cluster.apply(EXPENSIVE)
    uid = operator.cluster.of(Kind.TUNE)[0]["metadata"]["uid"]
    for number in range(TOLD):
        operator.cluster.replace(ended(number, uid, operator.cluster.clock.text))
    # Trials that have ended are not looked at.
    operator.cluster.woken = {Key(Kind.TUNE, NAMESPACE, "gp"): None}


async def until(done: Any, what: str, seconds: float = 40) -> None:
    end = asyncio.get_running_loop().time() + seconds
    while not done():
        assert asyncio.get_running_loop().time() < end, what
        await asyncio.sleep(0.02)


async def test_an_expensive_tune_keeps_nobody_waiting() -> None:
    operator = Operator(seconds=120)
    await extended(operator)
    async with operator.running():
        operator.pass_on()
        # Another user's Tune comes while the expensive one's question is answered: it is looked at meanwhile.
        operator.apply(tune("other", algorithm={"name": "Grid"}))
        await until(lambda: operator.degraded("other") == "AsExpected", "a look at the other Tune")
        assert operator.trials("gp") == TOLD
        await until(lambda: operator.trials("other") >= 1, "a trial of the other Tune")
        await until(lambda: operator.trials("gp") >= TOLD + 3, "trials of the expensive Tune")
    assert operator.degraded("other") == operator.degraded("gp") == "AsExpected"


async def test_a_question_that_takes_too_long_is_its_own_tunes_affair() -> None:
    operator = Operator(seconds=120)
    await extended(operator)
    async with operator.running():
        operator.apply(tune("other", algorithm={"name": "Grid"}))
        await until(lambda: operator.trials("other") >= 1, "a trial, and so a worker that has started")
        operator.pool._seconds = 0.02
        operator.pass_on()
        await until(lambda: operator.degraded("gp") == "SearchTimedOut", "that it says so")
        assert operator.degraded("other") == "AsExpected"
        operator.pool._seconds = 120
        operator.cluster.clock.advance(600)
        operator.queue.add(Key(Kind.TUNE, NAMESPACE, "gp"))
        await until(lambda: operator.degraded("gp") == "AsExpected", "that it goes on")
        assert operator.trials("gp") > TOLD
