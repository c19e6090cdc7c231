"""Which parameters a trial gets: one pure question and its answer.

The answer depends on nothing but the arguments. A study is rebuilt for every question and thrown away after it: the
trials are the only record, and whoever restarts asks as if nothing had happened.
"""

from collections.abc import Iterator, Sequence
from hashlib import sha256
from itertools import islice
from random import Random
from typing import Any, assert_never

from crossfold_operator.api.parameters import ParameterSpec
from crossfold_operator.api.tune import AlgorithmName, AlgorithmSpec
from crossfold_operator.search.history import Trial
from crossfold_operator.search.permutation import permuted
from crossfold_operator.search.space import Point, Space, space_of
from crossfold_trainer.contract.metrics import Direction

_TRIES = 6
"""Points that a sampler may propose before any unused point will do."""
_CONTINUOUS_TRIES = 10_000
"""Draws from a space with a continuous range that may all have been used before it counts as exhausted."""


def ask(
    parameters: Sequence[ParameterSpec],
    algorithm: AlgorithmSpec,
    direction: Direction,
    history: Sequence[Trial],
    number: int,
) -> dict[str, Any] | None:
    """The parameters of the next trial, by canonical name.

    No point is given out twice while the space has another one. Under Grid, trial ``number`` has the same cell whatever
    became of the others.

    Args:
        parameters: the search space, free of ``value_problems``.
        algorithm: how to choose, and the seed.
        direction: which scores are better.
        history: the trials so far, in any order; what does not fit the space is passed over.
        number: the trial's index; with the seed it decides all that is random.

    Returns:
        The parameters, or None when the space has no further point.
    """
    space = space_of(parameters)
    if algorithm.name is AlgorithmName.GRID:
        if space.size is None:
            raise ValueError("algorithm Grid needs every parameter to be Categorical, Int or to have a step")
        if number >= space.size:
            return None
        return space.parameters(space.at(permuted(number, space.size, algorithm.seed)))

    seed = int.from_bytes(sha256(f"{algorithm.seed}/{number}".encode()).digest()[:4])
    known = [
        (trial, point)
        for trial in sorted(history, key=lambda trial: trial.number)
        if (point := space.point(trial.parameters)) is not None
    ]
    used = {point for _, point in known}
    if space.size is not None and len(used) >= space.size:
        return None
    rng = Random(seed)
    proposals: Iterator[Point]
    match algorithm.name:
        case AlgorithmName.TPE:
            from crossfold_operator.search import tpe  # noqa: PLC0415 -- Optuna takes long to import

            proposals = (
                # The sampler works with more digits than two points may differ in.
                _canonical(space, point)
                for point in tpe.proposals(space, direction, known, seed)
            )
        case AlgorithmName.RANDOM:
            proposals = iter(lambda: space.draw(rng), None)
        case _:
            assert_never(algorithm.name)
    point = next((point for point in islice(proposals, _TRIES) if point not in used), None)
    if point is None:
        point = _unused(space, used, rng)
    return None if point is None else space.parameters(point)


def sampler_name(algorithm: AlgorithmSpec) -> str:
    """What chooses the parameters, with the version where it matters."""
    if algorithm.name is AlgorithmName.TPE:
        from crossfold_operator.search import tpe  # noqa: PLC0415 -- as above

        return f"{algorithm.name} (Optuna {tpe.version()})"
    return str(algorithm.name)


def _canonical(space: Space, point: Point) -> Point:
    canonical = space.point(space.parameters(point))
    return point if canonical is None else canonical


def _unused(space: Space, used: set[Point], rng: Random) -> Point | None:
    """A point that nobody has, each with the same probability."""
    if space.size is None:
        draws = (space.draw(rng) for _ in range(_CONTINUOUS_TRIES))
        return next((point for point in draws if point not in used), None)
    index = rng.randrange(space.size - len(used))
    # The index counts unused points only: step over the used ones before it.
    for taken in sorted(space.index(point) for point in used):
        if taken > index:
            break
        index += 1
    return space.at(index)
