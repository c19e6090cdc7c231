"""One parameter of the search space: which values it takes, when two are the same, and how many there are.

A value has a *coordinate*: what a sampler works with in its place. A continuous range has its values, rounded to
12 significant digits, as coordinates (under ReverseLog: their distances from 1); everything else is counted, and has
consecutive whole numbers. Two values are the same when their coordinates are. A coordinate has a *position* between 0
and 1 on the dimension's scale, with equal shares for counted ones.
"""

import json
import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from decimal import Decimal
from functools import cached_property
from typing import Any

from crossfold_trainer.contract import hyperparameters as hp

Coordinate = int | float

DIGITS = 12
"""Significant digits in which two values must differ to be two."""
_REMEMBERED = 100_000
"""Values whose coordinates are kept at most."""
_UNHASHABLE = (list, dict)

_SHOWN = 10
"""Values of a list that a message shows."""


def rounded(value: float) -> float:
    """The number with all digits that count."""
    return float(f"{value:.{DIGITS}g}")


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

    @property
    @abstractmethod
    def expects(self) -> str:
        """What a value must be, in words."""

    @abstractmethod
    def value(self, coordinate: Coordinate) -> Any:
        """The value at a coordinate."""

    def coordinate(self, value: Any) -> Coordinate | None:
        """The coordinate of a value; None when it is not one of this dimension's."""
        # Thousands of trials share few values. The type is part of the key since True equals 1.
        key = (type(value), repr(value) if isinstance(value, _UNHASHABLE) else value)
        if key not in self._found:
            if len(self._found) >= _REMEMBERED:
                self._found.clear()
            self._found[key] = self._find(value)
        return self._found[key]

    @cached_property
    def _found(self) -> dict[Any, Coordinate | None]:
        return {}

    @abstractmethod
    def _find(self, value: Any) -> Coordinate | None:
        """As coordinate, reckoned anew."""

    @abstractmethod
    def at(self, position: float) -> Coordinate:
        """The coordinate at a position in [0, 1]; of an even position, an even draw on the dimension's scale."""

    @abstractmethod
    def position(self, coordinate: Coordinate) -> float:
        """The position in [0, 1] of a coordinate; of a counted one, the middle of its share."""


@dataclass(frozen=True)
class Range(Dimension):
    """All numbers between two bounds."""

    @property
    def size(self) -> None:
        """Never exhausted."""
        return

    @property
    def expects(self) -> str:
        """The bounds."""
        return f"a number from {self.value(self.first)!r} to {self.value(self.last)!r}"

    def value(self, coordinate: Coordinate) -> float:
        """The coordinate, rounded."""
        return float(min(max(rounded(coordinate), self.first), self.last))

    def _find(self, value: Any) -> float | None:
        if not hp.is_number(value) or not rounded(self.first) <= rounded(value) <= rounded(self.last):
            return None
        return self.value(value)

    def at(self, position: float) -> float:
        """The number there."""
        low, high = self._ends
        number = low + position * (high - low)
        return self._inside(math.exp(number) if self.log else number)

    def position(self, coordinate: Coordinate) -> float:
        """How far it is from the first to the last one."""
        low, high = self._ends
        return min(max(((math.log(coordinate) if self.log else coordinate) - low) / (high - low), 0.0), 1.0)

    @cached_property
    def _ends(self) -> tuple[float, float]:
        return (math.log(self.first), math.log(self.last)) if self.log else (self.first, self.last)

    def _inside(self, coordinate: float) -> float:
        return self.value(coordinate)


@dataclass(frozen=True)
class ReverseRange(Range):
    """All numbers between two bounds below 1. The coordinate is the distance from 1, and log-uniform.

    Attributes:
        low: the least value.
        high: the greatest value.
    """

    low: float
    high: float

    @property
    def expects(self) -> str:
        """The bounds."""
        return f"a number from {self.low!r} to {self.high!r}"

    def value(self, coordinate: Coordinate) -> float:
        """The number at this distance from 1, rounded."""
        return min(max(rounded(1 - coordinate), self.low), self.high)

    def _find(self, value: Any) -> float | None:
        if not hp.is_number(value) or not rounded(self.low) <= rounded(value) <= rounded(self.high):
            return None
        return self._inside(float(1 - decimal(min(max(rounded(value), self.low), self.high))))

    def _inside(self, coordinate: float) -> float:
        return float(min(max(coordinate, self.first), self.last))


@dataclass(frozen=True)
class Counted(Dimension):
    """A dimension with finitely many values and consecutive whole coordinates."""

    first: int
    last: int

    @property
    def size(self) -> int:
        """How many values there are."""
        return self.last - self.first + 1

    def at(self, position: float) -> int:
        """The coordinate whose share it is."""
        return self.first + min(int(position * self.size), self.size - 1)

    def position(self, coordinate: Coordinate) -> float:
        """The middle of its share."""
        return (coordinate - self.first + 0.5) / self.size


@dataclass(frozen=True)
class Steps(Counted):
    """``low + i * step``, reckoned in decimals so that 0.1 + 0.2 is 0.3. The coordinate is i."""

    low: Decimal
    step: Decimal
    whole: bool

    @property
    def expects(self) -> str:
        """The bounds and the step."""
        return f"a number from {self.value(self.first)!r} to {self.value(self.last)!r} in steps of {float(self.step):g}"

    def value(self, coordinate: Coordinate) -> float | int:
        """The number after so many steps."""
        exact = self.low + int(coordinate) * self.step
        return int(exact) if self.whole else float(exact)

    def _find(self, value: Any) -> int | None:
        if not hp.is_number(value):
            return None
        index = round((decimal(value) - self.low) / self.step)
        found = self.value(index)
        same = value == found if self.whole else rounded(value) == rounded(found)
        return index if self.first <= index <= self.last and same else None


@dataclass(frozen=True)
class LogIntegers(Counted):
    """All integers between two bounds, small ones more often. They are their own coordinates."""

    @property
    def expects(self) -> str:
        """The bounds."""
        return f"a whole number from {self.first} to {self.last}"

    def value(self, coordinate: Coordinate) -> int:
        """The coordinate itself."""
        return int(coordinate)

    def _find(self, value: Any) -> int | None:
        if hp.is_number(value) and value == int(value) and self.first <= value <= self.last:
            return int(value)
        return None

    def at(self, position: float) -> int:
        """The integer there: each has its share of the scale, from half below to half above it."""
        low, high = self._ends
        return min(max(round(math.exp(low + position * (high - low))), self.first), self.last)

    def position(self, coordinate: Coordinate) -> float:
        """Where it is on the scale."""
        low, high = self._ends
        return (math.log(coordinate) - low) / (high - low)

    @cached_property
    def _ends(self) -> tuple[float, float]:
        return math.log(self.first - 0.5), math.log(self.last + 0.5)


@dataclass(frozen=True)
class Choices(Counted):
    """Listed values of any JSON type. The coordinate is the place in the list."""

    values: tuple[Any, ...]

    @property
    def expects(self) -> str:
        """The first few values."""
        shown = ", ".join(json.dumps(value) for value in self.values[:_SHOWN])
        return f"one of {shown}" + (f" and {self.size - _SHOWN} others" if self.size > _SHOWN else "")

    @cached_property
    def _places(self) -> dict[str, int]:
        return {canonical(self.name, value): i for i, value in enumerate(self.values)}

    def value(self, coordinate: Coordinate) -> Any:
        """The value at a place."""
        return self.values[int(coordinate)]

    def _find(self, value: Any) -> int | None:
        return self._places.get(canonical(self.name, value))


def decimal(value: float) -> Decimal:
    """The number as it is written: 0.1 is one tenth."""
    return Decimal(repr(value))


def canonical(name: str, value: Any) -> str:
    """A text that two values share when they are the same value of this hyperparameter."""
    if hp.value_problem(name, value) is None:
        value = hp.canonical_value(name, value)
    return json.dumps(_numbers(value), sort_keys=True)


def _numbers(value: Any) -> Any:
    """The value with every number in one spelling: 8.0 is 8, and 12 digits count."""
    match value:
        case bool() | str() | None:
            return value
        case float() if math.isfinite(value):
            number = value if value.is_integer() else rounded(value)
            return int(number) if number.is_integer() else number
        case list() | tuple():
            return [_numbers(item) for item in value]
        case dict():
            return {key: _numbers(item) for key, item in value.items()}
        case _:
            return value
