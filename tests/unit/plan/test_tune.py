"""Which trials and runs of a Tune are due, and when a Tune is over."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from crossfold_operator.api.crossvalidation import RunRecord, TrialStopSpec
from crossfold_operator.api.racing import LookSpec
from crossfold_operator.api.trainrun import StopReason
from crossfold_operator.api.tune import TuneSpec
from crossfold_operator.names import CrossValidationPhase, Reason, TrainRunPhase
from crossfold_operator.observe.runs import Run
from crossfold_operator.observe.trials import Trial
from crossfold_operator.plan.spending import Spent
from crossfold_operator.plan.tune import history
from crossfold_operator.plan.verdict import failed_trials
from crossfold_operator.search.history import Trial as SearchTrial
from crossfold_operator.search.history import TrialState
from crossfold_trainer.contract.config import OutOfMemoryPolicy
from tests.fakes.planning import plan, verdict
from tests.fakes.world import tune


def spec(**changes: Any) -> TuneSpec:
    """Three folds; five trials of them; four runs at a time."""
    return TuneSpec.model_validate(tune(**{"maxTrials": 5, "parallelism": 4, **changes})["spec"])


def run(fold: int, phase: str = "Running", failure: str = "") -> Run:
    stable = True if phase == "Succeeded" else None
    record = RunRecord(
        fold=fold,
        seed=42,
        run="r",
        phase=TrainRunPhase(phase),
        stable=stable,
        failure_class=failure,
        message="band red",
    )
    return Run(record, uid="u")


NOW = datetime(2026, 1, 1, tzinfo=UTC)
STOPPED_BY_HAND = TrialStopSpec(reason=StopReason.STOPPED)


def trial(
    number: int,
    phase: str = "Running",
    runs: Sequence[Run] = (),
    *,
    config: bool = False,
    stopping: bool = False,
    **more: Any,
) -> Trial:
    return Trial(
        number=number,
        name=f"t-cv{number}",
        uid=f"u{number}",
        phase=CrossValidationPhase(phase),
        parameters={"batch_size": number},
        runs=tuple(runs),
        score=0.5 if phase == "Complete" else None,
        config_failure="band red" if config else "",
        stop=STOPPED_BY_HAND if stopping else None,
        **more,
    )


class Sampler:
    """Gives out numbers, and remembers what it was told."""

    def __init__(self, points: int = 1000) -> None:
        self.points = points
        self.told: list[list[tuple[int, TrialState]]] = []

    def __call__(self, trials: Sequence[SearchTrial], number: int) -> dict[str, Any] | None:
        self.told.append([(t.number, t.state) for t in trials])
        return {"batch_size": number} if number < self.points else None


def planned(trials: list[Trial], asked: int | None = None, points: int = 1000, **changes: Any) -> tuple[Any, Any, bool]:
    changes = {"racing": {"enabled": False}, **changes}
    asked = len(trials) if asked is None else asked
    found = plan(spec(**changes), trials, asked, Sampler(points), spent=Spent(), now=NOW)
    runs = [(r.trial.number, r.unit[0]) for r in found.runs]
    new = [(t.number, [fold for fold, _ in t.units]) for t in found.trials]
    return runs, new, found.exhausted


THREE = [run(0), run(1), run(2)]
DONE = [run(0, "Succeeded"), run(1, "Succeeded"), run(2, "Succeeded")]


@pytest.mark.parametrize(
    ("trials", "changes", "runs", "new"),
    [
        # Slots are filled with whole trials, and the rest with a part of one.
        ([], {}, [], [(0, [0, 1, 2]), (1, [0])]),
        ([], {"parallelism": 1}, [], [(0, [0])]),
        ([], {"parallelism": 3}, [], [(0, [0, 1, 2])]),
        ([], {"parallelism": 100}, [], [(n, [0, 1, 2]) for n in range(5)]),
        ([], {"maxTrials": 1}, [], [(0, [0, 1, 2])]),
        # The oldest trial comes first.
        ([trial(0, runs=[run(0)]), trial(1, runs=[run(0)])], {}, [(0, 1), (0, 2)], []),
        ([trial(0, runs=THREE), trial(1)], {}, [(1, 0)], []),
        ([trial(0, runs=[*DONE[:2], run(2)]), trial(1, runs=[run(0)])], {}, [(1, 1), (1, 2)], []),
        ([trial(0, runs=[*DONE[:2], run(2)]), trial(1, runs=[*DONE[:1], run(1), run(2)])], {}, [], [(2, [0])]),
        # Runs in every phase but the last ones take a slot.
        ([trial(0, runs=[run(0, "Queued"), run(1, "Preempted"), run(2, "Suspended")])], {}, [], [(1, [0])]),
        ([trial(0, "Complete")], {}, [], [(1, [0, 1, 2]), (2, [0])]),
        # A run that failed leaves its trial alone.
        ([trial(0, runs=[run(0, "Failed"), run(1)])], {}, [], [(1, [0, 1, 2])]),
        # Stopping and deleting trials get nothing new, and hold the slots that they have.
        ([trial(0, runs=[run(0)], stopping=True)], {}, [], [(1, [0, 1, 2])]),
        ([trial(0, runs=[run(0)], deleting=True)], {}, [], [(1, [0, 1, 2])]),
        # No slot.
        ([trial(0, runs=THREE), trial(1, runs=[run(0)])], {}, [], []),
        ([trial(0, runs=THREE), trial(1, runs=[run(0)])], {"parallelism": 1}, [], []),
        # Suspended.
        ([trial(0, runs=[run(0)])], {"suspend": True}, [], []),
        # maxTrials: reached, lowered, raised.
        ([trial(n, "Complete") for n in range(5)], {}, [], []),
        ([trial(n, "Complete") for n in range(3)], {"maxTrials": 2}, [], []),
        ([trial(0, "Complete"), trial(1, runs=[run(0)])], {"maxTrials": 1}, [(1, 1), (1, 2)], []),
        ([trial(n, "Complete") for n in range(5)], {"maxTrials": 6}, [], [(5, [0, 1, 2])]),
    ],
)
def test_plan(trials: list[Trial], changes: dict[str, Any], runs: Any, new: Any) -> None:
    assert planned(trials, **changes) == (runs, new, False)


def test_a_number_that_was_given_out_is_not_given_out_again() -> None:
    assert planned([trial(0, "Complete")], asked=3)[1] == [(3, [0, 1, 2]), (4, [0])]
    assert planned([], asked=5)[1] == []


def test_the_sampler_is_told_of_trials_that_were_asked_in_the_same_breath() -> None:
    sampler = Sampler()
    plan(spec(parallelism=9), [trial(0, "Complete"), trial(1, runs=THREE)], 2, sampler, spent=Spent(), now=NOW)
    assert sampler.told == [
        [(0, TrialState.COMPLETE), (1, TrialState.RUNNING)],
        [(0, TrialState.COMPLETE), (1, TrialState.RUNNING), (2, TrialState.RUNNING)],
    ]


def test_the_sampler_is_not_asked_without_a_slot() -> None:
    sampler = Sampler()
    plan(spec(parallelism=3), [trial(0, runs=THREE)], 1, sampler, spent=Spent(), now=NOW)
    assert sampler.told == []


def test_an_exhausted_space() -> None:
    assert planned([], points=1) == ([], [(0, [0, 1, 2])], True)
    assert planned([trial(0, "Complete")], points=1) == ([], [], True)
    assert planned([trial(0, runs=THREE)], points=1, parallelism=3) == ([], [], False)


def test_what_the_sampler_is_told() -> None:
    phases = ["Pending", "Running", "Suspended", "Complete", "Unstable", "Failed", "Stopped", "Pruned"]
    told = history([trial(n, phase) for n, phase in enumerate(phases)], 9)
    assert [t.state.value for t in told] == [
        "Running", "Running", "Running", "Complete", "Unstable", "Failed", "Stopped", "Stopped", "Deleted",
    ]  # fmt: skip
    assert [t.value for t in told] == [*(0.5 if phase == "Complete" else None for phase in phases), None]


@pytest.mark.parametrize(("done", "step"), [(0, 1), (1, 1), (2, 2)])
def test_a_trial_that_racing_pruned_came_at_least_as_far_as_one_run(done: int, step: int) -> None:
    """One that was pruned inside its first run came less far."""
    look = LookSpec.model_construct(predicted=0.3, runs_done=done)
    stop = TrialStopSpec.model_construct(reason=StopReason.PRUNED, look=look)
    (told,) = history([replace(trial(0), stop=stop)], 1)
    assert (told.state, told.value, told.step) == (TrialState.PRUNED, 0.3, step)


def test_a_trial_that_did_not_fit_is_a_constraint_under_that_policy_alone() -> None:
    trials = [trial(0, "Failed", out_of_memory=True), trial(1, "Failed")]
    for policy in OutOfMemoryPolicy:
        wanted = "Infeasible" if policy is OutOfMemoryPolicy.CONSTRAIN else "Failed"
        assert [t.state.value for t in history(trials, 2, policy)] == [wanted, "Failed"]
    given: list[list[str]] = []

    def ask(told: Sequence[SearchTrial], number: int) -> None:
        given.append([t.state.value for t in told])

    for policy in ("Fail", "Constrain"):
        changes = {"retries": {"outOfMemory": policy}, "maxFailedTrials": 5}
        plan(spec(**changes), trials, 2, ask, spent=Spent(), now=NOW)
    assert given == [["Failed", "Failed"], ["Infeasible", "Failed"]]


# The end --------------------------------------------------------------------------------------------------------------

FAILED, COMPLETE, UNSTABLE, STOPPED = "Failed", "Complete", "Unstable", "Stopped"


CONSTRAIN = {"retries": {"outOfMemory": "Constrain"}}


def too_large(count: int) -> list[Trial]:
    return [trial(n, FAILED, out_of_memory=True) for n in range(count)]


def misconfigured(count: int) -> list[Trial]:
    return [trial(n, FAILED, config=True) for n in range(count)]


@pytest.mark.parametrize(
    ("trials", "asked", "changes", "exhausted", "reason"),
    [
        ([], 0, {}, False, None),
        ([trial(0, COMPLETE)], 1, {}, False, None),
        ([trial(n, COMPLETE) for n in range(4)], 4, {}, False, None),
        ([trial(n, COMPLETE) for n in range(5)], 5, {}, False, Reason.MAX_TRIALS_REACHED),
        ([*(trial(n, COMPLETE) for n in range(4)), trial(4)], 5, {}, False, None),
        ([trial(n, COMPLETE) for n in range(3)], 3, {"maxTrials": 2}, False, Reason.MAX_TRIALS_REACHED),
        ([trial(n, COMPLETE) for n in range(5)], 5, {"maxTrials": 9}, False, None),
        # The space.
        ([trial(0, COMPLETE)], 1, {}, True, Reason.SPACE_EXHAUSTED),
        ([trial(0, COMPLETE), trial(1)], 2, {}, True, None),
        ([trial(0, UNSTABLE)], 1, {}, True, Reason.NO_SCORE),
        # Failures: 4 of 5 are put up with.
        ([*(trial(n, FAILED) for n in range(4)), trial(4, COMPLETE)], 5, {}, False, Reason.MAX_TRIALS_REACHED),
        ([trial(n, FAILED) for n in range(5)], 5, {}, False, Reason.MAX_FAILED_TRIALS_EXCEEDED),
        ([trial(0, FAILED), trial(1)], 2, {"maxFailedTrials": 0}, False, Reason.MAX_FAILED_TRIALS_EXCEEDED),
        ([trial(0, FAILED), trial(1)], 2, {"maxFailedTrials": 1}, False, None),
        ([trial(n, FAILED) for n in range(10)], 10, {"maxTrials": 100}, False, None),
        ([trial(n, FAILED) for n in range(11)], 11, {"maxTrials": 100}, False, Reason.MAX_FAILED_TRIALS_EXCEEDED),
        # A deleted trial counts as failed.
        ([trial(1, COMPLETE)], 2, {"maxFailedTrials": 0}, False, Reason.MAX_FAILED_TRIALS_EXCEEDED),
        ([trial(n, COMPLETE) for n in range(1, 5)], 5, {}, False, Reason.MAX_TRIALS_REACHED),
        # What did not fit into memory counts as failed, but where it is a constraint and something has fitted.
        ([*too_large(2), trial(2, COMPLETE)], 3, {"maxFailedTrials": 1}, False, Reason.MAX_FAILED_TRIALS_EXCEEDED),
        ([*too_large(2), trial(2, COMPLETE)], 3, {"maxFailedTrials": 1, **CONSTRAIN}, False, None),
        ([*too_large(2), trial(2, UNSTABLE)], 3, {"maxFailedTrials": 1, **CONSTRAIN}, False, None),
        ([*too_large(2), trial(2)], 3, {"maxFailedTrials": 1, **CONSTRAIN}, False, Reason.MAX_FAILED_TRIALS_EXCEEDED),
        (
            [*too_large(2), trial(2, COMPLETE, stopping=True)],
            3,
            {"maxFailedTrials": 1, **CONSTRAIN},
            False,
            Reason.MAX_FAILED_TRIALS_EXCEEDED,
        ),
        (
            [*too_large(1), trial(1, FAILED), trial(2, FAILED), trial(3, COMPLETE)],
            4,
            {"maxFailedTrials": 1, **CONSTRAIN},
            False,
            Reason.MAX_FAILED_TRIALS_EXCEEDED,
        ),
        ([*too_large(4), trial(4, COMPLETE)], 5, CONSTRAIN, False, Reason.MAX_TRIALS_REACHED),
        # Nothing that may be compared.
        ([trial(n, UNSTABLE) for n in range(5)], 5, {}, False, Reason.NO_SCORE),
        ([trial(n, STOPPED) for n in range(5)], 5, {}, False, Reason.NO_SCORE),
        # The configuration: the first three, and no other that has ended.
        (misconfigured(2), 2, {}, False, None),
        (misconfigured(3), 3, {}, False, Reason.CONFIG_ERROR),
        ([*misconfigured(3), trial(3)], 4, {}, False, Reason.CONFIG_ERROR),
        ([*misconfigured(3), trial(3, STOPPED)], 4, {}, False, Reason.CONFIG_ERROR),
        ([*misconfigured(3), trial(3, COMPLETE)], 4, {}, False, None),
        ([*misconfigured(3), trial(3, COMPLETE, stopping=True)], 4, {}, False, Reason.CONFIG_ERROR),
        ([*misconfigured(3), trial(3, FAILED)], 4, {}, False, None),
        (misconfigured(1), 1, {"maxTrials": 1}, False, Reason.CONFIG_ERROR),
        (misconfigured(2), 2, {"maxTrials": 2}, False, Reason.CONFIG_ERROR),
    ],
)
def test_verdict(
    trials: list[Trial], asked: int, changes: dict[str, Any], exhausted: bool, reason: Reason | None
) -> None:
    over = verdict(spec(**changes), trials, asked, Spent(), exhausted=exhausted)
    assert (over.reason if over else None) == reason
    if over is not None:
        assert over.message
        assert over.failed is (over.reason not in (Reason.MAX_TRIALS_REACHED, Reason.SPACE_EXHAUSTED))


def test_the_message_of_a_configuration_error_is_the_runs() -> None:
    over = verdict(spec(), misconfigured(3), 3, Spent(), exhausted=False)
    assert over is not None
    assert over.message == "the first 3 trials all failed: band red"


def test_a_stop_takes_as_much_of_a_message_as_its_schema() -> None:
    failed = [replace(one, config_failure="x" * 5000) for one in misconfigured(3)]
    planned = plan(spec(), [*failed, trial(3)], 4, Sampler(), spent=Spent(), now=NOW)
    (stop,) = planned.stops
    assert stop.trial.number == 3
    assert len(stop.stop.message) == 1024
    assert stop.stop.message.startswith("the Tune failed: the first 3 trials all failed: xxx")


def test_a_tune_that_is_over_starts_nothing() -> None:
    assert planned(misconfigured(3)) == ([], [], False)
    assert planned([trial(0, FAILED), trial(1)], maxFailedTrials=0) == ([], [], False)


def test_failed_trials() -> None:
    assert failed_trials([trial(0, FAILED), trial(2, COMPLETE)], 5) == 4
    assert spec(maxTrials=5).failed_trials_allowed == 4
    assert spec(maxTrials=1).failed_trials_allowed == 0
    assert spec(maxTrials=50).failed_trials_allowed == 10
    assert spec(maxFailedTrials=0).failed_trials_allowed == 0
