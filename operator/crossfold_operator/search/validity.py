"""What is wrong with a search that the schema and CEL could not see: what depends on values without a type."""

from collections.abc import Sequence

from crossfold_operator.api.algorithm import AlgorithmSpec
from crossfold_operator.api.parameters import LARGEST, TOO_LARGE, InitialTrial, ParameterSpec, ParameterType, Scale
from crossfold_operator.search.dimensions import DIGITS, Coordinate, canonical
from crossfold_operator.search.space import space_of
from crossfold_trainer.contract import hyperparameters as hp

_NARROWEST = 1e-6
"""Least width of a continuous or logarithmic range, relative to its bounds: leaves 100,000 values of 12 digits."""
_SMALLEST = 1e-300
"""Least width and step: floats nearer to 0 have fewer digits."""
_NEAREST = 1e-9
"""Least distance from 1 under ReverseLog: leaves three of the 12 digits."""
_FINEST = 10.0 ** (1 - DIGITS)
"""Least step, relative to the bounds, that 12 digits can tell apart."""


def search_problems(
    parameters: Sequence[ParameterSpec], algorithm: AlgorithmSpec, initial: Sequence[InitialTrial]
) -> list[str]:
    """What is wrong with a search space, the trials to ask first and the algorithm, field and remedy named."""
    problems = [f"spec.algorithm.settings: {problem}" for problem in algorithm.problems]
    problems += value_problems(parameters)
    # Initial trials are judged by the space, which is none before it is in order.
    return problems or initial_problems(parameters, initial)


def initial_problems(parameters: Sequence[ParameterSpec], initial: Sequence[InitialTrial]) -> list[str]:
    """What is wrong with the trials to ask first, by a search space that is in order."""
    try:
        dimensions = {dimension.name: dimension for dimension in space_of(parameters).dimensions}
    except ValueError:  # stored before the rules that refuse it
        return []
    problems: list[str] = []
    seen: dict[tuple[tuple[str, Coordinate], ...], int] = {}
    for i, trial in enumerate(initial):
        given: dict[str, Coordinate] = {}
        wrong = len(problems)
        for j, item in enumerate(trial.parameters):
            path = f"spec.initialTrials[{i}].parameters[{j}]"
            name = hp.canonical_name(item.name)
            if name not in dimensions:
                problems.append(f"{path}: '{name}' is no parameter of the search: use {', '.join(dimensions)}")
                continue
            if name in given:
                problems.append(f"{path}: '{name}' is given twice ('-' equals '_'): remove one")
            coordinate = dimensions[name].coordinate(item.value)
            if coordinate is None:
                expected = dimensions[name].expects
                problems.append(f"{path}: '{name}' must be {expected}, not {item.value!r}: change it")
                continue
            given[name] = coordinate
        key = tuple(sorted(given.items()))
        if wrong < len(problems) or len(given) < len(dimensions):
            continue
        if key in seen:
            problems.append(f"spec.initialTrials[{i}]: is initialTrials[{seen[key]}] once more: remove one")
        seen.setdefault(key, i)
    return problems


def value_problems(parameters: Sequence[ParameterSpec]) -> list[str]:
    """What is wrong with a search space that the schema and CEL could not see, field and remedy named."""
    problems: list[str] = []
    seen: dict[str, int] = {}
    for i, parameter in enumerate(parameters):
        path = f"spec.parameters[{i}]"
        name = hp.canonical_name(parameter.name)
        if name in seen:
            problems.append(
                f"{path}.name: '{parameter.name}' is parameters[{seen[name]}] once more ('-' equals '_'): remove one"
            )
        seen.setdefault(name, i)
        if parameter.type is ParameterType.CATEGORICAL:
            problems.extend(_choice_problems(path, name, parameter))
        else:
            problems.extend(_range_problems(path, name, parameter))
    return problems


def _choice_problems(path: str, name: str, parameter: ParameterSpec) -> list[str]:
    if not parameter.values:
        return [f"{path}.values: a Categorical needs values: list them"]
    problems: list[str] = []
    seen: dict[str, int] = {}
    for i, value in enumerate(parameter.values):
        problem = hp.value_problem(name, value)
        if problem:
            problems.append(f"{path}.values[{i}]: {problem}: change or remove it")
            continue
        text = canonical(name, value)
        if text in seen:
            problems.append(f"{path}.values[{i}]: {value!r} is the same value as values[{seen[text]}]: remove one")
        seen.setdefault(text, i)
    return problems


def _range_problems(path: str, name: str, parameter: ParameterSpec) -> list[str]:
    low, high = parameter.min, parameter.max
    if low is None or high is None:
        return []
    if not all(abs(bound) <= LARGEST[parameter.type] for bound in (low, high)):
        return [f"{path}: {TOO_LARGE[parameter.type]}"]
    known = hp.HYPERPARAMETERS.get(name)
    if known is not None and known.number is None:
        return [f"{path}.type: '{name}' must be {known.expects}: use type Categorical and list the values"]
    if known is not None and known.number is int and parameter.type is ParameterType.FLOAT:
        return [f"{path}.type: '{name}' must be {known.expects}: use type Int"]
    if problem := _resolution_problem(name, parameter, low, high):
        return [f"{path}{problem}"]
    whole = parameter.type is ParameterType.INT
    return [
        f"{path}.{field}: {problem}: change {field}"
        for field, bound in (("min", low), ("max", high))
        if (problem := hp.value_problem(name, int(bound) if whole else bound))
    ]


def _resolution_problem(name: str, parameter: ParameterSpec, low: float, high: float) -> str | None:
    """Why the values of a range cannot be told apart, after the path of the parameter; None when they can."""
    largest, step = max(abs(low), abs(high)), parameter.step
    # Under ReverseLog distances from 1 are what counts.
    farthest = max(largest, 1 - low) if parameter.scale is Scale.REVERSE_LOG else largest
    narrow = high - low < max(_NARROWEST * farthest, _SMALLEST)
    if parameter.type is ParameterType.INT:
        if parameter.scale is Scale.LOG and narrow:
            return ": min and max are almost the same on a logarithmic scale: widen the range, or use scale Linear"
    elif step is not None:
        if step < max(_FINEST * largest, _SMALLEST):
            return f".step: {step!r} is too fine: values must differ in their first {DIGITS} digits; raise it"
    elif parameter.scale is Scale.REVERSE_LOG and high > 1 - _NEAREST:
        return f".max: values so near to 1 cannot be told apart: lower it to {1 - _NEAREST} or less"
    elif narrow:
        return f": min and max are almost the same: widen the range, or move '{name}' to spec.fixed"
    return None
