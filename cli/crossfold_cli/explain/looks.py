"""The looks that racing took at a trial: each is taken once more, with what was known then. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from itertools import combinations, islice

from crossfold_cli.explain.past import Past, Seen, decided, known_then, same_numbers, under_way
from crossfold_operator.api.racing import LookSpec
from crossfold_operator.names import CrossValidationPhase
from crossfold_operator.observe.runs import Run, finite
from crossfold_operator.observe.trials import Trial
from crossfold_operator.plan import racing as plan_racing
from crossfold_operator.search import racing, racing_words

_WAYS = 64
"""Orders of runs that ended in one second, of which at most so many are tried."""


@dataclass(frozen=True)
class Look:
    """One look. Scores are in units of the objective; None: not computed, as ``text`` says.

    Attributes:
        at: when it was taken.
        text: what it found, with its numbers.
        reason: why, in one word.
        prune: whether it found that the trial would not become the best.
        runs_done: runs that had ended.
        incumbent: number of the best complete trial then.
        bar: what the trial had to beat.
        predicted: its predicted mean over all runs.
        standard_error: of the prediction.
        p: anytime-valid p-value.
        alpha: what p is compared with.
        probability: of beating the bar.
        references: complete trials that the noise was estimated from.
        recorded: whether the operator wrote this look down.
        reproduced: whether it comes out as it was written down; None where it was not, or cannot be taken once more:
            nobody knows any longer which runs had ended.
        deleted: numbers of the trials that are gone, where it comes out otherwise.
    """

    at: datetime
    text: str
    reason: str
    prune: bool
    runs_done: int
    incumbent: int | None
    bar: float | None
    predicted: float | None
    standard_error: float | None
    p: float | None
    alpha: float
    probability: float | None
    references: int | None
    recorded: bool = False
    reproduced: bool | None = None
    deleted: tuple[int, ...] = ()


def looks(past: Past, seen: Seen) -> tuple[Look, ...]:
    """Every look that differed from the one before: after each run of the trial, and whenever the bar had changed.

    The last one of a trial that was pruned or audited is the one that was written down, with its own numbers. It is the
    only one where TrainRuns are gone: when their runs had ended, nothing else says.
    """
    if not past.spec.racing.enabled:
        return ()
    found: list[Look] = []
    for at in () if seen.undated else _moments(past, seen):
        decision = _decision(past, seen, at)
        if decision is None:
            continue
        look = _look(at, decision)
        if not found or _news(look) != _news(found[-1]):
            found.append(look)
    written, end = seen.trial.decision, decided(seen.trial)
    if written is not None and written.look is not None and end is not None:
        found.append(_replayed(past, seen, written.look, end, written.message))
    return tuple(found)


def _moments(past: Past, seen: Seen) -> list[datetime]:
    """When there was something new to see while the trial was under way, before it was decided."""
    end = decided(seen.trial) or seen.ended
    own = set(seen.known.values())
    others = {
        other.ended
        for other in past.trials
        if other.trial.phase is CrossValidationPhase.COMPLETE and other.ended is not None and other is not seen
    }
    first = min(own, default=None)
    times = own | {at for at in others if first is not None and at > first}
    return sorted(at for at in times if end is None or at < end)


def _decision(past: Past, seen: Seen, at: datetime) -> racing.Decision | None:
    """What a look at a time finds; None where there was none."""
    others = next(known_then([other for other in past.trials if other is not seen], at))
    runs = [run for run in seen.runs if run.unit in seen.known and seen.known[run.unit] <= at]
    return _taken(past, seen, runs, others, _alpha(past, seen, at))


def _alpha(past: Past, seen: Seen, at: datetime) -> float:
    """What p was compared with at a time, as the next decision says; it may have been edited since."""
    own = seen.trial.decision
    if own is not None and own.look is not None:
        return own.look.alpha
    written = [
        (when, other.look.alpha)
        for trial in past.now
        if (other := trial.decision) and other.look and (when := decided(trial)) and when >= at
    ]
    return min(written)[1] if written else past.spec.racing.alpha


def _taken(
    past: Past, seen: Seen, runs: Sequence[Run], others: Sequence[Trial], alpha: float
) -> racing.Decision | None:
    trial = replace(under_way(seen.trial), runs=tuple(runs))
    spec = past.spec.model_copy(update={"racing": past.spec.racing.model_copy(update={"alpha": alpha})})
    return next((d for t, d in plan_racing.looks(spec, [trial, *others]) if t.number == trial.number), None)


def _replayed(past: Past, seen: Seen, record: LookSpec, at: datetime, text: str) -> Look:
    """The look that decided, as it was written down; taken once more to see whether it comes out the same."""
    ways = _first(seen, record.runs_done)
    others = [other for other in past.trials if other is not seen]
    same = None
    if ways:
        same = any(
            decision is not None and _is(decision, record)
            for known in known_then(others, at)
            for ended in ways
            if (decision := _taken(past, seen, ended, known, record.alpha)) is not None
        )
    return Look(
        at=at,
        text=text,
        reason=str(record.rule).lower(),
        prune=True,
        runs_done=record.runs_done,
        incumbent=record.incumbent,
        bar=record.bar,
        predicted=record.predicted,
        standard_error=record.standard_error,
        p=record.p,
        alpha=record.alpha,
        probability=record.probability,
        references=record.references,
        recorded=True,
        reproduced=same,
        deleted=past.gone if same is False else (),
    )


def _first(seen: Seen, number: int) -> list[list[Run]]:
    """The runs that ended first, in each way that their times allow: these count seconds. Empty where nobody knows."""
    ended = [run for run in seen.runs if finite(run.record.score) is not None]
    if len(ended) <= number:
        return [ended]
    if seen.undated:
        return []
    ended.sort(key=lambda run: (seen.known[run.unit], run.unit))
    last = seen.known[ended[number - 1].unit] if number else None
    before = [run for run in ended if last is not None and seen.known[run.unit] < last]
    together = [run for run in ended if seen.known[run.unit] == last]
    return [[*before, *some] for some in islice(combinations(together, number - len(before)), _WAYS)]


def _is(decision: racing.Decision, record: LookSpec) -> bool:
    pairs = ((decision.p, record.p), (decision.predicted, record.predicted), (decision.bar, record.bar))
    return decision.prune and same_numbers(pairs)


def _look(at: datetime, decision: racing.Decision) -> Look:
    return Look(
        at=at,
        text=racing_words.text(decision),
        reason=str(decision.reason),
        prune=decision.prune,
        runs_done=decision.runs_done,
        incumbent=decision.incumbent,
        bar=decision.bar,
        predicted=decision.predicted,
        standard_error=decision.se,
        p=decision.p,
        alpha=decision.alpha,
        probability=decision.p_beat,
        references=decision.refs,
    )


def _news(look: Look) -> tuple[object, ...]:
    """What makes a look another one."""
    if look.reason in (racing.Reason.WARMUP, racing.Reason.NO_LOOK, racing.Reason.FAILED_RUN):
        return (look.reason,)
    return look.runs_done, look.incumbent, look.bar
