"""Which attempt of a run is due, and when a run is over. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

from crossfold_operator.api.fields import RetriesSpec, Usage
from crossfold_operator.api.trainrun import CurrentAttempt, StopReason, TrainRunSpec, TrainRunStatus
from crossfold_operator.names import TERMINAL_TRAIN_RUN, Reason
from crossfold_operator.observe.attempts import Attempt, AttemptState, Failure
from crossfold_operator.plan.spending import devices
from crossfold_operator.times import parse_time, seconds_between, timestamp
from crossfold_trainer.contract.result import FailureClass, RunResult

MAX_ATTEMPTS = 99
"""A Job's name has 63 characters, of which ``-a99`` takes four."""


@dataclass(frozen=True)
class History:
    """The attempts that have ended, counted. What a TrainRun remembers of Jobs that are gone."""

    ended: int = 0
    preemptions: int = 0
    crashes: int = 0
    infrastructure: int = 0
    usage: Usage = field(default_factory=Usage)
    end_time: str | None = None
    """When the latest of them ended, as far as it is known."""
    last: Failure | None = None
    """How the latest attempt that ended in this or an earlier look failed."""
    result: RunResult | None = None


def history(
    spec: TrainRunSpec, previous: TrainRunStatus, attempts: Sequence[Attempt], startup_seconds: int, now: datetime
) -> History:
    """Add the attempts that ended since to those that the previous status counts.

    Attempts are counted in order and once each. One that cannot start for a reason of its own counts as ended after
    ``startup_seconds``; one whose Job went away under suspend counts as preempted, one under stop as its reason says.
    """
    done = _remembered(previous)
    by_number = {attempt.number: attempt for attempt in attempts}
    halted = spec.suspend or spec.stop is not None
    while done.result is None:
        number = done.ended + 1
        attempt = by_number.get(number)
        if attempt is None:
            current = previous.current
            if not (halted and current is not None and current.attempt == number):
                return done
            gone = Failure(FailureClass.PREEMPTED, "its Job was deleted while it ran")
            done = _count(done, spec, seconds=current.seconds, end=_end(current), failure=gone)
        elif attempt.state is AttemptState.ENDED:
            done = _count(
                done, spec, seconds=attempt.seconds, end=attempt.ended, failure=attempt.failure, result=attempt.result
            )
        elif (stuck := stuck_failure(attempt, startup_seconds, now)) is not None:
            done = _count(done, spec, seconds=0, end=None, failure=stuck)
        else:
            return done
    return done


def _remembered(previous: TrainRunStatus) -> History:
    failure = previous.failure
    return History(
        ended=previous.ended,
        preemptions=previous.preemptions,
        crashes=previous.crashes,
        infrastructure=previous.infrastructure_failures,
        usage=previous.usage,
        end_time=previous.end_time,
        last=Failure(failure.failure_class, failure.message, failure.exit_code, failure.log) if failure else None,
    )


def _end(current: CurrentAttempt) -> str | None:
    """When an attempt whose Job is gone ended, as far as it was seen."""
    if current.start_time is None:
        return None
    return timestamp(parse_time(current.start_time) + timedelta(seconds=current.seconds))


def _count(
    done: History,
    spec: TrainRunSpec,
    *,
    seconds: int,
    end: str | None,
    failure: Failure | None,
    result: RunResult | None = None,
) -> History:
    kind = failure.failure_class if failure else None
    stop = spec.stop.reason if spec.stop is not None and kind in (None, FailureClass.PREEMPTED) else None
    match kind:
        case _ if stop is StopReason.PRUNED:
            fate = "pruned"
        case _ if stop is StopReason.STOPPED:
            fate = "failed"
        case None:
            fate = "useful"
        case FailureClass.PREEMPTED:
            fate = "preempted"
        case _:
            fate = "failed"
    spent = done.usage.gpu_seconds
    device_seconds = getattr(spent, fate) + devices(spec) * seconds
    return replace(
        done,
        ended=done.ended + 1,
        preemptions=done.preemptions + (kind is FailureClass.PREEMPTED and stop is None),
        crashes=done.crashes + (kind is FailureClass.CRASH),
        infrastructure=done.infrastructure + (kind is FailureClass.INFRASTRUCTURE),
        usage=Usage(
            gpu_seconds=spent.model_copy(update={fate: device_seconds}), run_seconds=done.usage.run_seconds + seconds
        ),
        end_time=max((text for text in (done.end_time, end) if text), key=parse_time, default=None),
        last=failure,
        result=result,
    )


def stuck_failure(attempt: Attempt, startup_seconds: int, now: datetime) -> Failure | None:
    """The failure of an attempt that cannot start for a reason of its own; None while it may still start."""
    waiting = attempt.waiting
    if attempt.state is not AttemptState.STARTING or waiting is None or not waiting.structural:
        return None
    if seconds_between(attempt.created, None, now) < startup_seconds:
        return None
    return Failure(FailureClass.INFRASTRUCTURE, f"{waiting.reason}: {waiting.message}")


@dataclass(frozen=True)
class Verdict:
    """A run that is over without a result."""

    reason: Reason
    failure: Failure


def verdict(done: History, retries: RetriesSpec) -> Verdict | None:
    """Whether the run has failed for good; None while there is a result or another attempt to come."""
    failure = done.last
    if failure is None or done.result is not None:
        return None
    match failure.failure_class:
        case FailureClass.PREEMPTED:
            over = None
        case FailureClass.CRASH:
            over = Reason.RUN_FAILED if done.crashes > retries.crash else None
        case FailureClass.INFRASTRUCTURE:
            lost = Reason.NO_RESULT if failure.no_result else Reason.LOST
            over = lost if done.infrastructure > retries.infrastructure else None
        case FailureClass.CONFIG:
            over = Reason.CONFIG_ERROR
        # Under retries.outOfMemory HalveBatch an attempt has halved all that can be halved before it ends so.
        case FailureClass.OUT_OF_MEMORY | FailureClass.HOST_OUT_OF_MEMORY | FailureClass.TIMEOUT:
            over = Reason.RUN_FAILED
    if over is None and done.ended >= MAX_ATTEMPTS:
        over = Reason.LOST
    return Verdict(over, failure) if over else None


@dataclass(frozen=True)
class TrainRunPlan:
    """What to do next."""

    create: int | None = None
    """Number of the attempt whose Job is to be created."""
    delete: tuple[Attempt, ...] = ()
    """Attempts whose Jobs are to be deleted."""


def plan(spec: TrainRunSpec, previous: TrainRunStatus, attempts: Sequence[Attempt], done: History) -> TrainRunPlan:
    """Decide what to do next. A terminal run is never run again."""
    active = [a for a in attempts if a.state is not AttemptState.ENDED]
    unwanted = tuple(a for a in active if not a.deleting)
    if previous.phase in TERMINAL_TRAIN_RUN or done.result is not None or spec.stop is not None or spec.suspend:
        return TrainRunPlan(delete=unwanted)
    if verdict(done, spec.retries) is not None:
        return TrainRunPlan(delete=unwanted)
    if active:
        # An attempt that is counted as ended already is one that could not start.
        return TrainRunPlan(delete=tuple(a for a in unwanted if a.number <= done.ended))
    return TrainRunPlan(create=done.ended + 1)
