"""What a Tune's status says of all its trials, in whatever order they ended."""

from itertools import permutations
from typing import Any

import pytest

from crossfold_operator.api.crossvalidation import AuditSpec, RunRecord, TrialStopSpec
from crossfold_operator.api.racing import LookSpec
from crossfold_operator.api.trainrun import StopReason
from crossfold_operator.api.tune import DecisionAction, TuneSpec, TuneStatus
from crossfold_operator.names import CrossValidationPhase, TrainRunPhase
from crossfold_operator.observe.finished import Finished, Trials
from crossfold_operator.observe.runs import Run
from crossfold_operator.observe.trials import Ended, Trial
from crossfold_operator.status.facts import data_digest
from crossfold_operator.status.tune import _audit, _digests, _last_decision, _tune_degraded
from tests.fakes.world import tune

SPEC = TuneSpec.model_validate(tune()["spec"])
ORDERS = list(permutations(range(3)))


def trial(number: int, **more: Any) -> Trial:
    content: dict[str, Any] = {"phase": CrossValidationPhase.COMPLETE, "parameters": {}, "score": 0.5}
    return Trial(number, f"t-cv{number}", f"u{number}", **(content | more))


def ended_in(order: tuple[int, ...], trials: list[Trial]) -> Trials:
    """The trials, of which one after the other ended, and a look was taken each time."""
    finished = Finished()
    for number in order:
        _looked_at(finished)
        finished = finished.adding([trials[number]])
    return Trials((), finished)


def _looked_at(finished: Finished) -> None:
    trials = Trials((), finished)
    finished.fold(_digests, ())
    _last_decision(trials)
    _audit(SPEC, trials)


@pytest.mark.parametrize("order", ORDERS)
def test_the_first_trial_of_each_data_set_is_told(order: tuple[int, ...]) -> None:
    trials = [trial(n, ended=Ended(data_digest=digest * 64)) for n, digest in enumerate("abb")]
    digests = ended_in(order, trials).finished.fold(_digests, ())
    assert digests == ((0, "t-cv0", "a" * 64), (1, "t-cv1", "b" * 64))
    problem = _tune_degraded(TuneStatus(), Trials.of(trials), digests, None)
    assert problem is not None
    assert problem.message.startswith("t-cv1 read other data (bbbbbbbbbbbb) than earlier trials (aaaaaaaaaaaa)")


@pytest.mark.parametrize("order", ORDERS)
def test_the_last_decision_is_the_latest_whoever_it_was_about(order: tuple[int, ...]) -> None:
    times = ["2026-01-01T00:05:00Z", "2026-01-01T00:07:00Z", "2026-01-01T00:06:00Z"]
    trials = [
        trial(n, stop=TrialStopSpec(reason=StopReason.PRUNED, message=f"about {n}", time=time))
        for n, time in enumerate(times)
    ]
    last = _last_decision(ended_in(order, trials))
    assert last is not None
    assert (last.trial, last.action, last.time, last.message) == (1, DecisionAction.PRUNED, times[1], "about 1")


def look(bar: float | None) -> AuditSpec:
    return AuditSpec.model_construct(look=LookSpec.model_construct(bar=bar))


def test_an_audited_trial_would_have_won_where_it_is_above_the_bar_or_there_was_none() -> None:
    trials = Trials.of(
        [
            trial(0, score=0.6, audit=look(0.5)),
            trial(1, score=0.5, audit=look(0.5)),
            trial(2, score=0.4, audit=look(0.5)),
            trial(3, score=0.1, audit=look(None)),
            trial(4, score=0.9),
            trial(5, score=None, phase=CrossValidationPhase.FAILED, audit=look(0.5)),
        ]
    )
    found = _audit(SPEC, trials)
    assert (found.checked, found.would_have_won) == (4, 2)


@pytest.mark.parametrize(("phase", "told"), [("Queued", True), ("Failed", False), ("Stopped", False)])
def test_only_a_run_that_is_under_way_waits_for_something(phase: str, told: bool) -> None:
    record = RunRecord(fold=0, seed=42, run="r", phase=TrainRunPhase(phase))
    run = Run(record, waiting=("ImagePull", "no such image"))
    _, problem = data_digest("", [run], None)
    assert (problem is not None) is told
    if problem is not None:
        assert (problem.reason, problem.message) == ("ImagePull", "r: no such image")
