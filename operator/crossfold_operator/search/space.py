"""The search space: which values each parameter takes, when two are the same, and how many there are.

A value has a *coordinate*: what a sampler works with in its place. A continuous range has its values, rounded to
12 significant digits, as coordinates; everything else is counted, and has consecutive whole numbers. Two points are the
same when their coordinates are.
"""

import json
import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from functools import cached_property
from random import Random
from typing import Any, assert_never

from crossfold_operator.api.parameters import ParameterSpec, ParameterType, Scale
from crossfold_trainer.contract import hyperparameters as hp

Coordinate = int | float
Point = tuple[Coordinate, ...]
"""One coordinate a dimension."""

_DIGITS = 12
"""Significant digits in which two values must differ to be two."""
_LARGEST_INTEGER = 2**53
"""Greatest magnitude in which JSON numbers still tell all integers apart."""
_NARROWEST = 1e-6
"""Least width of a continuous range, relative to its bounds: leaves 100,000 values of 12 digits."""
_FINEST = 10.0 ** (1 - _DIGITS)
"""Least step, relative to the bounds, that 12 digits can tell apart."""


def _round(value: float) -> float:
    return float(f"{value:.{_DIGITS}g}")


@dataclass(frozen=True)
class Dimension(ABC):
    """One parameter.

    Attributes:
        name: its canonical name.
        first: the least coordinate.
        last: the greatest coordinate.
        log: whether coordinates are sampled on a logarithmic scale.
    """

    name: str
    first: Coordinate
    last: Coordinate
    log: bool

    @property
    @abstractmethod
    def size(self) -> int | None:
        """How many values there are; None when they cannot be exhausted."""

    @abstractmethod
    def value(self, coordinate: Coordinate) -> Any:
        """The value at a coordinate."""

    def coordinate(self, value: Any) -> Coordinate | None:
        """The coordinate of a value; None when it is not one of this dimension's."""
        if isinstance(value, list | dict):
            return self._find(value)
        # Thousands of trials share few values. The type is part of the key since True equals 1.
        key = (type(value), value)
        if key not in self._found:
            self._found[key] = self._find(value)
        return self._found[key]

    @cached_property
    def _found(self) -> dict[Any, Coordinate | None]:
        return {}

    @abstractmethod
    def _find(self, value: Any) -> Coordinate | None:
        """As coordinate, reckoned anew."""

    @abstractmethod
    def draw(self, rng: Random) -> Coordinate:
        """A coordinate at random, uniform on the dimension's scale."""


@dataclass(frozen=True)
class Range(Dimension):
    """All numbers between two bounds."""

    @property
    def size(self) -> None:
        """Never exhausted."""
        return

    def value(self, coordinate: Coordinate) -> float:
        """The coordinate, rounded."""
        return float(min(max(_round(coordinate), self.first), self.last))

    def _find(self, value: Any) -> float | None:
        if not _is_number(value) or not _round(self.first) <= _round(value) <= _round(self.last):
            return None
        return self.value(value)

    def draw(self, rng: Random) -> float:
        """A number at random."""
        if self.log:
            return self.value(math.exp(rng.uniform(math.log(self.first), math.log(self.last))))
        return self.value(rng.uniform(self.first, self.last))


@dataclass(frozen=True)
class Counted(Dimension):
    """A dimension with finitely many values and consecutive whole coordinates."""

    first: int
    last: int

    @property
    def size(self) -> int:
        """How many values there are."""
        return self.last - self.first + 1

    def draw(self, rng: Random) -> int:
        """A coordinate at random."""
        return rng.randint(self.first, self.last)


@dataclass(frozen=True)
class Steps(Counted):
    """``low + i * step``, reckoned in decimals so that 0.1 + 0.2 is 0.3. The coordinate is i."""

    low: Decimal
    step: Decimal
    whole: bool

    def value(self, coordinate: Coordinate) -> float | int:
        """The number after so many steps."""
        exact = self.low + int(coordinate) * self.step
        return int(exact) if self.whole else float(exact)

    def _find(self, value: Any) -> int | None:
        if not _is_number(value):
            return None
        index = round((_decimal(value) - self.low) / self.step)
        if self.first <= index <= self.last and _round(value) == _round(self.value(index)):
            return index
        return None


@dataclass(frozen=True)
class LogIntegers(Counted):
    """All integers between two bounds, small ones more often. They are their own coordinates."""

    def value(self, coordinate: Coordinate) -> int:
        """The coordinate itself."""
        return int(coordinate)

    def _find(self, value: Any) -> int | None:
        if _is_number(value) and value == int(value) and self.first <= value <= self.last:
            return int(value)
        return None

    def draw(self, rng: Random) -> int:
        """An integer at random: each has its share of the scale, from half below to half above it."""
        drawn = round(math.exp(rng.uniform(math.log(self.first - 0.5), math.log(self.last + 0.5))))
        return min(max(drawn, self.first), self.last)


@dataclass(frozen=True)
class Choices(Counted):
    """Listed values of any JSON type. The coordinate is the place in the list."""

    values: tuple[Any, ...]

    @cached_property
    def _places(self) -> dict[str, int]:
        return {_canonical(self.name, value): i for i, value in enumerate(self.values)}

    def value(self, coordinate: Coordinate) -> Any:
        """The value at a place."""
        return self.values[int(coordinate)]

    def _find(self, value: Any) -> int | None:
        return self._places.get(_canonical(self.name, value))


@dataclass(frozen=True)
class Space:
    """All dimensions together."""

    dimensions: tuple[Dimension, ...]

    @cached_property
    def size(self) -> int | None:
        """How many points there are; None when they cannot be exhausted."""
        sizes = [dimension.size for dimension in self.dimensions if dimension.size is not None]
        return math.prod(sizes) if len(sizes) == len(self.dimensions) else None

    def parameters(self, point: Point) -> dict[str, Any]:
        """The values at a point, by canonical name."""
        return {d.name: d.value(c) for d, c in zip(self.dimensions, point, strict=True)}

    def point(self, parameters: Mapping[str, Any]) -> Point | None:
        """The point of given values; None when one is missing or does not fit. Other names are passed over."""
        canonical = {hp.canonical_name(name): value for name, value in parameters.items()}
        point: list[Coordinate] = []
        for dimension in self.dimensions:
            if dimension.name not in canonical:
                return None
            coordinate = dimension.coordinate(canonical[dimension.name])
            if coordinate is None:
                return None
            point.append(coordinate)
        return tuple(point)

    def at(self, index: int) -> Point:
        """The point of a finite space at an index below its size; the last dimension counts fastest."""
        point: list[Coordinate] = []
        for dimension in reversed(self.dimensions):
            if dimension.size is None:
                raise ValueError(f"parameter '{dimension.name}' is a continuous range: its points cannot be numbered")
            index, offset = divmod(index, dimension.size)
            point.append(dimension.first + offset)
        return tuple(reversed(point))

    def index(self, point: Point) -> int:
        """The index of a point of a finite space: the inverse of ``at``."""
        index = 0
        for dimension, coordinate in zip(self.dimensions, point, strict=True):
            if dimension.size is None:
                raise ValueError(f"parameter '{dimension.name}' is a continuous range: its points cannot be numbered")
            index = index * dimension.size + int(coordinate - dimension.first)
        return index

    def draw(self, rng: Random) -> Point:
        """A point at random."""
        return tuple(dimension.draw(rng) for dimension in self.dimensions)


def space_of(parameters: Sequence[ParameterSpec]) -> Space:
    """The space that a Tune's parameters span.

    Raises:
        ValueError: a parameter lacks what its type needs (admission refuses it before).
    """
    return Space(tuple(_dimension(parameter) for parameter in parameters))


def _dimension(spec: ParameterSpec) -> Dimension:
    name = hp.canonical_name(spec.name)
    if spec.type is ParameterType.CATEGORICAL:
        if not spec.values:
            raise ValueError(f"parameter '{name}' is Categorical and has no values")
        values = tuple(hp.canonical_value(name, value) for value in spec.values)
        return Choices(name, first=0, last=len(values) - 1, log=False, values=values)
    if spec.min is None or spec.max is None or not spec.min <= spec.max:
        raise ValueError(f"parameter '{name}' is {spec.type} and needs min and max, with min below max")
    log = spec.scale is Scale.LOG
    if log and spec.min <= 0:
        raise ValueError(f"parameter '{name}' has scale Log and needs min above 0")
    match spec.type:
        case ParameterType.FLOAT if spec.step is None:
            return Range(name, first=spec.min, last=spec.max, log=log)
        case ParameterType.INT if log:
            return LogIntegers(name, first=int(spec.min), last=int(spec.max), log=True)
        case ParameterType.FLOAT | ParameterType.INT:
            low, step = _decimal(spec.min), _decimal(spec.step or 1)
            last = int((_decimal(spec.max) - low) // step)
            return Steps(name, 0, last, log=False, low=low, step=step, whole=spec.type is ParameterType.INT)
        case _:
            assert_never(spec.type)


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
        canonical = _canonical(name, value)
        if canonical in seen:
            problems.append(f"{path}.values[{i}]: {value!r} is the same value as values[{seen[canonical]}]: remove one")
        seen.setdefault(canonical, i)
    return problems


def _range_problems(path: str, name: str, parameter: ParameterSpec) -> list[str]:
    low, high, step = parameter.min, parameter.max, parameter.step
    if low is None or high is None:
        return []
    if not (math.isfinite(low) and math.isfinite(high)):
        return [f"{path}: min and max must be finite numbers"]
    known = hp.HYPERPARAMETERS.get(name)
    if known is not None and known.number is None:
        return [f"{path}.type: '{name}' must be {known.expects}: use type Categorical and list the values"]
    if known is not None and known.number is int and parameter.type is ParameterType.FLOAT:
        return [f"{path}.type: '{name}' must be {known.expects}: use type Int"]
    largest = max(abs(low), abs(high))
    if parameter.type is ParameterType.INT:
        if largest > _LARGEST_INTEGER:
            return [f"{path}: integers beyond ±2^53 cannot be told apart in JSON: bring min and max nearer to 0"]
    elif step is None:
        if high - low < _NARROWEST * largest:
            return [f"{path}: min and max are almost the same: widen the range, or move '{name}' to spec.fixed"]
    elif step < _FINEST * largest:
        return [f"{path}.step: {step!r} is too fine: values must differ in their first {_DIGITS} digits; raise it"]
    whole = parameter.type is ParameterType.INT
    return [
        f"{path}.{field}: {problem}: change {field}"
        for field, bound in (("min", low), ("max", high))
        if (problem := hp.value_problem(name, int(bound) if whole else bound))
    ]


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _decimal(value: float) -> Decimal:
    """The number as it is written: 0.1 is one tenth."""
    return Decimal(repr(value))


def _canonical(name: str, value: Any) -> str:
    """A text that two values share when they are the same value of this hyperparameter."""
    if hp.value_problem(name, value) is None:
        value = hp.canonical_value(name, value)
    return json.dumps(_numbers(value), sort_keys=True)


def _numbers(value: Any) -> Any:
    """The value with every number in one spelling: 8.0 is 8, and 12 digits count."""
    match value:
        case bool() | str() | None:
            return value
        case int() | float() if math.isfinite(value):
            rounded = _round(value) if isinstance(value, float) else value
            return int(rounded) if rounded == int(rounded) else rounded
        case list() | tuple():
            return [_numbers(item) for item in value]
        case dict():
            return {key: _numbers(item) for key, item in value.items()}
        case _:
            return value
