"""What is wrong with a spec that the API server let through: what depends on values that its rules cannot see. Pure."""

from collections.abc import Sequence

from pydantic import ValidationError

from crossfold_operator.api.algorithm import AlgorithmName
from crossfold_operator.api.crossvalidation import CrossValidationSpec
from crossfold_operator.api.fields import NamedValue
from crossfold_operator.api.trainrun import TrainRunSpec
from crossfold_operator.api.tune import TuneSpec
from crossfold_operator.search.space import space_of
from crossfold_operator.search.validity import search_problems
from crossfold_trainer.contract.hyperparameters import HYPERPARAMETERS, canonical_name, name_problem, value_problem
from crossfold_trainer.contract.scoring import score_range

MAX_PROBLEMS = 20
"""Problems that a condition lists."""
MAX_RUNS = 300
"""Runs of one trial."""


def of_error(error: ValidationError) -> list[str]:
    """A model's complaints as ``spec.path: what is wrong``."""
    found = []
    for item in error.errors(include_url=False)[:MAX_PROBLEMS]:
        path = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in item["loc"])
        found.append(f"spec{path}: {item['msg']}")
    return found


def of_values(values: Sequence[NamedValue], path: str) -> list[str]:
    """Unknown names, values that do not fit, and names that are equal after ``-`` became ``_``."""
    found = []
    seen: set[str] = set()
    for index, item in enumerate(values):
        name = canonical_name(item.name)
        problem = name_problem(item.name) or value_problem(item.name, item.value)
        if name in seen:
            problem = f"hyperparameter '{name}' is given twice"
        seen.add(name)
        if problem:
            found.append(f"{path}[{index}]: {problem}")
    return found


def of_spec(spec: TuneSpec | CrossValidationSpec | TrainRunSpec) -> list[str]:
    """Everything wrong with a spec, in words that name the field and the remedy; empty when it can be acted on."""
    if isinstance(spec, TuneSpec):
        searched = search_problems(spec.parameters, spec.algorithm, spec.initial_trials)
        found = [*searched, *of_values(spec.fixed, "spec.fixed"), *_of_target(spec)]
    else:
        found = of_values(spec.hyperparameters, "spec.hyperparameters")
    found += [f"spec.template.{problem}" for problem in spec.template.problems]
    return found[:MAX_PROBLEMS] or _stale(spec) or _of_batch(spec)


def _of_batch(spec: TuneSpec | CrossValidationSpec | TrainRunSpec) -> list[str]:
    """A batch of fewer patches than there are devices that share it."""
    fixed = spec.fixed if isinstance(spec, TuneSpec) else spec.hyperparameters
    given = {canonical_name(item.name): item.value for item in fixed}
    least = given.get("batch_size", HYPERPARAMETERS["batch_size"].default)
    for parameter in spec.parameters if isinstance(spec, TuneSpec) else ():
        if canonical_name(parameter.name) == "batch_size":
            least = min(parameter.values) if parameter.values else parameter.min  # type: ignore[type-var]
    devices = spec.trainer.processes
    if least >= devices:
        return []
    text = f"{devices} devices, all nodes together, cannot share a batch of {least:g}"
    return [f"spec.trainer: {text}: raise batch_size, or lower devices or nodes"]


def _of_target(spec: TuneSpec) -> list[str]:
    """A target that no score can reach, or that every score reaches."""
    low, high = score_range(spec.objective)
    if spec.target is None:
        return []
    if high is not None and spec.target > high:
        return [f"spec.target: a score is at most {high:.12g}, and {spec.target:g} is beyond it: lower it"]
    if low is not None and spec.target < low:
        return [f"spec.target: a score is at least {low:.12g}, and {spec.target:g} is below it: raise it"]
    return []


def _stale(spec: TuneSpec | CrossValidationSpec | TrainRunSpec) -> list[str]:
    """What the API server refuses at admission, and an object that was stored by earlier rules may still have."""
    try:
        _ = [metric.resolved_direction for metric in spec.objective.metrics]
        if isinstance(spec, TuneSpec):
            space = space_of(spec.parameters)
            if spec.algorithm.name is AlgorithmName.GRID and space.size is None:
                return ["spec.parameters: algorithm Grid needs every parameter to be Categorical or to have a step"]
        if not isinstance(spec, TrainRunSpec) and len(spec.cross_validation.units) > MAX_RUNS:
            return [f"spec.crossValidation: folds run times seeds must not exceed {MAX_RUNS}: lower one of them"]
        if isinstance(spec, TrainRunSpec) and spec.fold >= spec.folds:
            return ["spec.fold: must be below folds: folds are counted from 0"]
    except ValueError as error:
        return [f"spec: {error}"]
    return []
