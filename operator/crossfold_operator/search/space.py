"""The search space: all its dimensions together, and the points in it."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from random import Random
from typing import Any, assert_never

from crossfold_operator.api.parameters import ParameterSpec, ParameterType, Scale
from crossfold_operator.search.dimensions import (
    Choices,
    Coordinate,
    Dimension,
    LogIntegers,
    Range,
    ReverseRange,
    Steps,
    decimal,
)
from crossfold_operator.search.history import Trial
from crossfold_trainer.contract import hyperparameters as hp

_NUMBER = (float, int)
_ALIKE = 1e-9
"""Relative difference beyond which two numbers surely differ in the digits that count."""

Point = tuple[Coordinate, ...]
"""One coordinate a dimension. Two points are the same when their coordinates are."""


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

    def has(self, trials: Iterable[Trial], point: Point) -> bool:
        """Whether one of the trials is at a point: as ``point`` says, without reckoning all of every trial."""
        dimension, coordinate = self.dimensions[self._sharpest], point[self._sharpest]
        name = dimension.name
        # Almost every trial differs here; one without a value may have it under another spelling of the name.
        if dimension.size is None:
            near = dimension.value(coordinate)
            low, high = sorted((near * (1 - _ALIKE), near * (1 + _ALIKE)))
            alike = [
                t for t in trials if not isinstance(value := t.parameters.get(name), _NUMBER) or low <= value <= high
            ]
        else:
            alike = [
                t
                for t in trials
                if (value := t.parameters.get(name)) is None or dimension.coordinate(value) == coordinate
            ]
        return any(self.point(trial.parameters) == point for trial in alike)

    @cached_property
    def _sharpest(self) -> int:
        """The place of the dimension in which two points are least likely to agree."""
        return max(range(len(self.dimensions)), key=lambda i: self.dimensions[i].size or math.inf)

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
        return tuple(dimension.at(rng.random()) for dimension in self.dimensions)


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
    if spec.scale is Scale.REVERSE_LOG:
        if spec.type is not ParameterType.FLOAT or spec.max >= 1 or spec.step is not None:
            raise ValueError(f"parameter '{name}' has scale ReverseLog, is no Float with max below 1, or has a step")
        nearest, farthest = (float(1 - decimal(bound)) for bound in (spec.max, spec.min))
        return ReverseRange(name, first=nearest, last=farthest, log=True, low=spec.min, high=spec.max)
    match spec.type:
        case ParameterType.FLOAT if spec.step is None:
            return Range(name, first=spec.min, last=spec.max, log=log)
        case ParameterType.INT if log:
            return LogIntegers(name, first=int(spec.min), last=int(spec.max), log=True)
        case ParameterType.FLOAT | ParameterType.INT:
            low, step = decimal(spec.min), decimal(spec.step or 1)
            last = int((decimal(spec.max) - low) // step)
            return Steps(name, 0, last, log=False, low=low, step=step, whole=spec.type is ParameterType.INT)
        case _:
            assert_never(spec.type)
