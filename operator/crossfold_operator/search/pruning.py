"""Pruning inside a run: whether its live metric, epoch by epoch, gives it a chance against other trials' runs.

A run is compared with runs of the same fold and seed alone, so that an easy fold does not pass for a good trial. Pure:
a function of the curves as they are now, that may be asked at any time and as often as one likes. These are heuristics
on curves that have not ended yet: unlike racing they bound no probability of error.
"""

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from crossfold_trainer.contract.metrics import Direction
from crossfold_trainer.contract.scoring import better


@dataclass(frozen=True)
class Curve:
    """The live metric of another trial's run, of the same fold and seed."""

    values: Mapping[int, float]
    """By epoch, from 1. Epochs may be missing; values that are not finite count as missing."""
    completed: bool
    """The run ended by itself: neither under way, nor failed, nor stopped."""


@dataclass(frozen=True)
class Verdict:
    """A judgement of a run, with its numbers."""

    stop: bool
    reason: str
    """In words."""
    epoch: int | None = None
    """The epoch whose curves were compared; None where nothing was."""
    best: float | None = None
    """Best value of the run up to that epoch."""
    threshold: float | None = None
    """What it has to reach."""
    curves: int = 0
    """Other runs that it was compared with."""


def median_stop(
    values: Mapping[int, float], others: Sequence[Curve], direction: Direction, min_epochs: int, min_curves: int = 4
) -> Verdict:
    """Stop a run whose best value so far is worse than the median of completed runs' running averages.

    The median stopping rule of Golovin et al., Google Vizier (KDD 2017), section 3.2.2. Running averages are taken over
    the epochs up to the run's latest; of a run that ended earlier, over all its epochs.

    Args:
        values: the run's live metric by epoch, from 1; epochs may be missing.
        others: runs of the same fold and seed of other trials; only completed ones count.
        direction: which values are better.
        min_epochs: epochs that a run has for certain, from 1.
        min_curves: completed runs that there must be.
    """
    own = _finite(values)
    epoch = max(own, default=0)
    if epoch < min_epochs:
        return Verdict(False, f"goes on: epoch {epoch} of at least {min_epochs}")
    averages = [
        statistics.fmean(before)
        for other in others
        if other.completed and (before := [v for e, v in _finite(other.values).items() if e <= epoch])
    ]
    if len(averages) < min_curves:
        return Verdict(False, f"goes on: {len(averages)} of at least {min_curves} completed runs to compare with")
    best, median = _best(own.values(), direction), statistics.median(averages)
    stop = better(median, best, direction)
    return Verdict(
        stop,
        f"{'stopped' if stop else 'goes on'} after epoch {epoch}: best value {best:.4g}, median of "
        f"{len(averages)} completed runs' running averages {median:.4g}",
        epoch,
        best,
        median,
        len(averages),
    )


def asha(
    values: Mapping[int, float], others: Sequence[Curve], direction: Direction, min_epochs: int, reduction: int = 4
) -> Verdict:
    """Stop a run that is not among the best 1/reduction of the runs that have reached its rung.

    Asynchronous successive halving of Li et al. (MLSys 2020) as a stopping rule: rungs at min_epochs, min_epochs *
    reduction, min_epochs * reduction^2, ... epochs. What counts at a rung is the best value up to it, as that is what a
    run keeps. Running, completed and stopped runs all count where they have reached the rung. With fewer than
    ``reduction`` of them the best one goes on; equal values go on together. A run is judged at its latest rung as often
    as one asks, so that better runs that come later can still end it: in the end as many have gone on as in synchronous
    halving.

    Args:
        values: the run's live metric by epoch, from 1; epochs may be missing.
        others: runs of the same fold and seed of other trials.
        direction: which values are better.
        min_epochs: the first rung, from 1.
        reduction: the reduction factor, from 2.
    """
    own = _finite(values)
    rung = _rung(max(own, default=0), min_epochs, reduction)
    best = _at(own, rung, direction)
    if rung is None or best is None:
        return Verdict(False, f"goes on: epoch {max(own, default=0)}, first rung at {min_epochs}")
    rivals = [
        value
        for other in others
        if max(curve := _finite(other.values), default=0) >= rung and (value := _at(curve, rung, direction)) is not None
    ]
    entrants = sorted([best, *rivals], reverse=direction is Direction.MAXIMIZE)
    places = max(1, len(entrants) // reduction)
    threshold = entrants[places - 1]
    stop = better(threshold, best, direction)
    return Verdict(
        stop,
        f"{'stopped' if stop else 'goes on'} at the rung of epoch {rung}: best value {best:.4g} is number "
        f"{entrants.index(best) + 1} of {len(entrants)}, of which {places} go on (from {threshold:.4g})",
        rung,
        best,
        threshold,
        len(rivals),
    )


def _finite(values: Mapping[int, float]) -> dict[int, float]:
    return {epoch: value for epoch, value in values.items() if math.isfinite(value)}


def _best(values: Iterable[float], direction: Direction) -> float:
    return max(values) if direction is Direction.MAXIMIZE else min(values)


def _rung(epoch: int, first: int, reduction: int) -> int | None:
    """The latest rung that an epoch has reached."""
    if epoch < first:
        return None
    rung = first
    while rung * reduction <= epoch:
        rung *= reduction
    return rung


def _at(values: Mapping[int, float], rung: int | None, direction: Direction) -> float | None:
    """The best value up to a rung; None where all of those epochs are missing."""
    before = [value for epoch, value in values.items() if rung is not None and epoch <= rung]
    return _best(before, direction) if before else None
