"""The looks that were taken into a trial's first run while it trained, with what was known then. Pure."""

from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from crossfold_cli.explain.past import Past, Seen, decided, same_numbers, under_way
from crossfold_operator.api.pruning import RunLookSpec
from crossfold_operator.names import CrossValidationPhase, TrainRunPhase
from crossfold_operator.observe.runs import Run
from crossfold_operator.observe.trials import Trial
from crossfold_operator.plan import pruning as plan_pruning
from crossfold_operator.plan.crossvalidation import Unit
from crossfold_operator.search import pruning
from crossfold_operator.search.pruning import Verdict
from crossfold_operator.times import parse_time

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
    written, end = seen.trial.decision, decided(seen.trial)
    record = None if written is None else written.run_look
    found = []
    for point in run.record.curve:
        at = parse_time(point.time)
        if record is not None and end is not None and (point.epoch >= record.epoch or at > end):
            break
        verdict = _taken(past, seen, point.epoch, at)
        if verdict is not None:
            found.append(_look(at, pruning.text(verdict), verdict, prune=verdict.stop))
    if written is not None and record is not None and end is not None:
        taken = [_taken(past, seen, record.epoch, at) for at in (end, end - _SECOND)]
        same = any(verdict is not None and _is(verdict, record) for verdict in taken)
        found.append(_look(end, written.message, record, prune=True, reproduced=same))
    return tuple(found)


def _first(past: Past, seen: Seen) -> Run | None:
    """A trial's first run, if it was started."""
    unit = past.spec.cross_validation.units[0]
    return next((run for run in seen.runs if run.unit == unit), None)


def _taken(past: Past, seen: Seen, epoch: int, at: datetime) -> Verdict | None:
    """What a look at a time finds, after so many epochs of the run; None where none was taken."""
    own = _first(past, seen)
    if own is None:
        return None
    curve = [point for point in own.record.curve if point.epoch <= epoch]
    record = own.record.model_copy(update={"curve": curve, "phase": TrainRunPhase.RUNNING})
    trial = replace(under_way(seen.trial), runs=(replace(own, record=record),))
    unit = past.spec.cross_validation.units[0]
    others = [_then(other, _first(past, other), unit, at) for other in past.trials if other is not seen]
    return next((v for t, v in plan_pruning.looks(past.spec, [trial, *others]) if t is trial), None)


def _then(other: Seen, run: Run | None, unit: Unit, at: datetime) -> Trial:
    """Another trial as it was known at a time, as far as pruning cares."""
    complete = other.trial.phase is CrossValidationPhase.COMPLETE and other.ended is not None and other.ended <= at
    phase = CrossValidationPhase.COMPLETE if complete else CrossValidationPhase.RUNNING
    runs: tuple[Run, ...] = ()
    if run is not None:
        over = other.known.get(unit, other.ended)
        update = {
            "curve": [point for point in run.record.curve if parse_time(point.time) <= at],
            "phase": run.record.phase if over is not None and over <= at else TrainRunPhase.RUNNING,
        }
        runs = (replace(run, record=run.record.model_copy(update=update)),)
    return replace(under_way(other.trial), phase=phase, runs=runs)


def _look(
    at: datetime, text: str, numbers: Verdict | RunLookSpec, *, prune: bool, reproduced: bool | None = None
) -> InsideLook:
    """A look; ``reproduced`` is that of one that was written down."""
    return InsideLook(
        at=at,
        text=text,
        prune=prune,
        epoch=numbers.epoch,
        best=numbers.best,
        threshold=numbers.threshold,
        peers=numbers.peers,
        recorded=reproduced is not None,
        reproduced=reproduced,
    )


def _is(verdict: Verdict, record: RunLookSpec) -> bool:
    return (
        verdict.stop
        and (verdict.epoch, verdict.peers) == (record.epoch, record.peers)
        and same_numbers([(verdict.best, record.best), (verdict.threshold, record.threshold)])
    )
