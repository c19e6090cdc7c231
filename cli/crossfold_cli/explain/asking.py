"""Why a trial has its parameters: the question is asked once more, with what was known then. Pure."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from crossfold_cli.explain.past import Past, Seen, known_at
from crossfold_operator.api.tune import AlgorithmName
from crossfold_operator.names import CrossValidationPhase
from crossfold_operator.observe.trials import Trial
from crossfold_operator.plan.tune import history
from crossfold_operator.search.sampler import ask, sampler_name
from crossfold_operator.search.space import space_of
from crossfold_trainer.contract.scoring import better, score_direction

STARTUP = 10
"""Trials with a score before TPE's model is asked."""
_GOOD_SHARE = 0.1
_MOST_GOOD = 25
"""Share and greatest number of the trials that TPE models as good (Optuna's default_gamma)."""
_TELLING = (CrossValidationPhase.COMPLETE, CrossValidationPhase.PRUNED, CrossValidationPhase.UNSTABLE)


@dataclass(frozen=True)
class Asking:
    """How the parameters of a trial came about.

    Attributes:
        sampler: what chose them, with its version.
        how: in what phase it was, in a sentence.
        informed_by: numbers of the ended trials that the sampler learned from.
        running: numbers of the trials that were under way.
        good: numbers of the trials that the sampler held to be good, best first (TPE's model).
        best: number and score of the best complete trial then.
        reproduced: whether the sampler, asked once more with this history, chooses the same; None where it cannot be.
    """

    sampler: str
    how: str
    informed_by: tuple[int, ...] = ()
    running: tuple[int, ...] = ()
    good: tuple[int, ...] = ()
    best: tuple[int, float] | None = None
    reproduced: bool | None = None


def asking(past: Past, seen: Seen) -> Asking:
    """Ask for a trial's parameters once more.

    Of several histories that its times allow, the one counts that leads to what it got.
    """
    answers = known_at(past, seen.trial.number)
    chosen, reproduced = answers[0], False
    for known in answers:
        if _replayed(past, seen.trial, known):
            chosen, reproduced = known, True
            break
    telling = _telling(past, chosen)
    algorithm = past.spec.algorithm.name
    order = ranked(past, chosen)
    modelled = algorithm is AlgorithmName.TPE and len(telling) >= STARTUP
    running = tuple(trial.number for trial in chosen if not trial.terminal)
    good = min(_MOST_GOOD, math.ceil(_GOOD_SHARE * (len(telling) + len(running)))) if modelled else 0
    learns = algorithm is AlgorithmName.TPE
    return Asking(
        sampler=sampler_name(past.spec.algorithm),
        how=_how(past, seen.trial.number, len(telling)),
        informed_by=tuple(trial.number for trial in telling) if modelled else (),
        running=running if learns else (),
        good=tuple(trial.number for trial in order[:good]),
        best=(order[0].number, order[0].score or 0.0) if order else None,
        reproduced=reproduced,
    )


def _replayed(past: Past, trial: Trial, known: Sequence[Trial]) -> bool:
    """Whether the sampler chooses what the trial has."""
    spec = past.spec
    told = history(known, trial.number)
    answer = ask(spec.parameters, spec.algorithm, score_direction(spec.objective), told, trial.number)
    space = space_of(spec.parameters)
    return answer is not None and space.point(answer) == space.point(trial.parameters)


def _telling(past: Past, known: Sequence[Trial]) -> list[Trial]:
    """The ended trials that say something of their parameters."""
    space = space_of(past.spec.parameters)
    return [trial for trial in known if trial.phase in _TELLING and space.point(trial.parameters) is not None]


def ranked(past: Past, known: Sequence[Trial]) -> list[Trial]:
    """The complete trials, best first; of equal ones the older first."""
    complete = [t for t in known if t.phase is CrossValidationPhase.COMPLETE and t.score is not None]
    sign = -1 if better(1, 0, score_direction(past.spec.objective)) else 1
    return sorted(complete, key=lambda trial: (sign * (trial.score or 0.0), trial.number))


def _how(past: Past, number: int, telling: int) -> str:
    algorithm = past.spec.algorithm
    match algorithm.name:
        case AlgorithmName.TPE if telling < STARTUP:
            return f"at random: the model needs {STARTUP} ended trials to learn from, and had {telling}"
        case AlgorithmName.TPE:
            return f"by the model, which {telling} ended trials informed"
        case AlgorithmName.RANDOM:
            return f"at random, by the seed {algorithm.seed} and the trial's number alone"
        case AlgorithmName.GRID:
            size = space_of(past.spec.parameters).size
            return f"cell {number + 1} of {size} in the order of the seed {algorithm.seed}, whatever the others scored"
