"""The next point by Optuna's tree-structured Parzen estimator."""

import math
from collections.abc import Iterator, Sequence
from typing import Any, assert_never

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import FrozenTrial, create_trial
from optuna.trial import TrialState as Told

from crossfold_operator.search.history import Trial, TrialState
from crossfold_operator.search.space import Choices, Counted, Dimension, Point, Space
from crossfold_trainer.contract.metrics import Direction
from crossfold_trainer.contract.scoring import better

_BEST = 25
_RECENT = 225
"""Finished trials that the estimator is fitted to: the best ones, and of the others the most recent.

Optuna's cost of a point grows with the history and its benefit does not: of any number of trials it models at most 25
as good, and it weighs the old ones among the others down."""


def proposals(space: Space, direction: Direction, history: Sequence[tuple[Trial, Point]], seed: int) -> Iterator[Point]:
    """Points to try next, the most promising first; each of them counts as running for those after it.

    Args:
        space: where to look.
        direction: which scores are better.
        history: trials in order, with their points in the space.
        seed: of this one question.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)  # it would log every study
    distributions = _Shared({dimension.name: _distribution(dimension) for dimension in space.dimensions})
    study = optuna.create_study(
        direction="maximize" if direction is Direction.MAXIMIZE else "minimize",
        sampler=optuna.samplers.TPESampler(seed=seed, multivariate=True, constant_liar=True),
    )
    worst = _worst(direction, [trial for trial, _ in history])
    study.add_trials(
        [
            _told(trial, dict(zip(distributions, point, strict=True)), distributions, worst)
            for trial, point in _window(direction, history)
        ]
    )
    while True:
        asked = study.ask(distributions).params
        yield tuple(asked[name] for name in distributions)


def version() -> str:
    """Optuna's version."""
    return optuna.__version__


class _Shared(dict[str, BaseDistribution]):
    """The distributions of all trials, which Optuna's storage would copy with each: half of the time of a question."""

    def __deepcopy__(self, memo: object) -> "_Shared":
        return self


def _distribution(dimension: Dimension) -> BaseDistribution:
    if isinstance(dimension, Choices):
        return CategoricalDistribution(range(dimension.size))
    if isinstance(dimension, Counted):
        return IntDistribution(dimension.first, dimension.last, log=dimension.log)
    return FloatDistribution(dimension.first, dimension.last, log=dimension.log)


def _told(trial: Trial, coordinates: dict[str, Any], distributions: _Shared, worst: float | None) -> FrozenTrial:
    """A trial in Optuna's words.

    A PRUNED one reports the mean that it was predicted to reach, after as many steps as it had runs: it ranks below all
    complete ones, and among the pruned ones by how far it came. One that is not COMPLETE for want of a comparable score
    is told as pruned at once, at the worst score seen: a place that is bad, by an amount that nobody knows.
    """
    value: float | None = None
    seen: dict[int, float] = {}
    match _effective(trial):
        case TrialState.COMPLETE:
            state = Told.COMPLETE
            value = trial.value
        case TrialState.PRUNED:
            state = Told.PRUNED
            seen = {} if trial.value is None else {trial.step: trial.value}
        case TrialState.RUNNING:
            state = Told.RUNNING
        case TrialState.UNSTABLE:
            state = Told.PRUNED
            seen = {} if worst is None else {0: worst}
        case TrialState.FAILED | TrialState.STOPPED | TrialState.DELETED:
            state = Told.FAIL
        case _:
            assert_never(trial.state)
    told = create_trial(
        state=state, params=coordinates, distributions=distributions, value=value, intermediate_values=seen
    )
    told.distributions = distributions
    return told


def _effective(trial: Trial) -> TrialState:
    """The trial's state; COMPLETE or PRUNED with a score that is no number is as good as unstable."""
    scored = trial.state in (TrialState.COMPLETE, TrialState.PRUNED)
    if scored and (trial.value is None or not math.isfinite(trial.value)):
        return TrialState.UNSTABLE
    return trial.state


def _scores(trials: Sequence[Trial]) -> list[tuple[float, int]]:
    """Score and place of every trial that has one."""
    return [
        (trial.value, i)
        for i, trial in enumerate(trials)
        if trial.value is not None and _effective(trial) is TrialState.COMPLETE
    ]


def _worst(direction: Direction, trials: Sequence[Trial]) -> float | None:
    values = [value for value, _ in _scores(trials)]
    if not values:
        return None
    return min(values) if better(1, 0, direction) else max(values)


def _window(direction: Direction, history: Sequence[tuple[Trial, Point]]) -> list[tuple[Trial, Point]]:
    """The trials worth telling, in order: all that run, the best, and the most recent of the others."""
    finished = [i for i, (trial, _) in enumerate(history) if trial.state is not TrialState.RUNNING]
    if len(finished) <= _BEST + _RECENT:
        return list(history)
    sign = -1 if better(1, 0, direction) else 1
    scores = sorted(_scores([trial for trial, _ in history]), key=lambda scored: (sign * scored[0], scored[1]))
    best = {i for _, i in scores[:_BEST]}
    recent = {
        i
        for i in finished
        if i not in best and history[i][0].state in (TrialState.COMPLETE, TrialState.PRUNED, TrialState.UNSTABLE)
    }
    kept = best | set(sorted(recent)[-_RECENT:])
    return [entry for i, entry in enumerate(history) if i in kept or entry[0].state is TrialState.RUNNING]
