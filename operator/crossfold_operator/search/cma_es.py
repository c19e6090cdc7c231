"""The next point by CMA-ES: numeric parameters evolve, one generation after the other; categorical ones are random.

The optimizer's state follows from the trials alone: they are told in their order, a generation at a time. (Optuna's
wrapper keeps the state in attributes of its trials, which would have to be stored somewhere.)
"""

import copy
import math
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from random import Random

import numpy as np
from cmaes import CMA, get_warm_start_mgd

from crossfold_operator.search.dimensions import Choices, Dimension
from crossfold_operator.search.history import Trial, TrialState
from crossfold_operator.search.question import Question
from crossfold_operator.search.space import Point
from crossfold_operator.search.told import effective, loss_of

_TRIES = 64
"""Points to propose."""
_KEPT = 16
"""Optimizers that are kept, of as many Tunes, so that a question costs what changed since the last one."""
_TOP = 0.1
"""Share of the trials of other Tunes that the first generation is drawn around."""
_WIDEST = 0.5
"""Greatest first standard deviation that those trials may ask for, as a share of each range."""

Solution = tuple[tuple[float, ...], float]
"""Positions of the numeric parameters, each in [0, 1], and the loss."""


def proposals(question: Question) -> Iterator[Point]:
    """Points of the current generation, in a space with a numeric dimension at least."""
    space = question.space
    optimizer = copy.deepcopy(_evolved(question))
    optimizer.reseed_rng(question.seed)
    rng = Random(question.seed)
    for _ in range(_TRIES):
        positions = iter(optimizer.ask())
        yield tuple(d.at(float(next(positions)) if _numeric(d) else rng.random()) for d in space.dimensions)


def forget() -> None:
    """Drop the optimizers that are kept."""
    _paths.clear()


def _numeric(dimension: Dimension) -> bool:
    return not isinstance(dimension, Choices)


@dataclass(frozen=True)
class _Teller:
    """Turns trials into solutions, one after the other.

    A pruned trial counts with the mean that it was predicted to reach; an unstable or infeasible one with the worst
    loss before it (of a loss the optimizer knows the rank alone), or not at all when there is none.
    Nothing that comes later changes what was told, so that a generation once closed stays as it is.

    Attributes:
        question: the space and the direction.
        worst: loss so far; None before the first one.
    """

    question: Question
    worst: float | None = None

    def solution(self, trial: Trial) -> Solution | None:
        """What a trial says; None when it says nothing or does not fit the space."""
        state = effective(trial)
        if state in (TrialState.FAILED, TrialState.STOPPED, TrialState.DELETED):
            return None
        dimensions = self.question.space.dimensions
        point = self.question.space.point(trial.parameters)
        if point is None:
            return None
        unstable = state in (TrialState.UNSTABLE, TrialState.INFEASIBLE) or trial.value is None
        loss = self.worst if unstable else loss_of(trial.value or 0.0, self.question.direction)
        if loss is None:
            return None
        return tuple(d.position(c) for d, c in zip(dimensions, point, strict=True) if _numeric(d)), loss

    def after(self, loss: float) -> "_Teller":
        """The teller that has seen a loss."""
        return _Teller(self.question, loss if self.worst is None else max(self.worst, loss))


def _tell_all(teller: _Teller, trials: Sequence[Trial]) -> list[Solution]:
    found: list[Solution] = []
    for trial in trials:
        if (solution := teller.solution(trial)) is not None:
            found.append(solution)
            teller = teller.after(solution[1])
    return found


@dataclass(frozen=True)
class _Start:
    """What an optimizer starts from.

    Attributes:
        dimensions: how many.
        population: trials of a generation; 0: it follows from the dimensions.
        sigma: first standard deviation, as a share of each range.
        seed: of the restarts.
        source: trials of other Tunes.
    """

    dimensions: int
    population: int
    sigma: float
    seed: int
    source: tuple[Solution, ...]

    def optimizer(self, restart: int) -> CMA:
        """A new one: in the middle or where other Tunes had good trials; after a restart, at a random place."""
        mean, sigma, cov = np.full(self.dimensions, 0.5), self.sigma, None
        if restart:
            mean = np.random.default_rng([self.seed, restart]).random(self.dimensions)
        elif self.source:
            share = max(_TOP, 1 / len(self.source))
            # Nomura et al., Warm Starting CMA-ES for Hyperparameter Optimization, AAAI 2021.
            mean, sigma, cov = get_warm_start_mgd([(np.array(x), loss) for x, loss in self.source], gamma=share)
            sigma = min(sigma, _WIDEST)
        return CMA(
            mean=mean,
            sigma=sigma,
            cov=cov,
            bounds=np.tile([0.0, 1.0], (self.dimensions, 1)),
            population_size=self.population or 4 + math.floor(3 * math.log(self.dimensions)),
            seed=0,
        )


@dataclass
class _Path:
    """How far an optimizer was told, and where that led it.

    Attributes:
        optimizer: after the generations that are closed.
        trials: all up to the end of the last of them.
        worst: the worst loss of them.
        restarts: of the optimizer.
    """

    optimizer: CMA
    trials: list[Trial] = field(default_factory=list)
    worst: float | None = None
    restarts: int = 0


_paths: "OrderedDict[tuple[str, _Start], _Path]" = OrderedDict()
"""A cache: what is not in it is reckoned anew from the trials."""


def _evolved(question: Question) -> CMA:
    """The optimizer after all generations that are closed.

    A generation takes the next trials that say something. One that runs holds it open: it may still say something.
    """
    algorithm = question.algorithm
    own = [trial for trial in question.trials if not trial.source]
    foreign = [trial for trial in question.trials if trial.source]
    start = _Start(
        dimensions=sum(_numeric(dimension) for dimension in question.space.dimensions),
        population=int(algorithm.setting("populationSize") or 0),
        sigma=algorithm.setting("sigma") or 0.0,
        seed=algorithm.seed,
        source=tuple(_tell_all(_Teller(question), foreign)),
    )
    key = (f"{question.direction} {question.space.dimensions}", start)
    path = _paths.pop(key, None)
    if path is None or own[: len(path.trials)] != path.trials:
        path = _Path(start.optimizer(0))
    teller = _Teller(question, path.worst)
    generation: list[Solution] = []
    for i in range(len(path.trials), len(own)):
        if own[i].state is TrialState.RUNNING:
            break
        if (solution := teller.solution(own[i])) is None:
            continue
        generation.append(solution)
        teller = teller.after(solution[1])
        if len(generation) == path.optimizer.population_size:
            path.optimizer.tell([(np.array(x), loss) for x, loss in generation])
            path.trials += own[len(path.trials) : i + 1]
            path.worst = teller.worst
            generation = []
            if path.optimizer.should_stop():
                path.restarts += 1
                path.optimizer = start.optimizer(path.restarts)
    _paths[key] = path
    while len(_paths) > _KEPT:
        _paths.popitem(last=False)
    return path.optimizer
