"""Which runs of a trial are due, and what its runs make of it. Pure."""

from collections.abc import Iterable, Sequence

from crossfold_operator.api.trainrun import StopReason
from crossfold_operator.names import CrossValidationPhase, TrainRunPhase
from crossfold_operator.observe.runs import Run, spoilt

Unit = tuple[int, int]
"""(fold, seed)."""


def due(units: Sequence[Unit], runs: Iterable[Run], *, stopping: bool) -> list[Unit]:
    """The units to start next, in order: those without a run, unless the trial needs no more of them."""
    runs = list(runs)
    if stopping or spoilt(runs):
        return []
    there = {run.unit for run in runs}
    return [unit for unit in units if unit not in there]


def phase_of(
    units: Sequence[Unit], runs: Sequence[Run], stop: StopReason | None, *, suspended: bool
) -> CrossValidationPhase:
    """The phase that the runs of a trial make.

    A trial is terminal only when none of its runs is under way and none is due. One that racing stopped is Pruned, also
    when its last run ended well after all: what was decided and told stays so.
    """
    phases = [run.record.phase for run in runs]
    active = [run for run in runs if not run.terminal]
    stopping = stop is not None
    if not active and not due(units, runs, stopping=stopping):
        if stop is StopReason.PRUNED:
            return CrossValidationPhase.PRUNED
        if len(runs) >= len(units) and not spoilt(runs):
            return CrossValidationPhase.COMPLETE
        if stopping:
            return CrossValidationPhase.STOPPED
        if TrainRunPhase.FAILED in phases:
            return CrossValidationPhase.FAILED
        if TrainRunPhase.STOPPED in phases:
            return CrossValidationPhase.STOPPED
        return CrossValidationPhase.UNSTABLE
    if suspended and all(run.record.phase is TrainRunPhase.SUSPENDED for run in active):
        return CrossValidationPhase.SUSPENDED
    return CrossValidationPhase.RUNNING if runs else CrossValidationPhase.PENDING
