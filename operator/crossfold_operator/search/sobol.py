"""Points that are spread evenly: a scrambled Sobol sequence, one point of which is one trial."""

import warnings
from collections.abc import Iterator

import numpy as np
from scipy.stats import qmc

from crossfold_operator.search.question import Question
from crossfold_operator.search.space import Point

_BLOCK = 32
_TRIES = 512
"""Points of the sequence to propose."""


def proposals(question: Question) -> Iterator[Point]:
    """The points of the sequence from the question's place on."""
    dimensions, seed = question.space.dimensions, question.algorithm.seed
    for start in range(question.place, question.place + _TRIES, _BLOCK):
        for positions in positions_of(len(dimensions), seed, start, _BLOCK):
            yield tuple(d.at(float(p)) for d, p in zip(dimensions, positions, strict=True))


def positions_of(dimensions: int, seed: int, start: int, count: int) -> np.ndarray:
    """Part of a scrambled Sobol sequence.

    Returns:
        ``(count, dimensions)`` float64 in [0, 1).
    """
    engine = qmc.Sobol(dimensions, scramble=True, rng=seed)
    if start:
        engine.fast_forward(start)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # a block may have any size: the sequence is what is balanced
        points: np.ndarray = engine.random(count)
    return points
