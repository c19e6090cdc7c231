"""What the models behind the samplers learn from: which trials say something, and which of many are worth telling."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from crossfold_operator.search.history import Trial, TrialState
from crossfold_operator.search.space import Point, Space
from crossfold_trainer.contract.metrics import Direction

_SAY_NOTHING = frozenset({TrialState.FAILED, TrialState.STOPPED, TrialState.DELETED})
"""States that tell nothing about the quality of the parameters."""


def effective(trial: Trial) -> TrialState:
    """The trial's state; COMPLETE or PRUNED with a score that is no number is as good as unstable."""
    scored = trial.state in (TrialState.COMPLETE, TrialState.PRUNED)
    if scored and (trial.value is None or not math.isfinite(trial.value)):
        return TrialState.UNSTABLE
    return trial.state


def loss_of(value: float, direction: Direction) -> float:
    """The value as something to be minimised."""
    return value if direction is Direction.MINIMIZE else -value


def losses_of(direction: Direction, trials: Sequence[Trial]) -> dict[int, float]:
    """The losses of the complete trials that have a score, by their places among the trials."""
    sign = 1 if direction is Direction.MINIMIZE else -1
    return {
        i: sign * trial.value
        for i, trial in enumerate(trials)
        if trial.state is TrialState.COMPLETE and trial.value is not None and math.isfinite(trial.value)
    }


def worst(trials: Sequence[Trial], losses: Mapping[int, float]) -> float | None:
    """The worst score that a complete trial has; None while none has one."""
    return trials[max(losses, key=losses.__getitem__)].value if losses else None


def window(trials: Sequence[Trial], losses: Mapping[int, float], best: int, recent: int, running: int) -> list[Trial]:
    """The trials worth telling, in order: the best complete ones, the most recent of the others, the latest that run.

    It depends on nothing but the trials and their order. Trials that say nothing are left out.

    Args:
        trials: in order, the most recent last.
        losses: ``losses_of`` them.
        best: complete trials that are kept for their score; of equal ones the earlier.
        recent: other ended ones that are kept.
        running: trials under way that are kept.
    """
    ended: list[int] = []
    under_way: list[int] = []
    for i, trial in enumerate(trials):
        if trial.state is TrialState.RUNNING:
            under_way.append(i)
        elif trial.state not in _SAY_NOTHING:
            ended.append(i)
    kept = set(ended)
    if len(ended) > best + recent:
        kept = set(sorted(losses, key=losses.__getitem__)[:best])
        # Among the latest ones, at most so many are kept already.
        kept |= set([i for i in ended[-best - recent :] if i not in kept][-recent:])
    return [trials[i] for i in sorted(kept.union(under_way[-running:]))]


@dataclass(frozen=True)
class Observations:
    """Trials as a regression sees them.

    Attributes:
        points: of the ended trials, in order.
        losses: their values, to be minimised; a pruned trial has the mean that it was predicted to reach, an unstable
            one the worst that a complete trial reached.
        predicted: whether each value is such a stand-in.
        running: points of the trials that have not ended.
        infeasible: points that violate a constraint, whose value nobody knows.
    """

    points: tuple[Point, ...]
    losses: tuple[float, ...]
    predicted: tuple[bool, ...]
    running: tuple[Point, ...]
    infeasible: tuple[Point, ...] = ()


def observations(space: Space, direction: Direction, trials: Sequence[Trial]) -> Observations:
    """What a model that knows numbers only is told; trials that do not fit the space are passed over."""
    points: list[Point] = []
    losses: list[float] = []
    predicted: list[bool] = []
    running: list[Point] = []
    infeasible: list[Point] = []
    last = worst(trials, losses_of(direction, trials))
    for trial in trials:
        state = effective(trial)
        value = last if state is TrialState.UNSTABLE else trial.value
        point = None if state in _SAY_NOTHING else space.point(trial.parameters)
        if point is None:
            continue
        if state is TrialState.RUNNING:
            running.append(point)
        elif state is TrialState.INFEASIBLE:
            infeasible.append(point)
        elif value is not None:
            points.append(point)
            losses.append(loss_of(value, direction))
            predicted.append(state is not TrialState.COMPLETE)
    return Observations(tuple(points), tuple(losses), tuple(predicted), tuple(running), tuple(infeasible))
