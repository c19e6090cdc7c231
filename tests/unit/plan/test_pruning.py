"""Which runs are looked into, what they are compared with, and what becomes of the decision."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from crossfold_operator import objects
from crossfold_operator.api.crossvalidation import AuditSpec, RunRecord, TrialStopSpec
from crossfold_operator.api.pruning import CurveRecord, RunLookSpec
from crossfold_operator.api.trainrun import StopReason
from crossfold_operator.api.tune import TuneSpec
from crossfold_operator.names import CrossValidationPhase, TrainRunPhase
from crossfold_operator.observe.curves import Curve, Point, curve_of
from crossfold_operator.observe.runs import Run
from crossfold_operator.observe.trials import Ended, Trial
from crossfold_operator.plan.decisions import Decided
from crossfold_operator.plan.pruning import curve_epochs, judge, looks
from crossfold_operator.plan.spending import Spent
from crossfold_operator.plan.tune import history
from crossfold_operator.search.history import TrialState
from tests.fakes.planning import plan
from tests.fakes.world import cross_validation, tune

NOW = datetime(2026, 1, 1, tzinfo=UTC)
TIME = "2026-01-01T00:00:00Z"
FIRST = (0, 42)
MEDIAN, ASHA = {"method": "MedianStop", "minEpochs": 3}, {"method": "ASHA", "minEpochs": 3}


def spec(**changes: Any) -> TuneSpec:
    content = {"maxTrials": 20, "parallelism": 4, "crossValidation": {"folds": 2}, "racing": {"enabled": False}}
    return TuneSpec.model_validate(tune(**(content | {"pruning": MEDIAN} | changes))["spec"])


Points = Sequence[tuple[int, float, float]]


def records(points: Points) -> list[CurveRecord]:
    return [CurveRecord(epoch=e, best=repr(best), mean=repr(mean), time=TIME) for e, best, mean in points]


def run(points: Points = (), phase: str = "Running", *, unit: tuple[int, int] = FIRST, stable: bool = True) -> Run:
    done = phase == "Succeeded"
    record = RunRecord(
        fold=unit[0],
        seed=unit[1],
        run="r",
        phase=TrainRunPhase(phase),
        score="0.5" if done else None,
        stable=stable if done else None,
        curve=records(points),
    )
    return Run(record, uid="u")


def under_way(number: int, *runs: Run, **more: Any) -> Trial:
    return Trial(
        number=number, name=f"t-cv{number}", uid=f"u{number}", phase=CrossValidationPhase.RUNNING, parameters={},
        runs=tuple(runs), **more,
    )  # fmt: skip


def over(number: int, points: Points, score: float | None = 0.5, *, phase: str = "Complete", **more: Any) -> Trial:
    completed = phase == "Complete"
    curve = curve_of(run(points, "Succeeded" if completed else "Stopped").record)
    return Trial(
        number=number, name=f"t-cv{number}", uid=f"u{number}", phase=CrossValidationPhase(phase), parameters={},
        score=score, ended=Ended(curves={FIRST: curve}), **more,
    )  # fmt: skip


# Running means after 3 epochs 0.2, 0.3, 0.4, 0.5; best scores 0.1 higher.
FOUR = [over(n, [(3, m + 0.1, m), (6, m + 0.3, m + 0.2)], m + 0.4) for n, m in enumerate((0.2, 0.3, 0.4, 0.5))]
POOR, FAIR = run([(3, 0.3, 0.3)]), run([(3, 0.4, 0.4)])


def known(trial: Trial) -> Ended:
    assert trial.ended is not None
    return trial.ended


def pruned(trials: Sequence[Trial], **changes: Any) -> list[int]:
    return [found.trial.number for found in judge(spec(**changes), trials) if not found.audited]


@pytest.mark.parametrize(
    ("trials", "changes", "numbers"),
    [
        ([*FOUR, under_way(4, POOR), under_way(5, FAIR)], {}, [4]),
        ([*FOUR, under_way(4, POOR)], {"pruning": {}}, []),
        # Whatever is less is better.
        ([*FOUR, under_way(4, POOR), under_way(5, FAIR)], {"objective": {"metrics": [{"name": "val/loss"}]}}, [5]),
        # Too few complete runs; those under way are none, those of trials under way are.
        ([*FOUR[:3], under_way(4, POOR)], {}, []),
        ([*FOUR[:3], under_way(3, FAIR), under_way(4, POOR)], {}, []),
        ([*FOUR[:3], under_way(3, run([(3, 0.6, 0.5)], "Succeeded")), under_way(4, POOR)], {}, [4]),
        ([*FOUR[:3], under_way(4, POOR)], {"pruning": MEDIAN | {"minPeers": 3}}, []),
        ([*FOUR[1:], under_way(4, POOR)], {"pruning": MEDIAN | {"minPeers": 3}}, [4]),
        # One that is not stable, was stopped, or failed is not complete.
        ([*FOUR[:3], under_way(3, run([(3, 0.6, 0.5)], "Succeeded", stable=False)), under_way(4, POOR)], {}, []),
        ([*FOUR[:3], over(3, [(3, 0.6, 0.5)], phase="Pruned"), under_way(4, POOR)], {}, []),
        # One that ended by itself before that epoch counts with what it had.
        ([*FOUR, under_way(4, run([(9, 0.54, 0.1)]))], {}, [4]),
        ([*FOUR, under_way(4, run([(9, 0.56, 0.1)]))], {}, []),
        # What the run had at its latest epoch counts, whether its earlier ones were seen or not.
        ([*FOUR, under_way(4, run([(3, 0.3, 0.3), (6, 0.56, 0.4)]))], {}, []),
        # Nothing has been told yet.
        ([*FOUR, under_way(4, run()), under_way(5)], {}, []),
        # The first run alone is looked into, and only while it is under way.
        ([*FOUR, under_way(4, run([(3, 0.3, 0.3)], unit=(1, 42)))], {}, []),
        ([*FOUR, under_way(4, run([(3, 0.3, 0.3)], "Succeeded"), run(unit=(1, 42)))], {}, []),
        ([*FOUR, under_way(4, run([(3, 0.3, 0.3)], "Preempted"))], {}, [4]),
        # What is stopped, goes away, was judged or has failed is left alone.
        ([*FOUR, under_way(4, POOR, deleting=True)], {}, []),
        ([*FOUR, under_way(4, POOR, stop=TrialStopSpec(reason=StopReason.STOPPED))], {}, []),
        ([*FOUR, under_way(4, POOR, run(phase="Failed", unit=(1, 42)))], {}, []),
    ],
)  # fmt: skip
def test_who_is_pruned(trials: list[Trial], changes: dict[str, Any], numbers: list[int]) -> None:
    assert pruned(trials, **changes) == numbers


@pytest.mark.parametrize(
    ("trials", "changes", "numbers"),
    [
        # Best scores at the rung 0.3, 0.4, 0.5, 0.6 and its own: one of five goes on, and equal ones do together.
        ([*FOUR, under_way(4, run([(3, 0.5, 0.5)]))], {}, [4]),
        ([*FOUR, under_way(4, run([(3, 0.6, 0.1)]))], {}, []),
        ([*FOUR, under_way(4, run([(3, 0.5, 0.5)]))], {"pruning": ASHA | {"reductionFactor": 2}}, []),
        # All that have reached the rung count, whatever became of them, those that train among them.
        ([over(0, [(3, 0.6, 0)], phase="Pruned"), under_way(1, run([(3, 0.5, 0)])), under_way(2, run([(3, 0.4, 0)]))],
         {"pruning": ASHA | {"minPeers": 2}}, [1, 2]),
        ([over(0, [(3, 0.6, 0)], phase="Pruned"), under_way(1, run([(3, 0.5, 0)])), under_way(2, run())],
         {"pruning": ASHA | {"minPeers": 2}}, []),
        # At a higher rung only those that came there, or ended by themselves before.
        ([*FOUR, under_way(4, run([(3, 0.9, 0.9), (12, 0.9, 0.9)]))], {}, []),
        ([*FOUR, under_way(4, run([(3, 0.7, 0.7), (12, 0.7, 0.7)]))], {}, [4]),
        ([*(replace(t, phase=CrossValidationPhase.PRUNED, ended=over(0, [(3, 1, 1)], phase="Pruned").ended) for t in FOUR),
          under_way(4, run([(3, 0.7, 0.7), (12, 0.7, 0.7)]))], {}, []),
    ],
)  # fmt: skip
def test_who_is_halved(trials: list[Trial], changes: dict[str, Any], numbers: list[int]) -> None:
    assert pruned(trials, **({"pruning": ASHA} | changes)) == numbers


def test_what_racing_waits_for_is_left_alone() -> None:
    five = {"crossValidation": {"folds": 5}, "racing": {}}
    assert pruned([*FOUR[1:], under_way(4, POOR)], **five, pruning=MEDIAN | {"minPeers": 2}) == []
    assert pruned([*FOUR, under_way(4, POOR)], **five) == [4]
    assert pruned([*FOUR, under_way(4, POOR)], crossValidation={"folds": 5}, racing={"warmupTrials": 5}) == []
    # Where racing can never prune, there is nothing to wait for.
    one = {"crossValidation": {"folds": 1, "foldMethod": "None"}, "racing": {}}
    assert pruned([*FOUR, under_way(4, POOR)], **one) == [4]


def test_runs_of_another_fold_are_no_peers() -> None:
    elsewhere = [replace(t, ended=Ended(curves={(1, 42): known(t).curves[FIRST]})) for t in FOUR]
    assert pruned([*elsewhere, under_way(4, POOR)]) == []


def test_looks_are_the_same_in_any_order_and_when_asked_again() -> None:
    trials = [*FOUR, under_way(4, POOR), under_way(5, FAIR)]
    first = {t.number: seen for t, seen in looks(spec(), trials)}
    again = {t.number: seen for t, seen in looks(spec(), trials[::-1])}
    assert first == again
    # What is kept of ended trials is theirs: others that have ended since are seen.
    assert {t.number: seen.peers for t, seen in looks(spec(), [*trials, over(6, [(3, 0.9, 0.9)])])} == {4: 5, 5: 5}


def test_the_curve_of_a_run() -> None:
    record = run([(9, 0.5, 0.4), (3, 0.3, 0.2)], "Succeeded").record
    curve = curve_of(record)
    assert curve == Curve((Point(3, 0.3, 0.2), Point(9, 0.5, 0.4)), completed=True)
    assert (curve.at(2), curve.at(3), curve.at(6), curve.at(9), curve.at(12)) == (
        None, Point(3, 0.3, 0.2), None, Point(9, 0.5, 0.4), Point(9, 0.5, 0.4),
    )  # fmt: skip
    assert replace(curve, completed=False).at(12) is None


# What is written down ------------------------------------------------------------------------------------------------


def numbers(found: Decided) -> RunLookSpec:
    assert found.run_look is not None
    assert found.look is None
    return found.run_look


def test_the_decision_is_remembered_with_its_numbers() -> None:
    (found,) = judge(spec(), [*FOUR, under_way(4, POOR)])
    stop = found.stop(NOW)
    assert (stop.reason, stop.time, stop.look) == (StopReason.PRUNED, TIME, None)
    assert stop.message == (
        "pruned at epoch 3 of its first run: best score 0.3 is worse than 0.35, the median of the means so far of 4"
        " complete runs"
    )
    look = numbers(found)
    assert (look.method, look.fold, look.seed, look.epoch, look.best, look.peers) == ("MedianStop", 0, 42, 3, 0.3, 4)
    assert look.threshold == pytest.approx(0.35)
    assert (look.runs_done, look.runs_total, look.incumbent, look.bar) == (0, 2, 3, pytest.approx(0.9))
    # Complete trials gained 0.3 from their best score after three epochs to their mean.
    assert look.predicted == pytest.approx(0.6)
    assert TrialStopSpec.model_validate(stop.model_dump(mode="json")) == stop


def test_what_is_predicted_is_no_better_than_the_best_trial() -> None:
    level = [replace(t, score=0.62) for t in FOUR]
    (found,) = judge(spec(), [*level, under_way(4, run([(3, 0.34, 0.34)]))])
    assert numbers(found).predicted == pytest.approx(0.34 + (0.32 + 0.22 + 0.12 + 0.02) / 4)
    # The second of five at its rung: with what the others gained it would be ahead of all of them.
    others = [over(n, [(3, best, best)], score) for n, (best, score) in enumerate([(0.3, 0.9), *[(0.1, 0.85)] * 3])]
    (found,) = judge(
        spec(pruning=ASHA, racing={"enabled": False, "minDelta": 0.01}), [*others, under_way(4, run([(3, 0.25, 0.2)]))]
    )
    assert (numbers(found).predicted, numbers(found).bar) == (pytest.approx(0.91), pytest.approx(0.91))


def test_before_any_trial_is_complete_there_is_no_bar() -> None:
    first = [under_way(n, run([(3, 0.6, 0.5)], "Succeeded"), run(unit=(1, 42))) for n in range(4)]
    (found,) = judge(spec(), [*first, under_way(4, POOR)])
    assert (numbers(found).incumbent, numbers(found).bar, numbers(found).predicted) == (None, None, 0.3)


def test_the_sampler_is_told_as_soon_as_it_is_decided() -> None:
    (found,) = judge(spec(), [*FOUR, under_way(4, POOR)])
    (told,) = history([under_way(4, POOR, stop=found.stop(NOW))], 5)[4:]
    assert (told.state, told.value, told.step) == (TrialState.PRUNED, numbers(found).predicted, 0)


def test_audited_trials_are_judged_once() -> None:
    audit = {"pruning": MEDIAN | {"audit": 1}}
    (found,) = judge(spec(**audit), [*FOUR, under_way(4, POOR)])
    assert found.audited
    written = found.audit(NOW)
    assert AuditSpec.model_validate(written.model_dump(mode="json")) == written
    assert judge(spec(**audit), [*FOUR, under_way(4, POOR, audit=written)]) == []
    share = judge(spec(pruning=MEDIAN | {"audit": 0.3}), [*FOUR, *(under_way(n, POOR) for n in range(4, 104))])
    assert 15 <= sum(one.audited for one in share) <= 45


def test_where_racing_decides_too_it_is_racing_s_decision() -> None:
    scores = [tuple((f, 42, 0.8 + 0.01 * n + 0.002 * ((n * 7 + f * 5) % 3)) for f in range(5)) for n in range(4)]
    complete = [
        replace(t, score=sum(s for *_, s in scores[t.number]) / 5, ended=replace(known(t), scores=scores[t.number]))
        for t in FOUR
    ]  # fmt: skip
    second = Run(run(phase="Succeeded", unit=(1, 42)).record.model_copy(update={"score": "0.1"}), uid="u")
    both = {"crossValidation": {"folds": 5}, "racing": {}}
    trials = [*complete, under_way(4, POOR, second)]
    assert pruned(trials, **both) == [4]
    found = plan(spec(**both), trials, 5, lambda told, number: None, spent=Spent(), now=NOW)
    (stop,) = found.stops
    assert stop.stop.look is not None
    assert stop.stop.run_look is None


# Where it begins and where slots go ----------------------------------------------------------------------------------


def test_the_first_run_of_each_trial_is_told_where_to_tell_its_scores() -> None:
    long = spec(pruning=MEDIAN | {"minEpochs": 5}, trainer={"maxEpochs": 20})
    assert curve_epochs(long, FIRST) == [6, 9, 12, 15, 18]
    assert curve_epochs(long, (1, 42)) == []
    assert curve_epochs(spec(pruning={}), FIRST) == []
    cv = cross_validation("t-cv0")
    cv["metadata"]["uid"] = "u"
    first, second = (objects.train_run(cv, long, [], unit, "image")["spec"] for unit in (FIRST, (1, 42)))
    assert first["curveEpochs"] == [6, 9, 12, 15, 18]
    assert "curveEpochs" not in second


def started(trials: list[Trial], **changes: Any) -> tuple[list[tuple[int, int]], dict[int, int]]:
    """(trial, fold) of the runs below trials that exist, and how many runs each new trial starts with."""
    found = plan(spec(**changes), trials, len(trials), lambda told, n: {"x": n}, spent=Spent(), now=NOW)
    return [(r.trial.number, r.unit[0]) for r in found.runs], {t.number: len(t.units) for t in found.trials}


FOUR_FOLDS = {"crossValidation": {"folds": 4}}


@pytest.mark.parametrize(
    ("trials", "changes", "runs", "new"),
    [
        # One run of each trial until it has ended, then all of them, the oldest first.
        ([], {"parallelism": 3}, [], {0: 1, 1: 1, 2: 1}),
        ([under_way(0, run())], {"parallelism": 3}, [], {1: 1, 2: 1}),
        ([under_way(0, run()), under_way(1, run(phase="Succeeded"))], {"parallelism": 4}, [(1, 1), (1, 2), (1, 3)], {}),
        ([under_way(0, run())], {"parallelism": 4, "maxTrials": 1}, [(0, 1)], {}),
        # A trial that is only audited comes whole.
        ([under_way(0, run(), audit=AuditSpec(time=TIME, message="m"))], {"parallelism": 3}, [(0, 1), (0, 2)], {}),
        # A trial that is pruned in this very look gets nothing more.
        ([*FOUR, under_way(4, POOR)], {"parallelism": 2}, [], {5: 1}),
        # Where racing waits for complete trials, these come whole all the same.
        ([], {"parallelism": 6, "racing": {}}, [], {0: 4, 1: 2}),
        # Where nothing is pruned at all, all come whole.
        ([], {"parallelism": 6, "pruning": {}}, [], {0: 4, 1: 2}),
    ],
)  # fmt: skip
def test_slots(trials: list[Trial], changes: dict[str, Any], runs: list[tuple[int, int]], new: dict[int, int]) -> None:
    assert started(trials, **(FOUR_FOLDS | changes)) == (runs, new)


@pytest.mark.parametrize("method", ["MedianStop", "ASHA"])
def test_runs_at_an_epoch_are_compared_with_the_same_and_not_each_with_each(
    method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = 0
    at = Curve.at

    def counting(self: Curve, epoch: int) -> Point | None:
        nonlocal asked
        asked += 1
        return at(self, epoch)

    monkeypatch.setattr(Curve, "at", counting)
    trials = [under_way(n, run([(3, 0.5 + n / 1000, 0.5)])) for n in range(100)]
    found = looks(spec(pruning={"method": method, "minEpochs": 3}, trainer={"maxEpochs": 9}), trials)
    assert len(found) == 100
    assert asked <= 100
