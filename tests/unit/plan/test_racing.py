"""Which trials are raced against which, and where the slots go while they are."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from crossfold_operator.api.crossvalidation import AuditSpec, RunRecord, TrialStopSpec
from crossfold_operator.api.racing import LookSpec
from crossfold_operator.api.trainrun import StopReason
from crossfold_operator.api.tune import TuneSpec
from crossfold_operator.names import CrossValidationPhase, TrainRunPhase
from crossfold_operator.observe.runs import Run
from crossfold_operator.observe.trials import Ended, Trial
from crossfold_operator.plan.decisions import Decided
from crossfold_operator.plan.racing import judge, lead, looks
from crossfold_operator.plan.spending import Spent
from crossfold_operator.plan.tune import history
from crossfold_operator.search.history import TrialState
from tests.fakes.planning import plan
from tests.fakes.world import tune

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def spec(**changes: Any) -> TuneSpec:
    content = {"maxTrials": 20, "parallelism": 4, "crossValidation": {"folds": 5}, **changes}
    return TuneSpec.model_validate(tune(**content)["spec"])


def complete(number: int, mean: float, seeds: Sequence[int] = (42,)) -> Trial:
    scores = tuple(
        (fold, seed, mean + 0.01 * fold + 0.002 * ((number * 7 + fold * 5 + seed) % 3 - 1))
        for seed in seeds
        for fold in range(5)
    )
    return Trial(
        number=number,
        name=f"t-cv{number}",
        uid=f"u{number}",
        phase=CrossValidationPhase.COMPLETE,
        parameters={},
        score=sum(score for *_, score in scores) / len(scores),
        ended=Ended(scores=scores),
    )


def run(fold: int, score: float | None = None, phase: str = "Succeeded", *, stable: bool = True) -> Run:
    text = None if score is None else repr(score)
    done = phase == "Succeeded"
    record = RunRecord(
        fold=fold, seed=42, run="r", phase=TrainRunPhase(phase), score=text, stable=stable if done else None
    )
    return Run(record, uid="u")


def under_way(number: int, *runs: Run, **more: Any) -> Trial:
    return Trial(
        number=number,
        name=f"t-cv{number}",
        uid=f"u{number}",
        phase=CrossValidationPhase.RUNNING,
        parameters={},
        runs=tuple(runs),
        **more,
    )


FOUR = [complete(n, mean) for n, mean in enumerate((0.80, 0.79, 0.78, 0.81))]
BAD = (run(0, 0.5), run(1, 0.51))
GOOD = (run(0, 0.82), run(1, 0.83))


def numbers(found: Decided) -> LookSpec:
    assert found.look is not None
    assert found.run_look is None
    return found.look


def pruned(trials: Sequence[Trial], **changes: Any) -> list[int]:
    return [found.trial.number for found in judge(spec(**changes), trials) if not found.audited]


@pytest.mark.parametrize(
    ("trials", "changes", "numbers"),
    [
        ([*FOUR, under_way(4, *BAD), under_way(5, *GOOD)], {}, [4]),
        ([*FOUR, under_way(4, *BAD)], {"racing": {"enabled": False}}, []),
        # Too few complete trials, with any number of folds.
        ([*FOUR[1:], under_way(4, *BAD)], {}, []),
        ([*FOUR, under_way(4, *BAD)], {"racing": {"warmupTrials": 5}}, []),
        # What failed, or has no score that may be compared, is not raced; what is stopped or goes away neither.
        ([*FOUR, under_way(4, *BAD, run(2, phase="Failed"))], {}, []),
        ([*FOUR, under_way(4, *BAD, run(2, 0.0, stable=False))], {}, []),
        ([*FOUR, under_way(4, *BAD, deleting=True)], {}, []),
        ([*FOUR, under_way(4, *BAD, stop=TrialStopSpec(reason=StopReason.STOPPED))], {}, []),
        # Nor is it a reference.
        ([*FOUR[:3], replace(FOUR[3], phase=CrossValidationPhase.UNSTABLE), under_way(4, *BAD)], {}, []),
        ([*FOUR[:3], replace(FOUR[3], phase=CrossValidationPhase.PRUNED), under_way(4, *BAD)], {}, []),
        # Runs under way are no observations.
        ([*FOUR, under_way(4, run(0, phase="Running"))], {}, []),
        # Nothing is left to save.
        ([*FOUR, under_way(4, *(run(fold, 0.5) for fold in range(5)))], {}, []),
        # How much better it must be.
        ([*FOUR, under_way(4, run(0, 0.81), run(1, 0.82))], {}, []),
        ([*FOUR, under_way(4, run(0, 0.81), run(1, 0.82))], {"racing": {"minDelta": 0.05}}, [4]),
    ],
)
def test_who_is_pruned(trials: list[Trial], changes: dict[str, Any], numbers: list[int]) -> None:
    assert pruned(trials, **changes) == numbers


def test_a_new_incumbent_raises_the_bar_for_all_trials_under_way() -> None:
    middling = under_way(4, run(0, 0.809), run(1, 0.82))
    assert pruned([*FOUR, middling]) == []
    assert pruned([*FOUR, middling, complete(5, 0.9)]) == [4]


def test_only_the_folds_that_are_run_count() -> None:
    folds = {"crossValidation": {"folds": 8, "runFolds": 5}}
    assert pruned([*FOUR, under_way(4, *BAD)], **folds) == [4]
    (found,) = judge(spec(**folds), [*FOUR, under_way(4, *BAD)])
    assert numbers(found).runs_total == 5


def test_seeds_are_told_apart() -> None:
    seeds = {"crossValidation": {"folds": 5, "seeds": [42, 7]}}
    two = [complete(n, mean, (42, 7)) for n, mean in enumerate((0.80, 0.79, 0.78, 0.81))]
    (found,) = judge(spec(**seeds), [*two, under_way(4, *BAD)])
    assert (numbers(found).runs_done, numbers(found).runs_total) == (2, 10)


def test_a_score_that_cannot_be_reached_any_more_needs_no_statistics() -> None:
    # An outlier among the references' noise: only the bounds of the metric tell.
    wild = [
        replace(t, ended=Ended(scores=tuple((f, s, 0.7 + 0.29 * ((t.number + f) % 2)) for f, s, _ in t.scores)))
        for t in FOUR
    ]
    trial = under_way(4, *(run(fold, 0.75) for fold in range(4)))
    (found,) = judge(spec(racing={"alpha": 1e-4}), [*wild, trial])
    assert numbers(found).rule == "Bounds"


def test_the_decision_is_remembered_with_its_numbers() -> None:
    (found,) = judge(spec(), [*FOUR, under_way(4, *BAD)])
    stop = found.stop(NOW)
    assert (stop.reason, stop.time) == (StopReason.PRUNED, "2026-01-01T00:00:00Z")
    look = stop.look
    assert look is not None
    assert (look.rule, look.runs_done, look.runs_total, look.incumbent) == ("Evidence", 2, 5, 3)
    ((_, decision),) = looks(spec(), [*FOUR, under_way(4, *BAD)])
    assert (look.predicted, look.standard_error, look.p) == (decision.predicted, decision.se, decision.p)
    assert "predicted" in stop.message
    # It reads back as it was written: what a restart sees is what was decided.
    assert TrialStopSpec.model_validate(stop.model_dump(mode="json")) == stop


def test_the_sampler_is_told_of_the_prediction_as_soon_as_it_is_decided() -> None:
    (found,) = judge(spec(), [*FOUR, under_way(4, *BAD)])
    trial = under_way(4, *BAD, run(2, 0.9), stop=found.stop(NOW))
    (told,) = history([trial], 5)[4:]
    assert (told.state, told.value, told.step) == (TrialState.PRUNED, numbers(found).predicted, 2)


def test_audited_trials_are_a_seeded_share_and_are_judged_once() -> None:
    trials = [*FOUR, *(under_way(n, *BAD) for n in range(4, 104))]
    found = judge(spec(racing={"audit": 0.3}), trials)
    share = [one.trial.number for one in found if one.audited]
    assert len(found) == 100
    assert 15 <= len(share) <= 45
    assert share == [one.trial.number for one in judge(spec(racing={"audit": 0.3}), trials) if one.audited]
    audit = found[0].audit(NOW)
    assert isinstance(audit, AuditSpec)
    assert judge(spec(racing={"audit": 1}), [*FOUR, under_way(4, *BAD, audit=audit)]) == []


# Where the slots go -------------------------------------------------------------------------------------------------


def started(
    trials: list[Trial], asked: int | None = None, **changes: Any
) -> tuple[list[tuple[int, int]], dict[int, int]]:
    """(trial, fold) of the runs below trials that exist, and how many runs each new trial starts with."""
    asked = len(trials) if asked is None else asked
    found = plan(spec(**changes), trials, asked, lambda told, number: {"x": number}, spent=Spent(), now=NOW)
    return [(r.trial.number, r.unit[0]) for r in found.runs], {t.number: len(t.units) for t in found.trials}


FLYING = run(0, phase="Running")


@pytest.mark.parametrize(
    ("trials", "changes", "runs", "new"),
    [
        # What racing waits for comes whole, the oldest first.
        ([], {"parallelism": 12}, [], {0: 5, 1: 5, 2: 2}),
        ([], {"parallelism": 24}, [], {0: 5, 1: 5, 2: 5, 3: 5, 4: 1, 5: 1, 6: 1, 7: 1}),
        ([*FOUR[:2], under_way(2, FLYING)], {"parallelism": 3}, [(2, 1), (2, 2)], {}),
        ([*FOUR[:3], under_way(3, *GOOD), under_way(4, *GOOD)], {"parallelism": 4}, [(3, 2), (3, 3), (3, 4), (4, 2)], {}),
        # A trial that cannot complete any more is not waited for: the next one comes whole in its place.
        ([*FOUR[:3], under_way(3, run(0, phase="Failed"), run(1, phase="Running")), under_way(4, *GOOD)],
         {"parallelism": 4}, [(4, 2), (4, 3), (4, 4)], {}),
        # Then one run of each trial, across the trials first.
        (FOUR, {"parallelism": 3}, [], {4: 1, 5: 1, 6: 1}),
        ([*FOUR, under_way(4, *GOOD), under_way(5, FLYING)], {"parallelism": 2}, [(4, 2)], {}),
        ([*FOUR, under_way(4, *GOOD), under_way(5, FLYING)], {"parallelism": 4}, [(4, 2)], {6: 1, 7: 1}),
        # Another run of each where there is no trial left to ask, and never more than two.
        ([*FOUR, under_way(4, *GOOD), under_way(5, FLYING)], {"parallelism": 4, "maxTrials": 6}, [(4, 2), (4, 3), (5, 1)], {}),
        ([*FOUR, under_way(4, *GOOD)], {"parallelism": 9, "maxTrials": 5}, [(4, 2), (4, 3)], {}),
        (FOUR, {"parallelism": 9, "maxTrials": 6}, [], {4: 2, 5: 2}),
        # One fold: there is nothing to race.
        ([], {"parallelism": 3, "crossValidation": {"folds": 1, "foldMethod": "None"}}, [], {0: 1, 1: 1, 2: 1}),
        # A trial that is pruned in this very look gets nothing more.
        ([*FOUR, under_way(4, *BAD)], {"parallelism": 2}, [], {5: 1, 6: 1}),
    ],
)  # fmt: skip
def test_slots(trials: list[Trial], changes: dict[str, Any], runs: list[tuple[int, int]], new: dict[int, int]) -> None:
    assert started(trials, **changes) == (runs, new)


def test_how_many_trials_racing_waits_for() -> None:
    assert lead(spec(), []) == 4
    assert lead(spec(), FOUR[:3]) == 1
    assert lead(spec(), [*FOUR, complete(4, 0.8)]) == 0
    assert lead(spec(crossValidation={"folds": 3}), []) == 6
    assert lead(spec(crossValidation={"folds": 2}), []) == 11
    assert lead(spec(racing={"enabled": False}), []) is None
    assert lead(spec(crossValidation={"folds": 1, "foldMethod": "None"}), []) is None
