"""Pruning inside a run: whether its score so far gives it a chance against other trials' runs. Pure.

The rules take the scores of other runs at the same epoch, and know nothing of where these come from. They are
heuristics on curves that have not ended yet: unlike racing they bound no probability of error.
"""

import statistics
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass

from crossfold_operator.api.pruning import PruningMethod
from crossfold_trainer.contract.curve import MOST_POINTS
from crossfold_trainer.contract.metrics import Direction
from crossfold_trainer.contract.scoring import better


@dataclass(frozen=True)
class Verdict:
    """A judgement of a run, with its numbers. Scores are in units of the objective.

    Attributes:
        method: by which it was judged.
        epoch: epochs trained, after which runs were compared.
        best: the run's best score up to then.
        peers: runs that it was compared with.
        threshold: what it has to reach; None: there are too few peers.
        stop: whether it is not worth going on.
        place: ASHA: its place on the rung, from 1.
        places: ASHA: how many go on.
        min_peers: how many peers there must be.
    """

    method: PruningMethod
    epoch: int
    best: float
    peers: int
    threshold: float | None = None
    stop: bool = False
    place: int | None = None
    places: int | None = None
    min_peers: int = 0


def epochs(method: PruningMethod, min_epochs: int, max_epochs: int, every: int, reduction: int = 4) -> list[int]:
    """The epochs at which runs are compared, at most 16: validations from ``min_epochs`` on, but not the last.

    Args:
        method: ASHA compares at its rungs, min_epochs times a power of the reduction factor, or at the next validation
            after each; MedianStop at every validation, or where these are many, at 16 of them, evenly.
        min_epochs: epochs that a run has for certain, from 1.
        max_epochs: epochs of a whole run.
        every: epochs from one validation to the next.
        reduction: ASHA's reduction factor, from 2.
    """
    first = -(-min_epochs // every) * every
    validations = range(first, max_epochs, every)
    if method is PruningMethod.MEDIAN_STOP:
        if len(validations) <= MOST_POINTS:
            return list(validations)
        return [validations[i * (len(validations) - 1) // (MOST_POINTS - 1)] for i in range(MOST_POINTS)]
    found: list[int] = []
    rung = min_epochs
    while (epoch := -(-rung // every) * every) < max_epochs and len(found) < MOST_POINTS:
        found += [epoch] if epoch not in found else []
        rung *= reduction
    return found


def median_stop(epoch: int, best: float, means: Sequence[float], direction: Direction, *, min_peers: int) -> Verdict:
    """Stop a run whose best score so far is worse than the median of completed runs' running means.

    The median stopping rule of Golovin et al., Google Vizier (KDD 2017), section 3.2.2.

    Args:
        epoch: epochs trained.
        best: the run's best score up to then.
        means: of other runs that are complete, the mean of their scores up to that epoch, in any order; of a run that
            ended before, the mean of all.
        direction: which scores are better.
        min_peers: how many of them there must be.
    """
    return Median.of(means).judge(epoch, best, direction, min_peers=min_peers)


@dataclass(frozen=True)
class Median:
    """What ``median_stop`` compares with: the same for all runs at an epoch.

    Attributes:
        count: of the means.
        value: their median; None where there is none.
    """

    count: int
    value: float | None

    @classmethod
    def of(cls, means: Sequence[float]) -> "Median":
        """Of means in any order."""
        return cls(len(means), statistics.median(means) if means else None)

    def judge(self, epoch: int, best: float, direction: Direction, *, min_peers: int) -> Verdict:
        """One run; see ``median_stop``."""
        if self.count < min_peers or self.value is None:
            return Verdict(PruningMethod.MEDIAN_STOP, epoch, best, self.count, min_peers=min_peers)
        stop = better(self.value, best, direction)
        return Verdict(PruningMethod.MEDIAN_STOP, epoch, best, self.count, self.value, stop, min_peers=min_peers)


def asha(
    epoch: int, best: float, bests: Sequence[float], direction: Direction, *, min_peers: int, reduction: int = 4
) -> Verdict:
    """Stop a run that is not among the best 1/reduction of the runs that have reached its rung.

    Asynchronous successive halving of Li et al. (MLSys 2020) as a stopping rule. The best of a rung goes on however few
    there are, and equal ones go on together. A run is judged at its latest rung as often as one asks, so that better
    runs that come later can still end it: in the end as many have gone on as in synchronous halving.

    Args:
        epoch: epochs trained: the rung.
        best: the run's best score up to then, as that is what a run keeps.
        bests: those of the other runs that have reached the rung, whatever became of them, in any order.
        direction: which scores are better.
        min_peers: how many of them there must be.
        reduction: the reduction factor, from 2.
    """
    return Rung.of([best, *bests], direction).judge(epoch, best, min_peers=min_peers, reduction=reduction)


@dataclass(frozen=True)
class Rung:
    """What ``asha`` compares with: the same for all runs that have reached a rung.

    Attributes:
        losses: of these runs, each to be minimised, the best first.
        direction: which scores are better.
    """

    losses: Sequence[float]
    direction: Direction

    @classmethod
    def of(cls, bests: Sequence[float], direction: Direction) -> "Rung":
        """Of the best scores of all runs that have reached it, in any order."""
        sign = -1 if direction is Direction.MAXIMIZE else 1
        return cls(sorted(sign * best for best in bests), direction)

    def judge(self, epoch: int, best: float, *, min_peers: int, reduction: int) -> Verdict:
        """One of these runs; see ``asha``."""
        peers = len(self.losses) - 1
        if peers < min_peers:
            return Verdict(PruningMethod.ASHA, epoch, best, peers, min_peers=min_peers)
        sign = -1 if self.direction is Direction.MAXIMIZE else 1
        places = max(1, len(self.losses) // reduction)
        threshold = sign * self.losses[places - 1]
        return Verdict(
            PruningMethod.ASHA,
            epoch,
            best,
            peers,
            threshold,
            better(threshold, best, self.direction),
            place=bisect_left(self.losses, sign * best) + 1,
            places=places,
            min_peers=min_peers,
        )


def text(seen: Verdict) -> str:
    """A verdict in words."""
    start = f"at epoch {seen.epoch} of its first run: best score {seen.best:.4g}"
    if seen.threshold is None:
        return f"goes on {start}, {seen.peers} of at least {seen.min_peers} runs to compare with"
    verdict = "pruned" if seen.stop else "goes on"
    if seen.method is PruningMethod.MEDIAN_STOP:
        relation = "worse" if seen.stop else "not worse"
        return (
            f"{verdict} {start} is {relation} than {seen.threshold:.4g}, the median of the means so far of {seen.peers}"
            " complete runs"
        )
    return (
        f"{verdict} {start} is number {seen.place} of {seen.peers + 1} at this rung, of which {seen.places}"
        f" {'goes' if seen.places == 1 else 'go'} on (from {seen.threshold:.4g})"
    )
