"""The records of a search: the trials that were the best when they ended, in the order in which they ended."""

from datetime import UTC, datetime, timedelta

import pytest

from crossfold_cli.explain.past import Past, Seen
from crossfold_cli.explain.story import trial_story, tune_story
from crossfold_operator.api.tune import TuneSpec, TuneStatus
from crossfold_operator.names import CrossValidationPhase
from crossfold_operator.observe.trials import Trial
from tests.fakes.world import tune

BEGAN = datetime(2026, 1, 1, tzinfo=UTC)


def seen(number: int, asked: int, ended: int | None, score: float | None, phase: str = "Complete") -> Seen:
    """A trial that was asked and ended so many seconds after the beginning."""
    trial = Trial(number, f"t-cv{number}", f"uid-{number}", CrossValidationPhase(phase), {}, score)
    over = None if ended is None else BEGAN + timedelta(seconds=ended)
    return Seen(trial, BEGAN + timedelta(seconds=asked), over, ())


def past(*trials: Seen, metric: str = "val/JaccardIndex") -> Past:
    spec = TuneSpec.model_validate(tune(objective={"metrics": [{"name": metric}]})["spec"])
    return Past("t", "d", spec, TuneStatus(), trials, len(trials))


LATE_AND_EARLY = (
    seen(0, asked=0, ended=100, score=0.5),
    # It takes long: when it ends, the trial that was asked after it has ended.
    seen(1, asked=1, ended=400, score=0.7),
    seen(2, asked=200, ended=300, score=0.6),
    seen(3, asked=201, ended=500, score=0.65),
)


def test_a_trial_that_was_asked_late_and_ended_early_was_the_best_before_the_others_ended() -> None:
    told = tune_story(past(*LATE_AND_EARLY))
    assert [(record.trial, record.score) for record in told.records] == [(0, 0.5), (2, 0.6), (1, 0.7)]


def test_each_is_compared_with_the_best_that_had_ended_before_it() -> None:
    it = past(*LATE_AND_EARLY)
    compared = [trial_story(it, one).comparison for one in it.trials]
    assert [None if c is None else (c.against, c.its_score) for c in compared] == [
        (None, None),
        (2, 0.6),
        (0, 0.5),
        (1, 0.7),
    ]
    assert [c.better_by for c in compared if c is not None] == [
        None,
        pytest.approx(0.1),
        pytest.approx(0.1),
        pytest.approx(-0.05),
    ]


def test_the_least_loss_is_the_record() -> None:
    lower = (seen(0, 0, 100, 0.5), seen(1, 1, 400, 0.2), seen(2, 200, 300, 0.4), seen(3, 201, 500, 0.3))
    told = tune_story(past(*lower, metric="val/loss"))
    assert [record.trial for record in told.records] == [0, 2, 1]


def test_of_trials_that_ended_in_the_same_second_the_older_comes_first_and_equal_scores_are_no_record() -> None:
    told = tune_story(past(seen(0, 0, 100, 0.5), seen(1, 0, 100, 0.6), seen(2, 0, 90, 0.4), seen(3, 0, 110, 0.6)))
    assert [record.trial for record in told.records] == [2, 0, 1]


def test_only_what_is_complete_with_a_score_is_a_record() -> None:
    told = tune_story(
        past(
            seen(0, 0, 10, 0.9, "Pruned"),
            seen(1, 0, 20, 0.9, "Unstable"),
            seen(2, 0, None, None, "Running"),
            seen(3, 0, 30, 0.5),
        )
    )
    assert [record.trial for record in told.records] == [3]
