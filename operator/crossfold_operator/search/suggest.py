"""Several trials at a time: the question, and its answer. Pure but for the time that it takes."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from crossfold_operator.api.algorithm import AlgorithmSpec
from crossfold_operator.api.parameters import InitialTrial, ParameterSpec
from crossfold_operator.search.history import Trial, TrialState
from crossfold_operator.search.sampler import ask
from crossfold_trainer.contract.metrics import Direction


@dataclass(frozen=True)
class SearchSettings:
    """What a Tune's spec says of its search.

    Attributes:
        parameters: the search space.
        algorithm: how to choose, and the seed.
        direction: which scores are better.
        initial: what the first trials are given.
    """

    parameters: tuple[ParameterSpec, ...]
    algorithm: AlgorithmSpec
    direction: Direction
    initial: tuple[InitialTrial, ...] = ()


@dataclass(frozen=True)
class Answer:
    """Parameters of trials with consecutive numbers.

    Attributes:
        points: the parameters, by canonical name.
        exhausted: after these the space has no further point.
    """

    points: tuple[Mapping[str, Any], ...]
    exhausted: bool = False


def suggest(  # noqa: PLR0917 -- as ask
    settings: SearchSettings,
    told: Sequence[Trial],
    first: int,
    count: int,
    seconds: float,
    clock: Callable[[], float] = time.monotonic,
) -> Answer:
    """Ask for trials, one after the other. Each counts as running for those after it.

    Args:
        settings: of the search.
        told: the trials so far, and those of other Tunes.
        first: number of the first trial.
        count: trials to ask for, from 1.
        seconds: after which no further one is asked for. The first is asked for whatever it takes.
        clock: for these seconds.
    """
    known = list(told)
    points: list[Mapping[str, Any]] = []
    end = clock() + seconds
    for number in range(first, first + count):
        if points and clock() >= end:
            break
        point = ask(
            settings.parameters, settings.algorithm, settings.direction, known, number, initial=settings.initial
        )
        if point is None:
            return Answer(tuple(points), exhausted=True)
        points.append(point)
        known.append(Trial(number, point, TrialState.RUNNING))
    return Answer(tuple(points))
