"""Every cell of a finite space once, in a seeded order, with the trials to ask first in front."""

from collections.abc import Mapping, Sequence
from itertools import chain
from random import Random

from crossfold_operator.search.dimensions import Coordinate
from crossfold_operator.search.permutation import permuted, place_of
from crossfold_operator.search.space import Point, Space

Pins = Mapping[int, Coordinate]
"""Coordinates that are given, by the dimension's place in the space."""
_TRIES = 1000
"""Draws of the coordinates that an initial trial leaves open before any cell will do."""


def cell(space: Space, seed: int, initial: Sequence[Pins], number: int) -> Point | None:
    """The cell of a trial, whatever became of the others; None beyond the last one.

    Raises:
        ValueError: the space is not finite.
    """
    if space.size is None:
        raise ValueError("algorithm Grid needs every parameter to be Categorical or to have a step")
    if number >= space.size:
        return None
    first = _initial_cells(space, space.size, seed, initial)
    if number < len(first):
        return space.at(first[number])
    place = number - len(first)
    # The place counts cells that are not asked first: step over those before it.
    for taken in sorted(place_of(index, space.size, seed) for index in first):
        if taken > place:
            break
        place += 1
    return space.at(permuted(place, space.size, seed))


def _initial_cells(space: Space, size: int, seed: int, initial: Sequence[Pins]) -> list[int]:
    """The cells of the initial trials, all different."""
    cells: list[int] = []
    for i, pins in enumerate(initial[:size]):
        rng = Random(f"{seed}/{i}")
        drawn = (space.index(pinned(space.draw(rng), pins)) for _ in range(_TRIES))
        anywhere = (permuted(place, size, seed) for place in range(size))
        cells.append(next(index for index in chain(drawn, anywhere) if index not in cells))
    return cells


def pinned(point: Point, pins: Pins) -> Point:
    """The point with the given coordinates in their places."""
    return tuple(pins.get(i, coordinate) for i, coordinate in enumerate(point))
