"""A whole look at a Tune's plan, with a sampler that answers at once."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from crossfold_operator.api.tune import TuneSpec, WallClock
from crossfold_operator.observe.finished import Trials
from crossfold_operator.observe.trials import Trial
from crossfold_operator.plan.spending import Spent
from crossfold_operator.plan.tune import Audit, NewRun, NewTrial, Stop, Suggestions, decide, fill, free_slots, history
from crossfold_operator.plan.verdict import Judgement, Verdict, failure, halt
from crossfold_operator.plan.verdict import verdict as verdict_of
from crossfold_operator.search.history import Trial as SearchTrial
from crossfold_operator.search.history import TrialState

Ask = Callable[[Sequence[SearchTrial], int], dict[str, Any] | None]


@dataclass(frozen=True)
class TunePlan:
    """What should be that is not."""

    stops: tuple[Stop, ...]
    audits: tuple[Audit, ...]
    runs: tuple[NewRun, ...]
    trials: tuple[NewTrial, ...]
    exhausted: bool


def judgement(spec: TuneSpec, trials: Sequence[Trial], asked: int, spent: Spent) -> Judgement:
    """A judgement of a Tune that has spent so much."""
    finished = Trials.of(trials).finished
    return Judgement(finished, WallClock(), spent, failure(spec, trials, asked), halt(spec, trials, spent))


def verdict(spec: TuneSpec, trials: Sequence[Trial], asked: int, spent: Spent, *, exhausted: bool) -> Verdict | None:
    """Whether a Tune is over, and why."""
    return verdict_of(spec, trials, asked, judgement(spec, trials, asked, spent), exhausted=exhausted)


def plan(spec: TuneSpec, trials: Sequence[Trial], asked: int, ask: Ask, *, spent: Spent, now: datetime) -> TunePlan:
    """Decide, and fill the slots with what the sampler says."""
    decided = decide(spec, trials, judgement(spec, trials, asked, spent), now)
    free = free_slots(spec, decided.trials) if decided.starting else 0
    found = fill(spec, decided.trials, asked, free, Suggestions())
    if found.wanted:
        told = history(decided.trials, asked, spec.retries.out_of_memory)
        points: list[dict[str, Any]] = []
        for number in range(asked, asked + found.wanted):
            point = ask(list(told), number)
            if point is None:
                break
            points.append(point)
            told.append(SearchTrial(number, point, TrialState.RUNNING))
        suggestions = Suggestions(tuple(points), exhausted=len(points) < found.wanted)
        found = fill(spec, decided.trials, asked, free, suggestions)
    return TunePlan(decided.stops, decided.audits, found.runs, found.trials, found.exhausted)
