"""Why a trial has its parameters: the question is asked once more, with what was known then. Pure."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import assert_never

from crossfold_cli.explain.past import Past, Seen, known_at
from crossfold_operator.api.algorithm import SETTINGS, AlgorithmName
from crossfold_operator.observe.trials import Trial
from crossfold_operator.plan.ranking import ranking
from crossfold_operator.plan.tune import history
from crossfold_operator.search.history import Trial as Told
from crossfold_operator.search.history import TrialState
from crossfold_operator.search.sampler import ask, sampler_name
from crossfold_operator.search.space import space_of
from crossfold_trainer.contract.scoring import score_direction

STARTUP = int(SETTINGS[AlgorithmName.TPE]["startupTrials"].default or 0)
"""Trials that say something before TPE's model is asked, where the Tune does not set it."""
_LEARNING = (AlgorithmName.TPE, AlgorithmName.CMAES, AlgorithmName.GP)
_GOOD_SHARE = 0.1
_MOST_GOOD = 25
"""Share and greatest number of the trials that TPE models as good (Optuna's default_gamma)."""
_TELLING = (TrialState.COMPLETE, TrialState.PRUNED, TrialState.UNSTABLE)


@dataclass(frozen=True)
class Asking:
    """How the parameters of a trial came about.

    Attributes:
        sampler: what chose them, with its version.
        how: in what phase it was, in a sentence.
        informed_by: numbers of the ended trials that the sampler learned from.
        started_from: trials of other Tunes that it was told of: ``tune/number``.
        running: numbers of the trials that were under way, where the sampler minds them.
        good: numbers of the trials that the sampler held to be good, best first (TPE's model).
        best: number and score of the best complete trial then.
        reproduced: whether the sampler, asked once more with this history, chooses the same; None where trials of
            other Tunes may have informed it.
    """

    sampler: str
    how: str
    informed_by: tuple[int, ...] = ()
    started_from: tuple[str, ...] = ()
    running: tuple[int, ...] = ()
    good: tuple[int, ...] = ()
    best: tuple[int, float] | None = None
    reproduced: bool | None = False


def asking(past: Past, seen: Seen) -> Asking:
    """Ask for a trial's parameters once more.

    Of several histories that its times allow, the one counts that leads to what it got.
    """
    number, name = seen.trial.number, past.spec.algorithm.name
    answers = known_at(past, number)
    known = next((answer for answer in answers if _replayed(past, seen.trial, answer)), None)
    chosen = answers[0] if known is None else known
    told = history(chosen, number, past.spec.retries.out_of_memory)
    telling = _telling(past, told)
    foreign = [f"{trial.source}/{trial.number}" for trial in past.start]
    order = ranking(past.spec.objective, chosen)
    modelled = name in _LEARNING and len(telling) + len(foreign) >= _startup(past)
    running = tuple(trial.number for trial in told if trial.state is TrialState.RUNNING)
    good = min(_MOST_GOOD, math.ceil(_GOOD_SHARE * (len(telling) + len(running))))
    return Asking(
        sampler=sampler_name(past.spec.algorithm.name),
        how=_how(past, number, len(telling) + len(foreign)),
        started_from=tuple(foreign),
        informed_by=tuple(telling) if modelled else (),
        running=running if name in _LEARNING else (),
        good=tuple(trial.number for trial in order[:good]) if modelled and name is AlgorithmName.TPE else (),
        best=(order[0].number, order[0].score or 0.0) if order else None,
        reproduced=None if known is None and past.spec.warm_start else known is not None,
    )


def _replayed(past: Past, trial: Trial, known: Sequence[Trial]) -> bool:
    """Whether the sampler chooses what the trial has."""
    spec = past.spec
    told = [*past.start, *history(known, trial.number, spec.retries.out_of_memory)]
    direction = score_direction(spec.objective)
    answer = ask(spec.parameters, spec.algorithm, direction, told, trial.number, initial=spec.initial_trials)
    space = space_of(spec.parameters)
    return answer is not None and space.point(answer) == space.point(trial.parameters)


def _telling(past: Past, told: Sequence[Told]) -> list[int]:
    """Numbers of the ended trials that say something of their parameters."""
    space = space_of(past.spec.parameters)
    # A Gaussian process of scores learns nothing from what has none; where points fit is learned by another one.
    scored = past.spec.algorithm.name is AlgorithmName.GP
    telling = _TELLING if scored else (*_TELLING, TrialState.INFEASIBLE)
    return [trial.number for trial in told if trial.state in telling and space.point(trial.parameters) is not None]


def _startup(past: Past) -> int:
    """Trials that say something before the model is asked."""
    match past.spec.algorithm.name:
        case AlgorithmName.TPE | AlgorithmName.GP:
            return int(past.spec.algorithm.setting("startupTrials") or 0)
        case _:
            return 1


def _how(past: Past, number: int, telling: int) -> str:
    algorithm = past.spec.algorithm
    if number < len(past.spec.initial_trials):
        return f"as spec.initialTrials[{number}] says, which are asked first; what it leaves open was chosen"
    match algorithm.name:
        case AlgorithmName.TPE if telling < _startup(past):
            return f"at random: the model needs {_startup(past)} ended trials to learn from, and had {telling}"
        case AlgorithmName.GP if telling < _startup(past):
            needed = _startup(past)
            return f"from a Sobol sequence: the model needs {needed} ended trials to learn from, and had {telling}"
        case AlgorithmName.TPE | AlgorithmName.GP:
            return f"by the model, which {telling} ended trials informed"
        case AlgorithmName.CMAES:
            return f"from the generation that {telling} ended trials led to"
        case AlgorithmName.SOBOL:
            return f"the next point of the Sobol sequence of the seed {algorithm.seed}, whatever the others scored"
        case AlgorithmName.RANDOM:
            return f"at random, by the seed {algorithm.seed} and the trial's number alone"
        case AlgorithmName.GRID:
            size = space_of(past.spec.parameters).size
            return f"cell {number + 1} of {size} in the order of the seed {algorithm.seed}, whatever the others scored"
        case _:
            assert_never(algorithm.name)
