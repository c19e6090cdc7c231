"""A look at a Tune costs what has changed and what is under way: its 600th trial costs what its 60th did.

Work is counted in steps of the interpreter, which are the same on any machine. What it does at one step over a whole list
(to copy it, to compare it with another by identity) is not counted: that takes microseconds for thousands of trials.
"""

import sys
from collections.abc import Callable
from types import FrameType
from typing import Any

from crossfold_operator import names
from crossfold_operator.cluster.base import Key, Obj
from crossfold_operator.names import Kind
from crossfold_operator.settings import Settings
from tests.fakes.memory_cluster import MemoryCluster
from tests.fakes.world import NAMESPACE, Ending, World, tune

TUNE = Key(Kind.TUNE, NAMESPACE, "t")
FOLDS = 6
RATE = {"name": "learning_rate", "type": "Float", "min": 0.001, "max": 0.1}
LOOK = {
    "rule": "Evidence", "runsDone": 2, "runsTotal": FOLDS, "incumbent": 1, "bar": 0.8, "predicted": 0.3, "standardError": 0.01,
    "p": 0.001, "alpha": 0.05, "probability": 0.001, "references": 5, "varianceFold": 0.1, "varianceRun": 0,
    "varianceFactor": 1,
}  # fmt: skip


async def world(ended: int) -> World:
    """A Tune of which so many trials have ended, in every way, and two run."""
    cluster = MemoryCluster()
    good = Ending(changes={"score": 0.59, "values": {"val/JaccardIndex": 0.59}})
    it = World(cluster, lambda run, attempt: good, settings=Settings(trainer_image="registry/trainer:1"))
    rules = {"target": 0.99, "earlyStopping": {"patience": 5_000}, "budget": {"gpuHours": 1e6}}
    spec = {"algorithm": {"name": "Random"}, "parameters": [RATE], "maxTrials": ended + 2, "maxFailedTrials": ended}
    cluster.apply(tune(**spec, **rules, crossValidation={"folds": FOLDS}))
    uid = cluster.of(Kind.TUNE)[0]["metadata"]["uid"]
    for number in range(ended):
        cluster.replace(trial(number, uid, cluster.clock.text))
    cluster.woken = {TUNE: None}
    await it.settle()
    for job in it.unfinished():
        it.start(job)
    await it.settle()
    return it


def trial(number: int, owner: str, now: str) -> Obj:
    phase = ("Complete", "Pruned", "Complete", "Failed", "Unstable", "Complete")[number % 6]
    scores = [round(0.5 + 0.001 * ((7 * number + fold) % 90), 6) for fold in range(FOLDS)]
    runs = [
        {"fold": fold, "seed": 42, "run": f"t-cv{number}-f{fold}s42", "phase": "Succeeded", "stable": True, "score": str(s)}
        for fold, s in enumerate(scores)
    ]  # fmt: skip
    stop = {"reason": "Pruned", "message": "pruned after 2 runs", "time": now, "look": LOOK}
    score = {"score": str(round(sum(scores) / FOLDS, 6)), "std": "0.01"} if phase == "Complete" else {}
    return {
        "apiVersion": names.API_VERSION,
        "kind": "CrossValidation",
        "metadata": {
            "name": f"t-cv{number}",
            "namespace": NAMESPACE,
            "ownerReferences": [
                {"apiVersion": names.API_VERSION, "kind": "Tune", "name": "t", "uid": owner, "controller": True}
            ],
            "creationTimestamp": now,
        },
        "spec": {
            "hyperparameters": [{"name": "learning_rate", "value": 0.002 + 1e-6 * number}],
            **({"stop": stop} if phase == "Pruned" else {}),
        },
        "status": {
            "phase": phase,
            "runs": runs[:2] if phase == "Pruned" else runs,
            "expected": FOLDS,
            "succeeded": 2 if phase == "Pruned" else FOLDS,
            "usage": {"runSeconds": 60, "gpuSeconds": {"useful": 60}},
            "dataDigest": "d" * 64,
            "endTime": now,
            **score,
        },
    }


class Steps:
    """Counts the interpreter's steps."""

    def __init__(self) -> None:
        self.count = 0

    def __call__(self, frame: FrameType, event: str, _: Any) -> Callable[..., Any]:
        frame.f_trace_opcodes = True
        self.count += event == "opcode"
        return self

    async def of(self, it: World, key: Key) -> int:
        """Of a look."""
        self.count, before = 0, sys.gettrace()
        sys.settrace(self)
        try:
            await it.reconcile(key)
        finally:
            sys.settrace(before)
        return self.count


async def steps(ended: int) -> tuple[int, int, int]:
    """Of a look when nothing changed, when a run has changed, and when a run has ended and another one is due."""
    it, counted = await world(ended), Steps()
    await it.step()  # racing has seen a score, and what the ended trials say to that
    for job in it.unfinished():
        if not job.get("status"):
            it.start(job)
    await it.settle()
    await it.reconcile(TUNE)
    nothing = await counted.of(it, TUNE)
    run = it.cluster.of(Kind.TRAIN_RUN)[0]
    now = run["status"] | {"usage": {"runSeconds": 7}}
    it.cluster.apply(run | {"status": now})
    changed = await counted.of(it, TUNE)
    job = it.unfinished()[0]
    it.cluster.clock.advance(60)
    it.end(job)
    await it.reconcile(Key(Kind.TRAIN_RUN, NAMESPACE, job["metadata"]["labels"][names.LABEL_TRAIN_RUN]))
    runs = len(it.cluster.of(Kind.TRAIN_RUN))
    over = await counted.of(it, TUNE)
    assert len(it.cluster.of(Kind.TRAIN_RUN)) == runs + 1
    status = it.cluster.status(Kind.TUNE, "t")
    assert (status["trials"]["asked"], status["trials"]["running"]) == (ended + 2, 2)
    assert status["trials"]["complete"] == sum(number % 6 in (0, 2, 5) for number in range(ended))
    return nothing, changed, over


async def test_a_look_costs_the_same_whatever_has_ended() -> None:
    few, many = await steps(60), await steps(600)
    for one, other in zip(few, many, strict=True):
        assert 1_000 < other < 1.02 * one + 1_000
