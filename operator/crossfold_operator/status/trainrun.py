"""The status of a TrainRun: (spec, attempts, previous, now) -> status. Pure."""

import math
from collections.abc import Sequence
from datetime import datetime
from typing import Any

from crossfold_operator.api.pruning import CurveRecord
from crossfold_operator.api.trainrun import (
    CurrentAttempt,
    FailureStatus,
    PerformanceStatus,
    TrainRunSpec,
    TrainRunStatus,
    TrainRunSummary,
)
from crossfold_operator.names import (
    TERMINAL_TRAIN_RUN,
    Condition,
    Reason,
    TrainRunPhase,
)
from crossfold_operator.observe.attempts import Attempt, AttemptState
from crossfold_operator.plan import trainrun as run_plan
from crossfold_operator.status.facts import (
    Fact,
    conditions,
    decimal,
    decimals,
    rounded,
    short,
    time_text,
    valid,
)
from crossfold_operator.times import timestamp
from crossfold_trainer.contract.config import RunConfig
from crossfold_trainer.contract.curve import CurvePoint
from crossfold_trainer.contract.progress import ProgressReport
from crossfold_trainer.contract.result import FailureClass, Outcome, Performance, RunResult


def train_run_status(
    *,
    spec: TrainRunSpec,
    config: RunConfig,
    previous: TrainRunStatus,
    attempts: Sequence[Attempt],
    done: run_plan.History,
    report: ProgressReport | None = None,
    degraded: Fact | None,
    now: datetime,
    generation: int | None,
) -> TrainRunStatus:
    """The status of a TrainRun.

    Args:
        spec: its spec.
        config: its configuration, with the digest.
        previous: the status so far; a terminal one stays as it is.
        attempts: the attempts that are seen now.
        done: the attempts that have ended, counted.
        report: the trainer's latest word on where training is; None: nothing since the operator started.
        degraded: a problem that the reconcile met (a name that is taken, a Job that was refused).
        now: the time.
        generation: of the spec.
    """
    if previous.phase in TERMINAL_TRAIN_RUN:
        return previous.model_copy(update={"observed_generation": generation})
    active = next((a for a in reversed(attempts) if a.state is not AttemptState.ENDED and a.number > done.ended), None)
    over = run_plan.verdict(done, spec.retries)
    phase, reason = _train_run_phase(spec, attempts, active, done, over)
    latest = attempts[-1] if attempts else None
    waiting = active.waiting if active else None
    if degraded is None and waiting is not None:
        degraded = Fact(Condition.DEGRADED, True, waiting.reason, waiting.message)
    result = done.result
    facts = [
        valid([]),
        degraded or Fact(Condition.DEGRADED, False, Reason.AS_EXPECTED),
        Fact(
            Condition.COMPLETE,
            phase is TrainRunPhase.SUCCEEDED,
            (Reason.DIVERGED if result and result.outcome is Outcome.DIVERGED else Reason.SUCCEEDED)
            if phase is TrainRunPhase.SUCCEEDED
            else Reason.IN_PROGRESS,
            result.reason if result else "",
        ),
        Fact(
            Condition.FAILED,
            phase is TrainRunPhase.FAILED,
            over.reason if over else Reason.AS_EXPECTED,
            over.failure.message if over else "",
        ),
    ]
    if degraded and degraded.status and not reason:
        reason = f"{degraded.reason}: {degraded.message}"
    curve = previous.curve
    if result is not None:
        fields = _result_fields(result)
        curve = _curve(result.curve, config, curve, now) or curve
    elif report is not None and report.digest == config.digest:
        fields = _live_fields(report, config, training=phase is TrainRunPhase.RUNNING)
        curve = _curve(report.curve, config, curve, now)
    else:
        fields = {name: getattr(previous, name) for name in _LIVE}
    return TrainRunStatus(
        observed_generation=generation,
        phase=phase,
        conditions=conditions(previous.conditions, facts, now, generation),
        image=previous.image,
        digest=config.digest,
        job=latest.job if latest else previous.job,
        node=latest.node if latest and latest.node else previous.node,
        attempt=max(done.ended, latest.number if latest else 0),
        ended=done.ended,
        end_time=done.end_time,
        current=_current(active, previous.current) if active else None,
        preemptions=done.preemptions,
        crashes=done.crashes,
        infrastructure_failures=done.infrastructure,
        failure=FailureStatus(
            failure_class=done.last.failure_class, exit_code=done.last.exit_code, message=done.last.message[:2048]
        )
        if done.last
        else None,
        usage=done.usage,
        artifact_uri=config.artifact_uri,
        **fields,
        curve=curve,
        summary=TrainRunSummary(
            score=short(fields["score"]),
            epoch=_epoch_text(result, fields["epoch"], config),
            reason=(reason or (result.reason if result and not result.stable else ""))[:253],
        ),
    )


_LIVE = (
    "epoch", "step", "progress", "eta", "patches_per_second", "score", "epoch_of_score", "values", "metrics",
)  # fmt: skip
"""What is told of a run without a result; a new operator leaves it as it is until the trainer's next word."""


def _live_fields(report: ProgressReport, config: RunConfig, *, training: bool) -> dict[str, Any]:
    wanted = {metric.name for metric in config.objective.metrics}
    return {
        "epoch": report.epoch,
        "step": report.step,
        "progress": f"{math.floor(100 * report.fraction)}%",
        "eta": time_text(report.eta_seconds) if training and report.eta_seconds is not None else "",
        "patches_per_second": None if report.patches_per_second is None else rounded(report.patches_per_second),
        "score": None if report.score is None else decimal(report.score),
        "epoch_of_score": report.epoch_of_score,
        "values": decimals({name: value for name, value in report.metrics.items() if name in wanted}),
        "metrics": decimals({name: value for name, value in report.metrics.items() if name not in wanted}),
    }


def _current(active: Attempt, before: CurrentAttempt | None) -> CurrentAttempt:
    """What is to be known of an attempt once its Job is gone, whose pod goes before it."""
    if active.deleting and active.started is None and before is not None and before.attempt == active.number:
        return before
    return CurrentAttempt(
        attempt=active.number, start_time=active.started, seconds=active.seconds if active.deleting else 0
    )


def _curve(
    points: Sequence[CurvePoint], config: RunConfig, before: Sequence[CurveRecord], now: datetime
) -> list[CurveRecord]:
    """Points at the epochs that were asked for, with the times of those that are known."""
    known = {record.epoch: record for record in before}
    told = {point.epoch: point for point in points if point.epoch in config.curve_epochs}
    found = []
    for _, point in sorted(told.items()):
        best, mean = decimal(point.best), decimal(point.mean)
        old = known.get(point.epoch)
        same = old is not None and (old.best, old.mean) == (best, mean)
        time = old.time if old is not None and same else timestamp(now)
        found.append(CurveRecord(epoch=point.epoch, best=best, mean=mean, time=time))
    return found


def _performance_fields(speed: Performance) -> dict[str, Any]:
    def text(value: float | None) -> str | None:
        return None if value is None else rounded(value)

    return {
        "patches_per_second": text(speed.patches_per_second),
        "performance": PerformanceStatus(
            device=speed.device,
            data_wait_share=text(speed.data_wait_share),
            checkpoint_wait_share=text(speed.checkpoint_wait_share),
            device_utilisation=text(speed.device_utilisation),
            peak_memory_bytes=speed.peak_memory_bytes,
        ),
    }


def _epoch_text(result: RunResult | None, epoch: int | None, config: RunConfig) -> str:
    if result is not None:
        return f"{result.epoch + 1}/{result.epochs}" if result.epoch is not None else ""
    return f"{epoch}/{config.trainer.max_epochs}" if epoch is not None else ""


def _result_fields(result: RunResult) -> dict[str, Any]:
    speed = result.performance
    return {
        **({} if speed is None else _performance_fields(speed)),
        "epoch": result.epochs,
        "step": result.steps,
        "progress": "",
        "eta": "",
        "score": None if result.score is None else decimal(result.score),
        "stable": result.stable and result.score is not None,
        "outcome": str(result.outcome),
        "values": decimals(result.values),
        "metrics": decimals(result.metrics),
        "epoch_of_score": result.epoch,
        "epochs": result.epochs,
        "ignored_pixels": result.ignored_pixels or None,
        "checkpoint_uri": result.checkpoint_uri,
        "data_digest": result.data_digest,
        "splits_digest": result.splits_digest,
    }


def _train_run_phase(
    spec: TrainRunSpec,
    attempts: Sequence[Attempt],
    active: Attempt | None,
    done: run_plan.History,
    over: run_plan.Verdict | None,
) -> tuple[TrainRunPhase, str]:
    unfinished = any(a.state is not AttemptState.ENDED for a in attempts)
    if spec.stop is not None and not unfinished:
        return TrainRunPhase.STOPPED, f"{spec.stop.reason}: {spec.stop.message}"
    if done.result is not None and spec.stop is None:
        return TrainRunPhase.SUCCEEDED, ""
    if over is not None and not unfinished:
        return TrainRunPhase.FAILED, f"{over.failure.failure_class}: {over.failure.message}"
    if spec.suspend and not unfinished:
        return TrainRunPhase.SUSPENDED, "spec.suspend is true"
    if active is not None and active.state is AttemptState.RUNNING:
        return TrainRunPhase.RUNNING, ""
    if done.last is not None and done.last.failure_class is FailureClass.PREEMPTED:
        return TrainRunPhase.PREEMPTED, done.last.message
    return (TrainRunPhase.STARTING if active else TrainRunPhase.QUEUED), ""
