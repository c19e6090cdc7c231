"""Pruning inside a run in whole trees: who is stopped, what becomes of it, and that nothing depends on crashes."""

import re
from typing import Any

import pytest

from crossfold_operator.cluster.base import Key, Obj
from crossfold_operator.names import Kind
from tests.fakes import world as w
from tests.fakes.forgetful import Forgetful
from tests.fakes.memory_cluster import MemoryCluster
from tests.fakes.mortal import Mortal
from tests.fakes.training import Training
from tests.fakes.world import World, tune

FOLDS = 5
EPOCHS = 8
MEANS = (0.80, 0.79, 0.78, 0.81, 0.50, 0.808, 0.55)
"""The fourth trial is the best; the fifth and the last are bad from the beginning."""
BAD = ("t-cv4", "t-cv6")


def unit_of(run: str) -> tuple[int, int]:
    found = re.fullmatch(r"t-cv(\d+)-f(\d+)s42", run)
    assert found is not None
    trial, fold = map(int, found.groups())
    return trial, fold


def score(run: str, epoch: int) -> float:
    """It grows with the epochs to the trial's mean, with an effect of the fold and a little that trials do not share."""
    trial, fold = unit_of(run)
    own = MEANS[trial % len(MEANS)] + 0.02 * fold + 0.004 * ((trial * 7 + fold * 5) % 3 - 1)
    return round(own - 0.3 / epoch, 6)


def loss(run: str, epoch: int) -> float:
    return round(2 - score(run, epoch), 6)


def search(**changes: Any) -> Obj:
    content: dict[str, Any] = {
        "algorithm": {"name": "Random"},
        "parameters": [{"name": "learning_rate", "type": "Float", "min": 1e-5, "max": 1e-2}],
        "maxTrials": len(MEANS),
        "parallelism": 1,
        "crossValidation": {"folds": FOLDS},
        "trainer": {"maxEpochs": EPOCHS, "checkValEveryNEpoch": 1},
        "pruning": {"method": "MedianStop", "minEpochs": 3},
    }
    return tune(**(content | changes))


class Scored(Training):
    score = staticmethod(score)


async def ran(manifest: Obj, world: World | None = None) -> World:
    it = world or Scored(MemoryCluster())
    it.cluster.apply(manifest)
    await it.run()
    return it


def trials(it: World) -> dict[str, Obj]:
    found = it.cluster.of(Kind.CROSS_VALIDATION)
    return {
        t["metadata"]["name"]: t for t in sorted(found, key=lambda t: int(t["metadata"]["name"].rpartition("cv")[2]))
    }


def phases(it: World) -> list[str]:
    return [trial["status"]["phase"] for trial in trials(it).values()]


def stops(it: World) -> dict[str, Obj]:
    return {name: trial["spec"]["stop"] for name, trial in trials(it).items() if "stop" in trial["spec"]}


def run(it: World, name: str) -> Obj:
    return it.cluster.objects[Key(Kind.TRAIN_RUN, w.NAMESPACE, name)]


async def test_a_bad_run_is_stopped_in_its_midst_and_its_trial_with_it() -> None:
    it = await ran(search())
    status = it.cluster.status(Kind.TUNE, "t")
    inside = {name: stop for name, stop in stops(it).items() if "runLook" in stop}
    assert sorted(inside) == list(BAD)
    assert (status["phase"], status["best"]["trial"]) == ("Complete", 3)
    stop, first = inside["t-cv6"], run(it, "t-cv6-f0s42")
    assert stop["reason"] == "Pruned"
    assert stop["message"] == (
        "pruned at epoch 3 of its first run: best score 0.446 is worse than 0.6127, the median of the means so far of 5"
        " complete runs"
    )
    look = stop["runLook"]
    assert (look["method"], look["epoch"], look["fold"], look["seed"], look["peers"]) == ("MedianStop", 3, 0, 42, 5)
    assert (look["best"], look["incumbent"], look["runsDone"], look["runsTotal"]) == (0.446, 3, 0, FOLDS)
    # The run is over after three of its epochs, and is all that there was of the trial.
    assert (first["status"]["phase"], first["status"]["epoch"]) == ("Stopped", 3)
    assert (first["spec"]["stop"], first["status"]["preemptions"]) == (
        {"reason": "Pruned", "message": stop["message"]},
        0,
    )
    assert [r["metadata"]["name"] for r in it.cluster.of(Kind.TRAIN_RUN) if "cv6-" in r["metadata"]["name"]] == [
        "t-cv6-f0s42"
    ]
    cv = trials(it)["t-cv6"]["status"]
    assert (cv["phase"], cv["summary"]["runs"], cv["summary"]["reason"]) == ("Pruned", "0/5", stop["message"])
    assert "score" not in cv
    # Counted like a raced one.
    late = [
        r["status"]["usage"]["runSeconds"] for r in it.cluster.of(Kind.TRAIN_RUN) if r["status"]["phase"] == "Stopped"
    ]
    assert status["usage"]["gpuSeconds"]["pruned"] == sum(late) > 0
    assert status["runs"]["skipped"] == len(MEANS) * FOLDS - len(it.cluster.of(Kind.TRAIN_RUN))
    assert status["trials"]["pruned"] == len(stops(it))
    # One log: the same Event and the same last decision.
    told = [text for who, reason, text in it.cluster.events if (who, reason) == ("t", "TrialPruned")]
    assert f"trial 6: {stop['message']}" in told
    assert len(told) == len(stops(it))
    assert told[-1] == f"trial {status['lastDecision']['trial']}: {status['lastDecision']['message']}"
    assert "t-cv6: TrialFinished: Pruned after 0/5 runs: pruned at epoch 3" in "\n".join(
        f"{who}: {reason}: {text}" for who, reason, text in it.cluster.events
    )
    assert "pruningAudit" not in status


async def test_the_trials_that_racing_waits_for_run_to_their_end() -> None:
    # The second to be asked is bad from the beginning, and racing needs it all the same.
    class Early(Training):
        @staticmethod
        def score(run: str, epoch: int) -> float:
            return score(run, epoch) - (0.3 if unit_of(run)[0] == 1 else 0)

    it = await ran(search(), Early(MemoryCluster()))
    assert phases(it)[:4] == ["Complete"] * 4


async def test_the_least_loss_is_pruned_as_the_greatest_score_is() -> None:
    up = await ran(search())
    down = await ran(search(objective={"metrics": [{"name": "val/loss"}]}), Training(MemoryCluster(), score=loss))
    assert phases(down) == phases(up)
    for name in BAD:
        look, mirrored = stops(up)[name]["runLook"], stops(down)[name]["runLook"]
        assert (mirrored["epoch"], mirrored["peers"], mirrored["incumbent"]) == (look["epoch"], look["peers"], 3)
        for number in ("best", "threshold", "predicted", "bar"):
            assert mirrored[number] == pytest.approx(2 - look[number], abs=1e-5)


async def test_successive_halving_where_racing_is_off() -> None:
    halving = {"method": "ASHA", "minEpochs": 2, "reductionFactor": 2, "minPeers": 2}
    it = await ran(search(pruning=halving, racing={"enabled": False}))
    found = stops(it)
    assert found
    assert all("runLook" in stop for stop in found.values())
    assert {stop["runLook"]["epoch"] for stop in found.values()} <= {2, 4}
    assert it.cluster.status(Kind.TUNE, "t")["best"]["trial"] == 3
    # Those that went on ran whole.
    done = [t for t in trials(it).values() if t["status"]["phase"] == "Complete"]
    assert {t["status"]["summary"]["runs"] for t in done} == {"5/5"}


async def test_a_trial_s_curve_is_in_its_status_when_its_runs_are_gone() -> None:
    it = await ran(search(maxTrials=4))
    curves = {name: trial["status"]["runs"][0]["curve"] for name, trial in trials(it).items()}
    assert [point["epoch"] for point in curves["t-cv0"]] == [3, 4, 5, 6, 7]
    others = [record for trial in trials(it).values() for record in trial["status"]["runs"][1:]]
    assert len(others) == 4 * 4
    assert not [record for record in others if "curve" in record]
    # Times tell when each was first seen.
    times = [point["time"] for point in curves["t-cv0"]]
    assert times == sorted(set(times))
    for key in [key for key in it.cluster.objects if key.kind in (Kind.TRAIN_RUN, Kind.JOB, Kind.POD)]:
        it.cluster.remove(key)
    it.restart()
    it.cluster.apply({**{k: search()[k] for k in ("apiVersion", "kind", "metadata")}, "spec": {"maxTrials": 5}})
    await it.run()
    assert stops(it)["t-cv4"]["runLook"]["peers"] == 4


async def test_a_run_that_is_not_heard_of_is_not_pruned_and_is_still_compared_with() -> None:
    it = Scored(MemoryCluster())
    it.heard = False
    await ran(search(maxTrials=5), it)
    # When it has ended, racing hears of it.
    assert "look" in stops(it)["t-cv4"]
    assert [len(trial["status"]["runs"][0]["curve"]) for trial in trials(it).values()] == [5] * 5
    conditions = {c["type"]: c for c in it.cluster.status(Kind.TUNE, "t")["conditions"]}
    assert conditions["Degraded"]["status"] == "False"


async def test_an_operator_that_hears_nothing_says_so() -> None:
    it = World(MemoryCluster())
    it.cluster.apply(search(maxTrials=1))
    await it.settle()
    conditions = {c["type"]: c for c in it.cluster.status(Kind.TUNE, "t")["conditions"]}
    degraded = conditions["Degraded"]
    assert (degraded["status"], degraded["reason"]) == ("True", "NoLiveProgress")
    assert "progress.enabled" in degraded["message"]
    await it.run()
    assert it.cluster.status(Kind.TUNE, "t")["phase"] == "Complete"
    plain = World(MemoryCluster())
    plain.cluster.apply(search(maxTrials=1, pruning={}))
    await plain.settle()
    conditions = {c["type"]: c["reason"] for c in plain.cluster.status(Kind.TUNE, "t")["conditions"]}
    assert conditions["Degraded"] == "AsExpected"


async def test_audited_trials_run_to_their_end_and_are_counted_apart() -> None:
    it = await ran(search(pruning={"method": "MedianStop", "minEpochs": 3, "audit": 1}, racing={"audit": 1}))
    assert phases(it) == ["Complete"] * len(MEANS)
    status = it.cluster.status(Kind.TUNE, "t")
    audits = {name: trial["spec"]["audit"] for name, trial in trials(it).items() if "audit" in trial["spec"]}
    inside = [name for name, audit in audits.items() if "runLook" in audit]
    assert inside == list(BAD)
    # The first decision stands: racing does not judge them again.
    assert all(("look" in audit) is not ("runLook" in audit) for audit in audits.values())
    assert status["pruningAudit"] == {"checked": 2, "wouldHaveWon": 0}
    assert status["audit"]["checked"] == len(audits) - 2
    assert status["trials"]["pruned"] == 0
    told = [text for _, reason, text in it.cluster.events if reason == "TrialAudited"]
    assert f"trial 4: audited, would be {audits['t-cv4']['message']}" in told


async def test_an_audited_trial_that_wins_is_counted_as_such() -> None:
    class Late(Training):
        @staticmethod
        def score(run: str, epoch: int) -> float:
            return 0.999 if unit_of(run)[0] == 4 and epoch > 5 else score(run, epoch)

    it = await ran(
        search(maxTrials=5, pruning={"method": "MedianStop", "minEpochs": 3, "audit": 1}), Late(MemoryCluster())
    )
    status = it.cluster.status(Kind.TUNE, "t")
    assert (status["best"]["trial"], status["pruningAudit"]) == (4, {"checked": 1, "wouldHaveWon": 1})


async def test_an_interrupted_run_is_judged_by_what_it_told() -> None:
    it = Scored(MemoryCluster(), lambda run, attempt: w.SUCCESS)
    it.cluster.apply(search())
    while "t-cv6-f0s42" not in it.trained or it.trained["t-cv6-f0s42"] < 2:
        assert await it.step()
    it.cluster.remove(Key(Kind.JOB, w.NAMESPACE, "t-cv6-f0s42"))
    await it.run()
    assert stops(it)["t-cv6"]["runLook"]["epoch"] == 3


class MortalTraining(Mortal, Scored):
    """A world of runs that train, whose operator dies once."""


async def test_a_crash_at_any_decision_changes_nothing() -> None:
    manifest = search(maxTrials=5)
    plain = await ran(manifest)
    expected = w.tree(plain.cluster)
    decisions = [
        at
        for at, (verb, key) in enumerate(plain.cluster.calls, 1)
        if verb == "patch" and key.kind in (Kind.CROSS_VALIDATION, Kind.TRAIN_RUN)
    ]
    assert len(decisions) >= 2
    # Before the decision is written, and between it and what follows from it.
    for at in sorted({*decisions, *(at + 1 for at in decisions)}):
        mortal = MortalTraining(MemoryCluster(), lambda run, attempt: w.SUCCESS, at)
        await ran(manifest, mortal)
        assert mortal.deaths == 1
        assert w.tree(mortal.cluster) == expected, f"crash at call {at}"


class ForgetfulTraining(Forgetful, Scored):
    """A world of runs that train, whose operator is new at every look."""


async def test_the_search_is_the_same_from_the_objects_alone() -> None:
    manifest = search(maxTrials=7, algorithm={"name": "TPE", "seed": 7}, parallelism=3)
    plain, again = await ran(manifest), await ran(manifest, ForgetfulTraining(MemoryCluster()))
    assert any("runLook" in stop for stop in stops(plain).values())
    told = [
        [
            (name, t["spec"]["hyperparameters"], t["spec"].get("stop"), t["status"]["runs"])
            for name, t in trials(it).items()
        ]
        for it in (plain, again)
    ]
    assert told[0] == told[1]
    digests = [it.cluster.status(Kind.TUNE, "t")["search"]["historyDigest"] for it in (plain, again)]
    assert digests[0] == digests[1]
