"""A look at a Tune costs what has changed and what is under way: its 600th trial costs what its 60th did.

Work is counted in steps of the interpreter, which are the same on any machine. What it does at one step over a whole list
(to copy it, to compare it with another by identity) is not counted: that takes microseconds for thousands of trials.
"""

import sys
from collections.abc import Callable, Sequence
from types import FrameType
from typing import Any

from benchmarks.operator import look
from crossfold_operator import names
from crossfold_operator.cluster.base import Key, Obj
from crossfold_operator.names import Kind
from crossfold_operator.reconcile.reconciler import Reconciler
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
PHASES = ("Complete", "Pruned", "Complete", "Failed", "Unstable", "Complete")


async def world(ended: int, phases: Sequence[str] = PHASES, **changes: Any) -> World:
    """A Tune of which so many trials have ended, in every way or in some, and two run."""
    cluster = MemoryCluster()
    good = Ending(changes={"score": 0.59, "values": {"val/JaccardIndex": 0.59}})
    it = World(cluster, lambda run, attempt: good, settings=Settings(trainer_image="registry/trainer:1"))
    rules = {"target": 0.99, "earlyStopping": {"patience": 5_000}, "budget": {"gpuHours": 1e6}}
    spec = {"algorithm": {"name": "Random"}, "parameters": [RATE], "maxTrials": ended + 2, "maxFailedTrials": ended}
    cluster.apply(tune(**spec | rules | {"crossValidation": {"folds": FOLDS}} | changes))
    uid = cluster.of(Kind.TUNE)[0]["metadata"]["uid"]
    for number in range(ended):
        cluster.replace(trial(number, phases[number % len(phases)], uid, cluster.clock.text))
    cluster.woken = {TUNE: None}
    await it.settle()
    for job in it.unfinished():
        it.start(job)
    await it.settle()
    return it


def trial(number: int, phase: str, owner: str, now: str) -> Obj:
    scores = [round(0.5 + 0.001 * ((7 * number + fold) % 90), 6) for fold in range(FOLDS)]
    runs = [
        {"fold": fold, "seed": 42, "run": f"t-cv{number}-f{fold}s42", "phase": "Succeeded", "stable": True, "score": str(s)}
        for fold, s in enumerate(scores)
    ]  # fmt: skip
    runs[0] |= {"curve": curve(scores[0], now)}
    if phase == "Failed":
        runs[-1] |= {"phase": "Failed", "failureClass": "OutOfMemory"}
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


def curve(best: float, now: str) -> list[Obj]:
    """Of a run whose score has come so far after its third epoch."""
    return [{"epoch": 3, "best": str(best), "mean": str(best - 0.1), "time": now}]


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


async def steps(ended: int, phases: Sequence[str] = PHASES, **changes: Any) -> tuple[int, int, int]:
    """Of a look when nothing changed, when a run has changed, and when a run has ended and another one is due."""
    it, counted = await world(ended, phases, **changes), Steps()
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
    assert 0 < status["trials"]["running"] == status["trials"]["asked"] - ended
    assert status["trials"]["complete"] == phases.count("Complete") * ended // len(phases)
    return nothing, changed, over


def assert_same(few: int, many: int) -> None:
    assert 1_000 < many < 1.02 * few + 1_000


async def test_a_look_costs_the_same_whatever_has_ended() -> None:
    for few, many in zip(await steps(60), await steps(600), strict=True):
        assert_same(few, many)


async def test_a_look_costs_the_same_however_many_trials_did_not_fit_into_memory() -> None:
    constrain: dict[str, Any] = {"algorithm": {"name": "TPE"}, "retries": {"outOfMemory": "Constrain"}}
    several = [await steps(ended, ["Failed"], **constrain) for ended in (60, 600)]
    for few, many in zip(*several, strict=True):
        assert_same(few, many)


async def steps_inside(ended: int) -> int:
    """Of a look that finds a run not worth going on, when another one was judged at the same epoch before."""
    pruning = {"method": "MedianStop", "minEpochs": 3, "audit": 1}
    it = await world(ended, pruning=pruning, trainer={"maxEpochs": 9, "checkValEveryNEpoch": 3})
    found = 0
    for run in it.cluster.of(Kind.TRAIN_RUN):
        if run["spec"]["fold"] == 0:
            it.cluster.apply(run | {"status": run["status"] | {"curve": curve(0.2, it.cluster.clock.text)}})
            found = await Steps().of(it, TUNE)
    looks = [cv["spec"]["audit"]["runLook"] for cv in it.cluster.of(Kind.CROSS_VALIDATION) if "audit" in cv["spec"]]
    assert [(look["peers"], look["incumbent"]) for look in looks] == [(ended, 12)] * 2
    return found


async def test_a_look_that_prunes_inside_a_run_costs_the_same_whatever_has_ended() -> None:
    assert_same(await steps_inside(60), await steps_inside(600))


async def steps_in_flight(in_flight: int) -> int:
    """Of a look after one of so many runs in flight has changed."""
    cluster, key = look.searching(in_flight)
    reconcile, counted = Reconciler(cluster, Settings(), lambda: look.NOW), Steps()
    await reconcile(key)
    run = cluster.get(Key(Kind.TRAIN_RUN, "d", f"t-cv{look.FINISHED}-f1s42"))
    assert run is not None
    cluster.put({**run, "status": {**run["status"], "epoch": 4}})
    before = sys.gettrace()
    sys.settrace(counted)
    try:
        await reconcile(key)
    finally:
        sys.settrace(before)
    return counted.count


async def test_a_look_costs_little_for_each_run_that_has_not_changed() -> None:
    few, many = await steps_in_flight(20), await steps_in_flight(120)
    # To read a run again costs thousands of steps.
    assert 0 < (many - few) / 100 < 1_000
