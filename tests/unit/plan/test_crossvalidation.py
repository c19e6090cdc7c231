"""Which runs of a trial are due, and what its runs make of it."""

import pytest

from crossfold_operator.api.crossvalidation import RunRecord
from crossfold_operator.api.trainrun import StopReason
from crossfold_operator.names import CrossValidationPhase as Phase
from crossfold_operator.names import TrainRunPhase
from crossfold_operator.observe.runs import Run
from crossfold_operator.plan.crossvalidation import Unit, due, phase_of, spoilt
from crossfold_trainer.contract.crossvalidation import CrossValidationSpec

UNITS = CrossValidationSpec(folds=2, seeds=[7, 5]).units


def runs(*phases: str) -> list[Run]:
    """Runs of the first units; Diverged stands for a run that succeeded without a score."""
    found = []
    for (fold, seed), text in zip(UNITS, phases, strict=False):
        phase = TrainRunPhase("Succeeded" if text == "Diverged" else text)
        stable = text == "Succeeded" if phase is TrainRunPhase.SUCCEEDED else None
        found.append(Run(RunRecord(fold=fold, seed=seed, run="r", phase=phase, stable=stable)))
    return found


def test_all_folds_of_the_first_seed_come_first() -> None:
    assert UNITS == ((0, 7), (1, 7), (0, 5), (1, 5))
    assert CrossValidationSpec(folds=5, run_folds=2, random_seeds=2).units == ((0, 42), (1, 42), (0, 21), (1, 21))
    assert CrossValidationSpec(folds=3).units == ((0, 42), (1, 42), (2, 42))


@pytest.mark.parametrize(
    ("phases", "stopping", "units"),
    [
        ([], False, list(UNITS)),
        (["Succeeded"], False, list(UNITS[1:])),
        (["Queued", "Running"], False, list(UNITS[2:])),
        (["Suspended", "Preempted", "Starting"], False, [UNITS[3]]),
        (["Succeeded"] * 4, False, []),
        # A run that failed, was stopped or diverged spoils the trial.
        (["Failed"], False, []),
        (["Succeeded", "Failed"], False, []),
        (["Stopped"], False, []),
        (["Diverged"], False, []),
        (["Running", "Diverged"], False, []),
        ([], True, []),
        (["Succeeded"], True, []),
    ],
)
def test_due(phases: list[str], stopping: bool, units: list[Unit]) -> None:
    assert due(UNITS, runs(*phases), stopping=stopping) == units


def test_due_fills_gaps_in_order() -> None:
    there = [run for run in runs("Running", "Running", "Running") if run.unit != UNITS[1]]
    assert due(UNITS, there, stopping=False) == [UNITS[1], UNITS[3]]


@pytest.mark.parametrize(("phase", "is_spoilt"), [("Succeeded", False), ("Running", False), ("Diverged", True)])
def test_spoilt(phase: str, is_spoilt: bool) -> None:
    assert spoilt(runs(phase)) is is_spoilt


@pytest.mark.parametrize(
    ("phases", "stopping", "suspended", "phase"),
    [
        ([], False, False, Phase.PENDING),
        (["Queued"], False, False, Phase.RUNNING),
        (["Succeeded"], False, False, Phase.RUNNING),
        (["Succeeded"] * 4, False, False, Phase.COMPLETE),
        (["Succeeded"] * 3, False, False, Phase.RUNNING),
        # Spoilt, and over only when nothing is under way any more.
        (["Failed", "Running"], False, False, Phase.RUNNING),
        (["Failed"], False, False, Phase.FAILED),
        (["Succeeded", "Failed", "Diverged"], False, False, Phase.FAILED),
        (["Succeeded", "Diverged"], False, False, Phase.UNSTABLE),
        (["Succeeded", "Succeeded", "Succeeded", "Diverged"], False, False, Phase.UNSTABLE),
        (["Succeeded", "Succeeded", "Succeeded", "Failed"], False, False, Phase.FAILED),
        (["Stopped"], False, False, Phase.STOPPED),
        (["Stopped", "Failed"], False, False, Phase.FAILED),
        # Stopping.
        ([], True, False, Phase.STOPPED),
        (["Running"], True, False, Phase.RUNNING),
        (["Stopped", "Succeeded"], True, False, Phase.STOPPED),
        (["Failed", "Stopped"], True, False, Phase.STOPPED),
        # All results were there when it was stopped: they count.
        (["Succeeded"] * 4, True, False, Phase.COMPLETE),
        # Suspended when nothing runs any more.
        ([], False, True, Phase.SUSPENDED),
        (["Suspended", "Suspended"], False, True, Phase.SUSPENDED),
        (["Succeeded", "Suspended"], False, True, Phase.SUSPENDED),
        (["Running", "Suspended"], False, True, Phase.RUNNING),
        (["Succeeded"] * 4, False, True, Phase.COMPLETE),
    ],
)
def test_phase(phases: list[str], stopping: bool, suspended: bool, phase: Phase) -> None:
    stop = StopReason.STOPPED if stopping else None
    assert phase_of(UNITS, runs(*phases), stop, suspended=suspended) is phase


@pytest.mark.parametrize(
    ("phases", "phase"),
    [
        ([], Phase.PRUNED),
        (["Succeeded", "Running"], Phase.RUNNING),
        (["Succeeded", "Stopped"], Phase.PRUNED),
        # What was decided stays so, whatever the runs in flight still say.
        (["Succeeded", "Failed"], Phase.PRUNED),
        (["Succeeded", "Diverged"], Phase.PRUNED),
        (["Succeeded"] * 4, Phase.PRUNED),
    ],
)
def test_a_pruned_trial_is_pruned_whatever_comes_late(phases: list[str], phase: Phase) -> None:
    assert phase_of(UNITS, runs(*phases), StopReason.PRUNED, suspended=False) is phase
