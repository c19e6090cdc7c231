"""Which parameters a trial gets: one pure question and its answer.

The answer depends on nothing but the arguments. What is kept between two questions is a cache: the trials are the only
record, and whoever restarts asks as if nothing had happened.
"""

import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from hashlib import sha256
from importlib.metadata import version
from itertools import chain
from operator import attrgetter
from random import Random
from typing import Any, assert_never

from crossfold_operator.api.algorithm import AlgorithmName, AlgorithmSpec
from crossfold_operator.api.parameters import InitialTrial, ParameterSpec
from crossfold_operator.search import grid
from crossfold_operator.search.dimensions import Coordinate
from crossfold_operator.search.history import Trial
from crossfold_operator.search.question import Question
from crossfold_operator.search.space import Point, Space, space_of
from crossfold_trainer.contract import hyperparameters as hp
from crossfold_trainer.contract.metrics import Direction

_DRAWS = 64
"""Points that Random draws before any unused point will do."""
_CONTINUOUS_TRIES = 10_000
"""Draws from a space with a continuous range that may all have been used before it counts as exhausted."""


def ask(
    parameters: Sequence[ParameterSpec],
    algorithm: AlgorithmSpec,
    direction: Direction,
    history: Sequence[Trial],
    number: int,
    *,
    initial: Sequence[InitialTrial] = (),
) -> dict[str, Any] | None:
    """The parameters of the next trial, by canonical name.

    No point is given out twice while the space has another one; those of other Tunes' trials may be. Under Grid, trial
    ``number`` has the same cell whatever became of the others.

    Args:
        parameters: the search space, free of ``search_problems``.
        algorithm: how to choose, and the seed.
        direction: which scores are better.
        history: the trials so far, in any order, and those of other Tunes to start from; what does not fit the space is
            passed over.
        number: the trial's index; with the seed it decides all that is random.
        initial: what the first trials are given.

    Returns:
        The parameters, or None when the space has no further point.
    """
    space = _space(json.dumps([parameter.model_dump(mode="json") for parameter in parameters]))
    pins = [_pins(space, trial) for trial in initial]
    if algorithm.name is AlgorithmName.GRID:
        cell = grid.cell(space, algorithm.seed, pins, number)
        return None if cell is None else space.parameters(cell)

    foreign = sorted((trial for trial in history if trial.source), key=attrgetter("source", "number"))
    own = sorted((trial for trial in history if not trial.source), key=attrgetter("number"))
    used: set[Point] | None = None
    if space.size is not None and len(own) >= space.size:
        used = _points(space, own)
        if len(used) >= space.size:
            return None
    seed = int.from_bytes(sha256(f"{algorithm.seed}/{number}".encode()).digest()[:4])
    given = pins[number] if number < len(pins) else {}
    if len(given) == len(space.dimensions):
        proposed: Iterator[Point] = iter([tuple(given[i] for i in range(len(given)))])
    else:
        place = max(number - len(pins), 0)
        proposed = _proposals(Question(space, algorithm, direction, foreign + own, place, seed))
    for proposal in proposed:
        # Samplers work with more digits than two points may differ in.
        point = _canonical(space, grid.pinned(proposal, given))
        if not (point in used if used is not None else space.has(own, point)):
            return space.parameters(point)
    point_left = _unused(space, _points(space, own) if used is None else used, Random(seed), given)
    return None if point_left is None else space.parameters(point_left)


def _proposals(question: Question) -> Iterator[Point]:
    """What the algorithm would choose, best first. Its packages take long to import, and are when they are needed."""
    match question.algorithm.name:
        case AlgorithmName.TPE:
            from crossfold_operator.search import tpe  # noqa: PLC0415

            return tpe.proposals(question)
        case AlgorithmName.CMAES:
            from crossfold_operator.search import cma_es  # noqa: PLC0415

            return cma_es.proposals(question)
        case AlgorithmName.GP:
            from crossfold_operator.search import gp  # noqa: PLC0415

            return gp.proposals(question)
        case AlgorithmName.SOBOL:
            from crossfold_operator.search import sobol  # noqa: PLC0415

            return sobol.proposals(question)
        case AlgorithmName.RANDOM | AlgorithmName.GRID:
            rng = Random(question.seed)
            return (question.space.draw(rng) for _ in range(_DRAWS))
        case _:
            assert_never(question.algorithm.name)


@lru_cache(maxsize=16)
def sampler_name(name: AlgorithmName) -> str:
    """What chooses the parameters, with the version of the package that decides. It need not be imported for that."""
    match name:
        case AlgorithmName.TPE:
            return f"TPE (Optuna {version('optuna')})"
        case AlgorithmName.CMAES:
            return f"CMAES (cmaes {version('cmaes')})"
        case AlgorithmName.GP:
            return f"GP (SciPy {version('scipy')})"
        case AlgorithmName.SOBOL:
            return f"Sobol (SciPy {version('scipy')})"
        case AlgorithmName.RANDOM | AlgorithmName.GRID:
            return str(name)
        case _:
            assert_never(name)


def forget() -> None:
    """Drop what is kept between two questions, as a restart does; no answer depends on it."""
    _space.cache_clear()
    if cma_es := sys.modules.get("crossfold_operator.search.cma_es"):
        cma_es.forget()


@lru_cache(maxsize=64)
def _space(parameters: str) -> Space:
    """The space of parameters in JSON: one for all questions of a Tune, since it remembers coordinates."""
    return space_of([ParameterSpec.model_validate(parameter) for parameter in json.loads(parameters)])


def _pins(space: Space, trial: InitialTrial) -> Mapping[int, Coordinate]:
    """The coordinates that an initial trial is given, by the dimension's place; what does not fit is left open."""
    values = {hp.canonical_name(item.name): item.value for item in trial.parameters}
    found = {i: d.coordinate(values[d.name]) for i, d in enumerate(space.dimensions) if d.name in values}
    return {i: coordinate for i, coordinate in found.items() if coordinate is not None}


def _points(space: Space, trials: Sequence[Trial]) -> set[Point]:
    return {point for trial in trials if (point := space.point(trial.parameters)) is not None}


def _canonical(space: Space, point: Point) -> Point:
    canonical = space.point(space.parameters(point))
    return point if canonical is None else canonical


def _unused(space: Space, used: set[Point], rng: Random, pins: Mapping[int, Coordinate]) -> Point | None:
    """A point that nobody has, with the given coordinates as long as there is one; each with the same probability."""
    pinned = (_canonical(space, grid.pinned(space.draw(rng), pins)) for _ in range(_CONTINUOUS_TRIES if pins else 0))
    if space.size is None:
        draws = (_canonical(space, space.draw(rng)) for _ in range(_CONTINUOUS_TRIES))
        return next((point for point in chain(pinned, draws) if point not in used), None)
    if found := next((point for point in pinned if point not in used), None):
        return found
    index = rng.randrange(space.size - len(used))
    # The index counts unused points only: step over the used ones before it.
    for taken in sorted(space.index(point) for point in used):
        if taken > index:
            break
        index += 1
    return space.at(index)
