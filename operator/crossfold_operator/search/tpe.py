"""The next point by Optuna's tree-structured Parzen estimator."""

import copy
from collections.abc import Iterator
from datetime import datetime
from typing import Any, assert_never

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import FrozenTrial
from optuna.trial import TrialState as Told

from crossfold_operator.search.dimensions import Choices, Coordinate, Counted, Dimension
from crossfold_operator.search.history import Trial, TrialState
from crossfold_operator.search.question import Question
from crossfold_operator.search.space import Point
from crossfold_operator.search.told import effective, losses_of, window, worst
from crossfold_trainer.contract.metrics import Direction

Distributions = dict[str, BaseDistribution]

_LONG_AGO = datetime(2000, 1, 1)  # noqa: DTZ001 -- Optuna wants a naive time, and the sampler does not look at it
_BEST = 25
_RECENT = 225
"""Ended trials that the estimator is fitted to: the best ones, and of the others the most recent.

Optuna's cost of a point grows with the history and its benefit does not: of 250 trials and of any greater number it
models 25 as good, and it weighs all but the latest 25 of the others down."""
_RUNNING = 250
"""Running trials that it keeps clear of, the latest: each is one more place that every candidate is compared with."""
_VIOLATION = {"constraints:acceleratorMemory": 1.0}
"""What Optuna's Trial.set_constraint keeps of a constraint that is violated (above 0); it ranks by their sum."""
_COUNTABLE = 10**9
"""Values of a dimension up to which Optuna weighs the share of each. Shares of more are lost in rounding: such a
dimension counts as continuous."""
_TRIES = 6
"""Points to propose."""


def proposals(question: Question) -> Iterator[Point]:
    """Points to try next, the most promising first; each of them counts as running for those after it."""
    space, algorithm, direction = question.space, question.algorithm, question.direction
    optuna.logging.set_verbosity(optuna.logging.WARNING)  # it would log every study
    distributions = {dimension.name: _distribution(dimension) for dimension in space.dimensions}
    study = optuna.create_study(
        direction="maximize" if direction is Direction.MAXIMIZE else "minimize",
        sampler=_Sampler(
            distributions,
            seed=question.seed,
            n_startup_trials=int(algorithm.setting("startupTrials") or 0),
            n_ei_candidates=int(algorithm.setting("candidates") or 1),
        ),
    )
    losses = losses_of(direction, question.trials)
    last = worst(question.trials, losses)
    study.add_trials(
        [
            _told(trial, dict(zip(distributions, point, strict=True)), distributions, last)
            for trial in window(question.trials, losses, _BEST, _RECENT, _RUNNING)
            if (point := space.point(trial.parameters)) is not None
        ]
    )
    for _ in range(_TRIES):
        asked = study.ask(distributions).params
        yield tuple(_coordinate(dimension, asked[dimension.name]) for dimension in space.dimensions)


class _Sampler(optuna.samplers.TPESampler):
    """Multivariate, with a constant liar. The space is known, and need not be inferred from all trials every time."""

    def __init__(self, distributions: Distributions, **settings: Any) -> None:
        super().__init__(multivariate=True, constant_liar=True, **settings)
        self._distributions = {name: d for name, d in distributions.items() if not d.single()}

    def infer_relative_search_space(self, study: optuna.Study, trial: FrozenTrial) -> Distributions:  # noqa: ARG002
        """All dimensions with more than one value."""
        return self._distributions


class _Told(FrozenTrial):
    """A trial of which Optuna's storage need not copy all that is inside: nothing ever changes it."""

    def __deepcopy__(self, memo: object) -> "_Told":
        return copy.copy(self)


def _distribution(dimension: Dimension) -> BaseDistribution:
    if isinstance(dimension, Choices):
        return CategoricalDistribution(range(dimension.size))
    if isinstance(dimension, Counted) and dimension.size <= _COUNTABLE:
        return IntDistribution(dimension.first, dimension.last, log=dimension.log)
    return FloatDistribution(dimension.first, dimension.last, log=dimension.log)


def _coordinate(dimension: Dimension, asked: float) -> Coordinate:
    if isinstance(dimension, Counted):
        return min(max(round(asked), dimension.first), dimension.last)
    return asked


def _told(trial: Trial, coordinates: dict[str, Any], distributions: Distributions, last: float | None) -> FrozenTrial:
    """A trial in Optuna's words.

    A PRUNED one reports the mean that it was predicted to reach, after as many steps as it had runs (none inside its
    first): it ranks below all complete ones, and among the pruned ones by how far it came. One that is not COMPLETE for
    want of a comparable score is told as pruned at once, at the worst score seen: a place that is bad, by an amount
    that nobody knows.
    An INFEASIBLE one is told as pruned without a score and in violation of a constraint: it ranks below all others.
    """
    value: float | None = None
    seen: dict[int, float] = {}
    match effective(trial):
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
            seen = {} if last is None else {0: last}
        case TrialState.INFEASIBLE:
            state = Told.PRUNED
        case TrialState.FAILED | TrialState.STOPPED | TrialState.DELETED:
            state = Told.FAIL
        case _:
            assert_never(trial.state)
    return _Told(
        number=0,  # the storage gives it one
        trial_id=0,
        state=state,
        value=value,
        datetime_start=_LONG_AGO,
        datetime_complete=None if state is Told.RUNNING else _LONG_AGO,
        params=coordinates,
        distributions=distributions,
        user_attrs={},
        system_attrs=_VIOLATION if trial.state is TrialState.INFEASIBLE else {},
        intermediate_values=seen,
    )
