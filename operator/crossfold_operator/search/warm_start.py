"""Which trials of finished Tunes inform a new one, and why the others do not."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from crossfold_operator.api.fields import NamedValue
from crossfold_operator.api.parameters import ParameterSpec
from crossfold_operator.search.dimensions import canonical
from crossfold_operator.search.history import Trial, TrialState
from crossfold_operator.search.space import Space, space_of
from crossfold_trainer.contract import hyperparameters as hp
from crossfold_trainer.contract.objective import ObjectiveSpec

_SAYING = (TrialState.COMPLETE, TrialState.PRUNED, TrialState.UNSTABLE)
"""States that say something of the parameters' quality; the others are not counted either."""


@dataclass(frozen=True)
class Source:
    """A finished Tune.

    Attributes:
        name: its name.
        objective: what its scores are.
        trials: its trials, each with all its hyperparameters, fixed ones too.
    """

    name: str
    objective: ObjectiveSpec
    trials: Sequence[Trial]


@dataclass(frozen=True)
class WarmStart:
    """What a Tune starts from.

    Attributes:
        trials: for the sampler's history, with the parameters that are searched here.
        unfit: how many trials do not fit, by the reason, the most frequent first.
    """

    trials: tuple[Trial, ...] = ()
    unfit: Mapping[str, int] = field(default_factory=dict)

    @property
    def message(self) -> str:
        """How many trials do not fit, and why; empty when all do."""
        if not self.unfit:
            return ""
        reasons = "; ".join(f"{reason} ({many} trials)" for reason, many in self.unfit.items())
        return (
            f"{sum(self.unfit.values())} of {len(self.trials) + sum(self.unfit.values())} trials do not fit: {reasons}"
        )


def warm_start(
    parameters: Sequence[ParameterSpec],
    fixed: Sequence[NamedValue],
    objective: ObjectiveSpec,
    sources: Sequence[Source],
) -> WarmStart:
    """The trials of finished Tunes that say something about the points of a search.

    A trial fits when it has the same objective, a value of each searched parameter inside its range or list, and the
    same values of all other hyperparameters. One that it does not name had the trainer's default.

    Args:
        parameters: the search space, free of ``search_problems``.
        fixed: the hyperparameters that do not vary.
        objective: what is optimised.
        sources: the Tunes to start from.
    """
    space = space_of(parameters)
    constant = {hp.canonical_name(item.name): item.value for item in fixed}
    found: list[Trial] = []
    unfit: Counter[str] = Counter()
    for source in sources:
        for trial in source.trials:
            if trial.state not in _SAYING:
                continue
            misfit = _misfit(space, constant, objective, source, trial)
            if misfit:
                unfit[f"Tune {source.name}: {misfit}"] += 1
                continue
            values = _values(trial.parameters)
            searched = {dimension.name: values[dimension.name] for dimension in space.dimensions}
            found.append(replace(trial, parameters=searched, source=source.name))
    return WarmStart(tuple(found), dict(unfit.most_common()))


def _values(hyperparameters: Mapping[str, Any]) -> dict[str, Any]:
    """All hyperparameters that a trial trained with, by canonical name."""
    given = {hp.canonical_name(name): value for name, value in hyperparameters.items()}
    return {name: known.default for name, known in hp.HYPERPARAMETERS.items()} | given


def _scored(objective: ObjectiveSpec) -> tuple[object, ...]:
    """What a score depends on, defaults resolved."""
    metrics = tuple((metric.name, metric.resolved_direction) for metric in objective.metrics)
    return metrics if len(metrics) == 1 else (*metrics, objective.combine)


def _misfit(space: Space, constant: Mapping[str, Any], objective: ObjectiveSpec, source: Source, trial: Trial) -> str:
    """Why a trial does not fit, in words that many trials share; empty when it does."""
    if _scored(source.objective) != _scored(objective):
        return "its objective is another one"
    theirs, ours = _values(trial.parameters), _values(constant)
    for dimension in space.dimensions:
        if dimension.name not in theirs:
            return f"it has no '{dimension.name}'"
        if dimension.coordinate(theirs[dimension.name]) is None:
            return f"its '{dimension.name}' is not {dimension.expects}"
    searched = {dimension.name for dimension in space.dimensions}
    for name in sorted((theirs.keys() | ours.keys()) - searched):
        there, here = theirs.get(name), ours.get(name)
        if canonical(name, there) != canonical(name, here):
            return f"its '{name}' is {there!r}, and {here!r} here"
    return ""
