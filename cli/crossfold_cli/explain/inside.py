"""The looks that were taken into a trial's first run while it trained, with what was known then. Pure."""

import math
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from crossfold_cli.explain.past import Past, Seen
from crossfold_operator.api.pruning import RunLookSpec
from crossfold_operator.names import CrossValidationPhase, TrainRunPhase
from crossfold_operator.observe.runs import Run
from crossfold_operator.observe.trials import Trial
from crossfold_operator.plan import pruning as plan_pruning
from crossfold_operator.plan.crossvalidation import Unit
from crossfold_operator.search import pruning
from crossfold_operator.search.pruning import Verdict
from crossfold_operator.times import parse_time

_SAME = 1e-9
"""Relative difference up to which two numbers are the same."""
_SECOND = timedelta(seconds=1)


@dataclass(frozen=True)
class InsideLook:
    """One look. Scores are in units of the objective.

    Attributes:
        at: when the run was first seen to have come so far.
        text: what was found, with its numbers.
        prune: whether it was not worth going on.
        epoch: epochs trained.
        best: its best score up to then.
        threshold: what it had to reach; None: there were too few runs to compare with.
        peers: runs that it was compared with.
        recorded: whether the operator wrote this look down.
        reproduced: whether it comes out as it was written down; None where it was not.
    """

    at: datetime
    text: str
    prune: bool
    epoch: int
    best: float
    threshold: float | None
    peers: int
    recorded: bool = False
    reproduced: bool | None = None


def inside(past: Past, seen: Seen) -> tuple[InsideLook, ...]:
    """A look for each epoch at which the trial's first run told its scores, up to the one that decided."""
    run = _first(past, seen)
    if not past.spec.pruning.enabled or run is None:
        return ()
    record, message, decided = _recorded(seen)
    found = []
    for point in run.record.curve:
        at = parse_time(point.time)
        if record is not None and decided is not None and (point.epoch >= record.epoch or at > decided):
            break
        verdict = _taken(past, seen, point.epoch, at)
        if verdict is not None:
            found.append(_look(at, verdict))
    if record is not None and decided is not None:
        taken = [_taken(past, seen, record.epoch, at) for at in (decided, decided - _SECOND)]
        same = any(verdict is not None and _is(verdict, record) for verdict in taken)
        found.append(
            InsideLook(
                at=decided,
                text=message,
                prune=True,
                epoch=record.epoch,
                best=record.best,
                threshold=record.threshold,
                peers=record.peers,
                recorded=True,
                reproduced=same,
            )
        )
    return tuple(found)


def _first(past: Past, seen: Seen) -> Run | None:
    """A trial's first run, if it was started."""
    unit = past.spec.cross_validation.units[0]
    return next((run for run in seen.runs if run.unit == unit), None)


def _recorded(seen: Seen) -> tuple[RunLookSpec | None, str, datetime | None]:
    """The look that decided, in numbers and in words, and when."""
    for written in (seen.trial.stop, seen.trial.audit):
        if written is not None and written.run_look is not None and written.time is not None:
            return written.run_look, written.message, parse_time(written.time)
    return None, "", None


def _taken(past: Past, seen: Seen, epoch: int, at: datetime) -> Verdict | None:
    """What a look at a time finds, after so many epochs of the run; None where none was taken."""
    own = _first(past, seen)
    if own is None:
        return None
    curve = [point for point in own.record.curve if point.epoch <= epoch]
    record = own.record.model_copy(update={"curve": curve, "phase": TrainRunPhase.RUNNING})
    trial = _under_way(seen.trial, (replace(own, record=record),))
    unit = past.spec.cross_validation.units[0]
    others = [_then(other, _first(past, other), unit, at) for other in past.trials if other is not seen]
    return next((v for t, v in plan_pruning.looks(past.spec, [trial, *others]) if t is trial), None)


def _then(other: Seen, run: Run | None, unit: Unit, at: datetime) -> Trial:
    """Another trial as it was known at a time, as far as pruning cares."""
    complete = other.trial.phase is CrossValidationPhase.COMPLETE and other.ended is not None and other.ended <= at
    phase = CrossValidationPhase.COMPLETE if complete else CrossValidationPhase.RUNNING
    if run is None:
        return _under_way(other.trial, (), phase)
    over = other.known.get(unit, other.ended)
    update = {
        "curve": [point for point in run.record.curve if parse_time(point.time) <= at],
        "phase": run.record.phase if over is not None and over <= at else TrainRunPhase.RUNNING,
    }
    return _under_way(other.trial, (replace(run, record=run.record.model_copy(update=update)),), phase)


def _under_way(
    trial: Trial, runs: tuple[Run, ...], phase: CrossValidationPhase = CrossValidationPhase.RUNNING
) -> Trial:
    return replace(trial, phase=phase, runs=runs, ended=None, stop=None, audit=None)


def _look(at: datetime, verdict: Verdict) -> InsideLook:
    return InsideLook(
        at=at,
        text=pruning.text(verdict),
        prune=verdict.stop,
        epoch=verdict.epoch,
        best=verdict.best,
        threshold=verdict.threshold,
        peers=verdict.peers,
    )


def _is(verdict: Verdict, record: RunLookSpec) -> bool:
    return (
        verdict.stop
        and verdict.threshold is not None
        and (verdict.epoch, verdict.peers) == (record.epoch, record.peers)
        and math.isclose(verdict.best, record.best, rel_tol=_SAME, abs_tol=_SAME)
        and math.isclose(verdict.threshold, record.threshold, rel_tol=_SAME, abs_tol=_SAME)
    )
