"""The status of a CrossValidation: (spec, runs, previous, now) -> status. Pure."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from crossfold_operator.api.crossvalidation import (
    CrossValidationSpec,
    CrossValidationStatus,
    CrossValidationSummary,
    RunRecord,
)
from crossfold_operator.api.fields import MetricSummary
from crossfold_operator.names import (
    Condition,
    CrossValidationPhase,
    Reason,
    TrainRunPhase,
)
from crossfold_operator.observe.runs import Run, finite
from crossfold_operator.plan import crossvalidation as cv_plan
from crossfold_operator.status.facts import (
    Fact,
    conditions,
    data_digest,
    decimal,
    gpu_hours,
    run_counts,
    short,
    total,
    valid,
)
from crossfold_operator.times import parse_time
from crossfold_trainer.contract.objective import ObjectiveSpec
from crossfold_trainer.contract.scoring import mean_std

MAX_MESSAGE = 512
"""Characters of a run's message in the status of its CrossValidation."""
MESSAGES = 10_000
"""Characters of all runs' messages there."""


def cross_validation_status(
    *,
    spec: CrossValidationSpec,
    previous: CrossValidationStatus,
    runs: Sequence[Run],
    artifact_uri: str,
    degraded: Fact | None,
    now: datetime,
    generation: int | None,
    limited: Fact | None = None,
) -> CrossValidationStatus:
    """The status of a CrossValidation: its runs, aggregated."""
    units = spec.cross_validation.units
    order = {unit: index for index, unit in enumerate(units)}
    runs = sorted(runs, key=lambda run: order.get(run.unit, len(order)))
    records = _brief([run.record for run in runs])
    phase = cv_plan.phase_of(units, runs, spec.stop.reason if spec.stop else None, suspended=spec.suspend)
    scores = [score for r in records if (score := finite(r.score)) is not None]
    mean, std = mean_std(scores) if scores else (None, None)
    failed = [r for r in records if r.phase is TrainRunPhase.FAILED]
    unstable = [r for r in records if r.phase is TrainRunPhase.SUCCEEDED and not r.stable]
    reason, message = _trial_reason(spec, phase, [*failed, *unstable])
    digest, degraded = data_digest(previous.data_digest, runs, degraded)
    counts = run_counts(runs)
    usage = total([r.usage for r in records])
    complete = phase is CrossValidationPhase.COMPLETE
    pruned = phase is CrossValidationPhase.PRUNED
    ends = [text for text in (previous.end_time, *(run.ended for run in runs)) if text]
    facts = [
        valid([]),
        Fact(Condition.SUSPENDED, spec.suspend, Reason.SUSPENDED if spec.suspend else Reason.NOT_SUSPENDED),
        degraded or Fact(Condition.DEGRADED, False, Reason.AS_EXPECTED),
        Fact(
            Condition.COMPLETE,
            complete or pruned,
            Reason.PRUNED if pruned else Reason.ALL_RUNS_SUCCEEDED if complete else Reason.IN_PROGRESS,
            message if pruned else "",
        ),
        Fact(
            Condition.FAILED,
            phase in (CrossValidationPhase.FAILED, CrossValidationPhase.UNSTABLE, CrossValidationPhase.STOPPED),
            reason,
            "" if pruned else message,
        ),
        *([] if limited is None else [limited]),
    ]
    return CrossValidationStatus(
        observed_generation=generation,
        phase=phase,
        conditions=conditions(previous.conditions, facts, now, generation),
        image=previous.image,
        data_digest=digest,
        score=None if mean is None else decimal(mean),
        std=None if std is None else decimal(std),
        stable=complete,
        metrics=_metric_summaries(spec.objective, runs),
        expected=len(units),
        succeeded=counts.succeeded,
        failed=counts.failed,
        unstable=len(unstable),
        running=counts.running,
        preemptions=counts.preemptions,
        runs=records,
        artifact_uri=artifact_uri,
        end_time=max(ends, key=parse_time, default=None),
        usage=usage,
        summary=CrossValidationSummary(
            runs=f"{counts.succeeded}/{len(units)}",
            score=short(mean),
            std=short(std, mean),
            gpu=gpu_hours(usage),
            reason=message[:253],
        ),
    )


def _brief(records: Sequence[RunRecord]) -> list[RunRecord]:
    """Records whose messages share a room: 300 runs may fail at a time. Each TrainRun has its own in full."""
    telling = sum(bool(record.message) for record in records)
    if telling * MAX_MESSAGE <= MESSAGES:
        return list(records)
    return [r.model_copy(update={"message": r.message[: MESSAGES // telling]}) for r in records]


def _trial_reason(
    spec: CrossValidationSpec, phase: CrossValidationPhase, culprits: Sequence[Any]
) -> tuple[Reason, str]:
    first = f"{culprits[0].run}: {culprits[0].failure_class or 'unstable'}: {culprits[0].message}" if culprits else ""
    match phase:
        case CrossValidationPhase.PRUNED:
            return Reason.AS_EXPECTED, spec.stop.message if spec.stop else ""
        case CrossValidationPhase.STOPPED:
            return Reason.STOPPED, spec.stop.message if spec.stop else "a run was stopped"
        case CrossValidationPhase.FAILED:
            return Reason.RUN_FAILED, first
        case CrossValidationPhase.UNSTABLE:
            return Reason.RUN_UNSTABLE, first
        case _:
            return Reason.AS_EXPECTED, first


def _metric_summaries(objective: ObjectiveSpec, runs: Sequence[Run]) -> dict[str, MetricSummary]:
    out = {}
    for metric in objective.metrics:
        values = [v for run in runs if (v := finite(run.record.values.get(metric.name))) is not None]
        if values:
            mean, std = mean_std(values)
            out[metric.name] = MetricSummary(
                mean=decimal(mean), std=decimal(std), min=decimal(min(values)), max=decimal(max(values))
            )
    return out
