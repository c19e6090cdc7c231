"""The rules that end a search before its time."""

from itertools import permutations
from typing import Any

import pytest

from crossfold_operator.api.crossvalidation import TrialStopSpec
from crossfold_operator.api.trainrun import StopReason
from crossfold_operator.api.tune import TuneSpec
from crossfold_operator.names import CrossValidationPhase, Reason
from crossfold_operator.observe.finished import Finished, Trials
from crossfold_operator.observe.trials import Trial
from crossfold_operator.plan.spending import Spent
from crossfold_operator.plan.verdict import halt
from tests.fakes.planning import verdict
from tests.fakes.world import tune

LOSS = {"objective": {"metrics": [{"name": "val/loss"}]}}


def spec(**changes: Any) -> TuneSpec:
    return TuneSpec.model_validate(tune(**changes)["spec"])


def trials(*scores: float | str | None) -> list[Trial]:
    """A number is a complete trial's score, a text the phase of another one; 'late': complete, and told to stop."""
    found = []
    for number, score in enumerate(scores):
        phase = (
            CrossValidationPhase.COMPLETE
            if isinstance(score, float) or score == "late"
            else CrossValidationPhase(score)
        )
        stop = (
            StopReason.PRUNED
            if phase is CrossValidationPhase.PRUNED
            else StopReason.STOPPED
            if score == "late"
            else None
        )
        found.append(
            Trial(
                number=number,
                name=f"t-cv{number}",
                uid=f"u{number}",
                phase=phase,
                parameters={},
                score=score if isinstance(score, float) else 0.99 if score == "late" else None,
                stop=TrialStopSpec.model_construct(reason=stop) if stop else None,
            )
        )
    return found


@pytest.mark.parametrize(
    ("scores", "changes", "reason"),
    [
        ([0.5, 0.6], {}, None),
        ([0.5, 0.9], {"target": 0.9}, Reason.TARGET_REACHED),
        ([0.5, 0.89], {"target": 0.9}, None),
        (["Running", "Failed"], {"target": 0.9}, None),
        ([0.5], {"target": 0.5, **LOSS}, Reason.TARGET_REACHED),
        ([0.5], {"target": 0.4, **LOSS}, None),
        # Trials in a row without a new best.
        ([0.5, 0.4, 0.3], {"earlyStopping": {"patience": 2}}, Reason.EARLY_STOPPED),
        ([0.5, 0.4, 0.6], {"earlyStopping": {"patience": 2}}, None),
        ([0.5, 0.5, 0.5], {"earlyStopping": {"patience": 2}}, Reason.EARLY_STOPPED),
        ([0.5, 0.6, 0.7], {"earlyStopping": {"patience": 2, "minDelta": 0.15}}, None),
        ([0.5, 0.6, 0.65], {"earlyStopping": {"patience": 2, "minDelta": 0.2}}, Reason.EARLY_STOPPED),
        ([0.5, 0.4, 0.3], {"earlyStopping": {"patience": 2}, **LOSS}, None),
        ([0.3, 0.4, 0.5], {"earlyStopping": {"patience": 2}, **LOSS}, Reason.EARLY_STOPPED),
        # Pruned and unstable trials are no new best; failed ones, stopped ones and those under way say nothing.
        ([0.5, "Pruned", "Unstable"], {"earlyStopping": {"patience": 2}}, Reason.EARLY_STOPPED),
        ([0.5, "Failed", "Stopped", "Running"], {"earlyStopping": {"patience": 1}}, None),
        # Without any score there is nothing to be better than.
        (["Unstable", "Unstable"], {"earlyStopping": {"patience": 1}}, None),
        # One that was told to stop and ended well all the same does not bring the search back.
        ([0.5, 0.4, 0.3, "late"], {"earlyStopping": {"patience": 2}}, Reason.EARLY_STOPPED),
        # Trials are counted by number, whatever the order in which they ended.
        ([0.5, "Running", 0.4, 0.3], {"earlyStopping": {"patience": 2}}, Reason.EARLY_STOPPED),
        ([0.5, 0.9, 0.4, 0.3], {"earlyStopping": {"patience": 3}}, None),
    ],
)
def test_halt(scores: list[float | str | None], changes: dict[str, Any], reason: Reason | None) -> None:
    found = halt(spec(**changes), trials(*scores), Spent())
    assert (found.reason if found else None) == reason
    if found is not None:
        assert found.at_once
        assert "spec." in found.message


@pytest.mark.parametrize("order", list(permutations(range(3))))
def test_the_first_trial_that_reaches_the_target_is_told_in_whatever_order_they_ended(order: tuple[int, ...]) -> None:
    ended = trials(0.5, 0.91, 0.95)
    finished = Finished()
    for number in order:
        finished = finished.adding([ended[number]])
        halt(spec(target=0.9), Trials((), finished), Spent())
    found = halt(spec(target=0.9), Trials((), finished), Spent())
    assert found is not None
    assert found.message == "trial 1 scores 0.91, which reaches spec.target = 0.9"


@pytest.mark.parametrize(
    ("budget", "spent", "over"),
    [
        ({"gpuHours": 1}, Spent(3599, 10_000), False),
        ({"gpuHours": 1}, Spent(3600, 0), True),
        ({"wallClock": "1h30m"}, Spent(10_000, 5399), False),
        ({"wallClock": "1h30m"}, Spent(0, 5400), True),
        ({"gpuHours": 1, "wallClock": "1h"}, Spent(0, 3600), True),
        ({"gpuHours": 1, "wallClock": "1h"}, Spent(3600, 0), True),
        ({"gpuHours": 1, "wallClock": "1h"}, Spent(3599, 3599), False),
    ],
)
def test_budget(budget: dict[str, Any], spent: Spent, over: bool) -> None:
    found = halt(spec(budget=budget), [], spent)
    assert (found is not None) is over
    if found is not None:
        assert (found.reason, found.at_once) == (Reason.BUDGET_SPENT, False)


def test_a_search_is_over_when_nothing_is_under_way_any_more() -> None:
    content = {"target": 0.9, "maxTrials": 9}
    assert verdict(spec(**content), trials(0.95, "Running"), 2, Spent(), exhausted=False) is None
    over = verdict(spec(**content), trials(0.95, "Stopped"), 2, Spent(), exhausted=False)
    assert over is not None
    assert (over.failed, over.reason) == (False, Reason.TARGET_REACHED)


def test_the_reason_is_the_rules_also_when_the_last_trial_was_asked() -> None:
    over = verdict(spec(target=0.9, maxTrials=2), trials(0.5, 0.95), 2, Spent(), exhausted=False)
    assert over is not None
    assert over.reason is Reason.TARGET_REACHED


def test_failures_count_more_than_rules() -> None:
    found = verdict(spec(target=0.9, maxFailedTrials=0), trials(0.95, "Failed"), 2, Spent(), exhausted=False)
    assert found is not None
    assert (found.failed, found.reason) == (True, Reason.MAX_FAILED_TRIALS_EXCEEDED)
