"""What the statuses of all kinds are made of: conditions, numbers as text, sums over runs. Pure."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from crossfold_operator.api.fields import ConditionStatus, GpuSeconds, Usage
from crossfold_operator.api.tune import (
    RunCounts,
)
from crossfold_operator.names import (
    Condition,
    Reason,
    TrainRunPhase,
)
from crossfold_operator.observe.runs import Run
from crossfold_operator.plan.limits import Held
from crossfold_operator.plan.spending import gpu_seconds
from crossfold_operator.times import timestamp
from crossfold_trainer.contract.scoring import decimals_of

MOST_METRICS = 64
"""Metrics that a status holds."""
QUEUED = (TrainRunPhase.QUEUED, TrainRunPhase.STARTING, TrainRunPhase.PREEMPTED, TrainRunPhase.SUSPENDED)
"""Phases of a run that is under way and does not train."""


@dataclass(frozen=True)
class Fact:
    """A condition before it has a time."""

    type: Condition
    status: bool
    reason: Reason
    message: str = ""


def limited(held: Sequence[Held]) -> Fact | None:
    """The condition that says which limits of an administrator hold something back; None where none does."""
    if not held:
        return None
    return Fact(Condition.LIMITED, True, held[0].reason, "; ".join(one.message for one in held))


def conditions(
    previous: Sequence[ConditionStatus], facts: Sequence[Fact], now: datetime, generation: int | None
) -> list[ConditionStatus]:
    """Conditions from facts; the time of one whose status did not change stays."""
    before = {c.type: c for c in previous}
    out = []
    for fact in facts:
        text = "True" if fact.status else "False"
        old = before.get(fact.type)
        since = old.last_transition_time if old and old.status == text else timestamp(now)
        out.append(
            ConditionStatus(
                type=fact.type,
                status=text,
                reason=fact.reason,
                message=fact.message[:4096],
                last_transition_time=since,
                observed_generation=generation,
            )
        )
    return out


def decimal(value: float) -> str:
    """A number as status shows it: the shortest decimal that reads back as the same double; NaN without end."""
    return repr(float(value)) if math.isfinite(value) else "NaN"


def decimals(values: Mapping[str, float | None]) -> dict[str, str]:
    """Metric values as decimal strings; NaN where there is none."""
    return {name: "NaN" if value is None else decimal(value) for name, value in list(values.items())[:MOST_METRICS]}


def short(value: str | float | None, beside: str | float | None = None) -> str:
    """A score for a column, or a number beside one, which has as many decimals; empty for none."""
    if value is None:
        return ""
    number = float(value)
    if abs(number) >= 1e6:
        return f"{number:.3g}"
    return f"{number:.{decimals_of(number if beside is None else float(beside), 3)}f}"


def rounded(value: float, digits: int = 4) -> str:
    """A number of which few digits matter, as status shows it."""
    return decimal(float(f"{value:.{digits}g}"))


def time_text(seconds: float) -> str:
    """A span of time in its two greatest units: ``45s``, ``12m``, ``3h12m``, ``2d4h``."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole}s"
    minutes = whole // 60
    if minutes < 60:
        return f"{minutes}m"
    hours, minutes = divmod(minutes, 60)
    return f"{hours}h{minutes}m" if hours < 24 else f"{hours // 24}d{hours % 24}h"


def score_text(score: str | None, std: str | None) -> str:
    """``0.812±0.011``; empty for none."""
    return "" if score is None else f"{short(score)}±{short(std or 0, score)}"


def gpu_hours(usage: Usage) -> str:
    """GPU-hours of all attempts, for a column."""
    return hours(gpu_seconds(usage))


def hours(seconds: float) -> str:
    """``41.2h``."""
    return f"{seconds / 3600:.1f}h"


def total(usages: Sequence[Usage]) -> Usage:
    """The sum of several usages."""
    return Usage(
        gpu_seconds=GpuSeconds(
            useful=sum(u.gpu_seconds.useful for u in usages),
            pruned=sum(u.gpu_seconds.pruned for u in usages),
            preempted=sum(u.gpu_seconds.preempted for u in usages),
            failed=sum(u.gpu_seconds.failed for u in usages),
        ),
        run_seconds=sum(u.run_seconds for u in usages),
    )


def valid(problems: Sequence[str]) -> Fact:
    """The Valid condition."""
    if problems:
        return Fact(Condition.VALID, False, Reason.INVALID_SPEC, "; ".join(problems))
    return Fact(Condition.VALID, True, Reason.ACCEPTED)


def data_digest(known: str, runs: Sequence[Run], degraded: Fact | None) -> tuple[str, Fact | None]:
    """The digest of the data set, and DataInvalid when two runs read different data."""
    for run in runs:
        seen = run.record.data_digest
        known = known or seen
        if seen and seen != known:
            text = f"{run.record.run} read other data (digest {seen[:12]}) than runs before it ({known[:12]})"
            return known, Fact(Condition.DEGRADED, True, Reason.DATA_INVALID, f"spec.data.uri changed: {text}")
        if degraded is None and run.waiting is not None and not run.terminal:
            degraded = Fact(Condition.DEGRADED, True, Reason(run.waiting[0]), f"{run.record.run}: {run.waiting[1]}")
    return known, degraded


def run_counts(runs: Sequence[Run]) -> RunCounts:
    """Runs, by what became of them."""
    phases = [run.record.phase for run in runs]
    return RunCounts(
        queued=sum(phase in QUEUED for phase in phases),
        running=phases.count(TrainRunPhase.RUNNING),
        succeeded=phases.count(TrainRunPhase.SUCCEEDED),
        failed=phases.count(TrainRunPhase.FAILED),
        stopped=phases.count(TrainRunPhase.STOPPED),
        preemptions=sum(run.record.preemptions for run in runs),
    )
