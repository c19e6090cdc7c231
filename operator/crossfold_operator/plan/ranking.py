"""Complete trials, the best first. Pure."""

from collections.abc import Callable, Sequence

from crossfold_operator.names import CrossValidationPhase
from crossfold_operator.observe.finished import Trials
from crossfold_operator.observe.trials import Trial
from crossfold_trainer.contract.metrics import Direction
from crossfold_trainer.contract.objective import ObjectiveSpec
from crossfold_trainer.contract.scoring import rank, score_direction

TOP = 10
"""Trials that ``leading`` has."""


def ranking(objective: ObjectiveSpec, trials: Sequence[Trial]) -> list[Trial]:
    """Complete trials, best first; of equal ones the older first."""
    return sorted(filter(_ranked, trials), key=_place(score_direction(objective)))


def leading(objective: ObjectiveSpec, trials: Sequence[Trial]) -> tuple[Trial, ...]:
    """The first ``TOP`` of the ranking, as far as there are as many."""
    none: tuple[Trial, ...] = ()
    return Trials.of(trials).finished.fold(_leading, none, score_direction(objective))


def ahead(score: float, by: float, direction: Direction) -> float:
    """The score that is better than another one by so much."""
    return score + by if direction is Direction.MAXIMIZE else score - by


def _leading(top: tuple[Trial, ...], trial: Trial, direction: Direction) -> tuple[Trial, ...]:
    if not _ranked(trial):
        return top
    place = _place(direction)
    if len(top) == TOP and place(trial) > place(top[-1]):
        return top
    return tuple(sorted((*top, trial), key=place)[:TOP])


def _ranked(trial: Trial) -> bool:
    return trial.phase is CrossValidationPhase.COMPLETE and trial.score is not None


def _place(direction: Direction) -> Callable[[Trial], tuple[float, int]]:
    return lambda trial: rank(trial.score or 0.0, trial.number, direction)
