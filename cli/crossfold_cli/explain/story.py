"""The story of a Tune and of a trial: what was decided, why, by which numbers. Pure: past -> plain values."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from crossfold_cli.explain.asking import Asking, asking
from crossfold_cli.explain.inside import InsideLook, inside
from crossfold_cli.explain.looks import Look, looks
from crossfold_cli.explain.past import Past, Seen, under_way
from crossfold_operator.names import Condition, CrossValidationPhase
from crossfold_operator.observe.runs import Run, finite
from crossfold_operator.observe.trials import Trial
from crossfold_operator.plan.ranking import ranking
from crossfold_operator.plan.tune import history
from crossfold_operator.search.history import digest
from crossfold_operator.status.tune import objective_text
from crossfold_trainer.contract.metrics import Direction
from crossfold_trainer.contract.scoring import better, score_direction


@dataclass(frozen=True)
class RunLine:
    """A run of a trial."""

    fold: int
    seed: int
    phase: str
    score: float | None
    preemptions: int
    message: str


@dataclass(frozen=True)
class Comparison:
    """How a complete trial did against the best one there was when it ended.

    Attributes:
        against: number of that trial; None when there was none.
        its_score: of that trial.
        better_by: how much better this one is, in units of the score; negative: worse.
        units_better: runs of the same fold and seed that are better than that trial's.
        units: runs that both have.
        rank: of this trial among all complete ones now, from 1.
        ranked: complete trials now.
    """

    against: int | None
    its_score: float | None
    better_by: float | None
    units_better: int
    units: int
    rank: int
    ranked: int


@dataclass(frozen=True)
class TrialStory:
    """One trial."""

    tune: str
    trial: int
    name: str
    phase: str
    score: float | None
    std: float | None
    parameters: dict[str, Any]
    asked: datetime
    ended: datetime | None
    asking: Asking
    runs: tuple[RunLine, ...]
    racing: str
    """Why it was not raced; empty where it was."""
    looks: tuple[Look, ...]
    untold: int
    """Runs that nobody knows the end of: the looks that were not written down cannot be taken once more."""
    pruning: str
    """Why its runs were not looked into; empty where they were."""
    inside: tuple[InsideLook, ...]
    comparison: Comparison | None
    outcome: str
    """Why it ended as it did; empty where its phase says all."""


@dataclass(frozen=True)
class Told:
    """A trial in a list."""

    trial: int
    name: str
    score: float | None = None
    why: str = ""


@dataclass(frozen=True)
class TuneStory:
    """A whole search.

    Attributes:
        records: the trials that were the best when they ended, in that order.
        leader: how the best trial compares with the second.
        others: trials that did not complete, by what became of them.
    """

    tune: str
    phase: str
    why: str
    objective: str
    direction: Direction
    """Which scores are better."""
    sampler: str
    history_digest: str
    """Of all that the sampler was told, as the operator wrote it down."""
    history_reproduced: bool
    """Whether the objects still say the same."""
    trials: dict[str, int]
    runs: dict[str, int]
    summary: dict[str, str]
    records: tuple[Told, ...]
    leader: Told | None
    parameters: dict[str, Any]
    comparison: Comparison | None
    others: dict[str, tuple[Told, ...]]


def trial_story(past: Past, seen: Seen) -> TrialStory:
    """The story of one trial."""
    trial = seen.trial
    before = _known_when(past, seen)
    return TrialStory(
        tune=past.name,
        trial=trial.number,
        name=trial.name,
        phase=str(trial.phase),
        score=trial.score,
        std=trial.std,
        parameters=dict(trial.parameters),
        asked=seen.asked,
        ended=seen.ended,
        asking=asking(past, seen),
        runs=tuple(map(_run_line, _in_order(past, seen.runs))),
        racing="" if past.spec.racing.enabled else "racing is off: spec.racing.enabled is false",
        looks=looks(past, seen),
        untold=seen.undated,
        pruning="" if past.spec.pruning.enabled else "pruning is off: spec.pruning.method is None",
        inside=inside(past, seen),
        comparison=_comparison(past, trial, before) if trial.phase is CrossValidationPhase.COMPLETE else None,
        outcome=_outcome(seen),
    )


def tune_story(past: Past) -> TuneStory:
    """The story of the whole search."""
    status = past.status
    order = ranking(past.spec.objective, past.now)
    leader = order[0] if order else None
    told = history(past.now, past.asked, past.spec.retries.out_of_memory)
    return TuneStory(
        tune=past.name,
        phase=str(status.phase),
        why=_why(past),
        objective=objective_text(past.spec.objective),
        direction=score_direction(past.spec.objective),
        sampler=status.search.sampler,
        history_digest=status.search.history_digest,
        history_reproduced=digest([*past.start, *told]) == status.search.history_digest,
        trials=status.trials.model_dump(),
        runs=status.runs.model_dump(),
        summary={name: text for name, text in status.summary.model_dump().items() if text},
        records=tuple(_told(trial) for trial in _records(past)),
        leader=None if leader is None else _told(leader),
        parameters={} if leader is None else dict(leader.parameters),
        comparison=None if leader is None else _comparison(past, leader, order[1:]),
        others=_others(past),
    )


def _known_when(past: Past, seen: Seen) -> list[Trial]:
    """The other trials as they were when this one ended."""
    if seen.ended is None:
        return []
    return [
        other.trial if other.ended is not None and other.ended < seen.ended else under_way(other.trial)
        for other in past.trials
        if other is not seen
    ]


def _comparison(past: Past, trial: Trial, others: Sequence[Trial]) -> Comparison:
    """A complete trial against the best of others."""
    direction = score_direction(past.spec.objective)
    best = next(iter(ranking(past.spec.objective, others)), None)
    order = [other.number for other in ranking(past.spec.objective, past.now)]
    own, theirs = _scores(past, trial), {} if best is None else _scores(past, best)
    both = sorted(set(own) & set(theirs))
    ahead = None
    if best is not None and best.score is not None and trial.score is not None:
        ahead = trial.score - best.score if better(1, 0, direction) else best.score - trial.score
    return Comparison(
        against=None if best is None else best.number,
        its_score=None if best is None else best.score,
        better_by=ahead,
        units_better=sum(better(own[unit], theirs[unit], direction) for unit in both),
        units=len(both),
        rank=order.index(trial.number) + 1,
        ranked=len(order),
    )


def _scores(past: Past, trial: Trial) -> dict[tuple[int, int], float]:
    """Scores of a trial's runs by fold and seed."""
    seen = past.get(trial.number)
    runs = () if seen is None else seen.runs
    return {run.unit: score for run in runs if (score := finite(run.record.score)) is not None}


def _records(past: Past) -> list[Trial]:
    """The trials that were the best when they ended, the first one first."""
    direction = score_direction(past.spec.objective)
    best: float | None = None
    found = []
    for seen in sorted(
        (s for s in past.trials if s.ended is not None), key=lambda s: (s.ended or s.asked, s.trial.number)
    ):
        trial = seen.trial
        if trial.phase is not CrossValidationPhase.COMPLETE or trial.score is None:
            continue
        if best is None or better(trial.score, best, direction):
            best = trial.score
            found.append(trial)
    return found


def _others(past: Past) -> dict[str, tuple[Told, ...]]:
    phases = (
        CrossValidationPhase.PRUNED,
        CrossValidationPhase.UNSTABLE,
        CrossValidationPhase.FAILED,
        CrossValidationPhase.STOPPED,
    )
    found = {
        str(phase): tuple(_told(seen.trial, _outcome(seen)) for seen in past.trials if seen.trial.phase is phase)
        for phase in phases
    }
    found["Deleted"] = tuple(
        Told(number, f"{past.name}-cv{number}", why="its CrossValidation is gone, and its parameters with it")
        for number in past.gone
    )
    return {name: trials for name, trials in found.items() if trials}


def _told(trial: Trial, why: str = "") -> Told:
    return Told(trial.number, trial.name, trial.score, why)


def _outcome(seen: Seen) -> str:
    """Why a trial ended otherwise than complete, or why it did not."""
    if seen.trial.stop is not None:
        return seen.trial.stop.message
    if seen.trial.audit is not None:
        return f"would have been {seen.trial.audit.message}; it ran to its end to measure how often that is wrong"
    if seen.trial.phase in (CrossValidationPhase.FAILED, CrossValidationPhase.UNSTABLE):
        culprits = [run for run in seen.runs if run.record.message]
        return "; ".join(
            f"fold {run.record.fold} seed {run.record.seed}: {run.record.failure_class or 'no score to compare'}:"
            f" {run.record.message}"
            for run in culprits[:3]
        )
    return ""


def _run_line(run: Run) -> RunLine:
    record = run.record
    return RunLine(
        record.fold, record.seed, str(record.phase), finite(record.score), record.preemptions, record.message
    )


def _in_order(past: Past, runs: Sequence[Run]) -> list[Run]:
    """The runs in the order in which they are due."""
    place = {unit: i for i, unit in enumerate(past.spec.cross_validation.units)}
    return sorted(runs, key=lambda run: place.get(run.unit, len(place)))


def _why(past: Past) -> str:
    """Why the search ended, or what it is doing."""
    for name in (Condition.VALID, Condition.FAILED, Condition.COMPLETE):
        for condition in past.status.conditions:
            wanted = "False" if name is Condition.VALID else "True"
            if condition.type == name and condition.status == wanted:
                return condition.message or condition.reason
    return past.status.summary.reason
