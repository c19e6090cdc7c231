"""What is worth telling about the step from one status to the next. Pure."""

from typing import NamedTuple

from crossfold_operator.api.crossvalidation import CrossValidationStatus
from crossfold_operator.api.trainrun import TrainRunStatus
from crossfold_operator.api.tune import TuneStatus
from crossfold_operator.names import (
    TERMINAL_CROSS_VALIDATION,
    Condition,
    CrossValidationPhase,
    Reason,
    TrainRunPhase,
    TunePhase,
)
from crossfold_operator.status.facts import score_text
from crossfold_trainer.contract.result import FailureClass

AnyStatus = TuneStatus | CrossValidationStatus | TrainRunStatus


class Event(NamedTuple):
    """An Event about an object, and a line in the log."""

    warning: bool
    reason: str
    message: str


def between(old: AnyStatus, new: AnyStatus) -> list[Event]:
    """Events of the step from ``old`` to ``new``: one for each thing that a person would want to be told."""
    found = _conditions(old, new)
    if isinstance(old, TuneStatus) and isinstance(new, TuneStatus):
        return found + _tune(old, new)
    if isinstance(old, CrossValidationStatus) and isinstance(new, CrossValidationStatus):
        return found + _cross_validation(old, new)
    if isinstance(old, TrainRunStatus) and isinstance(new, TrainRunStatus):
        return found + _train_run(old, new)
    raise TypeError(f"{type(old).__name__} cannot become {type(new).__name__}")


def _conditions(old: AnyStatus, new: AnyStatus) -> list[Event]:
    """A spec that is not valid, and a problem that was not there before."""
    bad = {(Condition.VALID, "False"), (Condition.DEGRADED, "True")}
    before = {(c.type, c.reason) for c in old.conditions if (c.type, c.status) in bad}
    return [
        Event(True, c.reason, c.message)
        for c in new.conditions
        if (c.type, c.status) in bad and (c.type, c.reason) not in before
    ]


def _tune(old: TuneStatus, new: TuneStatus) -> list[Event]:
    found = []
    if new.best and (old.best is None or old.best.trial != new.best.trial):
        text = f"trial {new.best.trial} is the best so far: {score_text(new.best.score, new.best.std)}"
        found.append(Event(False, Reason.NEW_BEST, text))
    if new.phase != old.phase:
        for condition in new.conditions:
            if condition.status == "True" and condition.type == Condition.COMPLETE:
                found.append(Event(False, condition.reason, condition.message))
            if condition.status == "True" and condition.type == Condition.FAILED:
                found.append(Event(True, condition.reason, condition.message))
        if TunePhase.SUSPENDED in (old.phase, new.phase):
            suspended = new.phase is TunePhase.SUSPENDED
            found.append(Event(False, Reason.SUSPENDED if suspended else Reason.RESUMED, f"phase {new.phase}"))
    return found


def _cross_validation(old: CrossValidationStatus, new: CrossValidationStatus) -> list[Event]:
    if new.phase == old.phase or new.phase not in TERMINAL_CROSS_VALIDATION:
        return []
    warning = new.phase in (CrossValidationPhase.FAILED, CrossValidationPhase.UNSTABLE)
    detail = new.summary.reason if warning or new.score is None else f"score {score_text(new.score, new.std)}"
    return [Event(warning, Reason.TRIAL_FINISHED, f"{new.phase} after {new.summary.runs} runs: {detail}")]


def _train_run(old: TrainRunStatus, new: TrainRunStatus) -> list[Event]:
    found = []
    failure = new.failure
    if new.ended > old.ended and failure is not None and new.phase is not TrainRunPhase.FAILED:
        preempted = failure.failure_class is FailureClass.PREEMPTED
        reason = Reason.PREEMPTED if preempted else Reason.RETRYING
        text = f"attempt {new.ended} ended ({failure.failure_class}): {failure.message}"
        found.append(Event(not preempted, reason, text))
    if new.phase != old.phase:
        match new.phase:
            case TrainRunPhase.SUCCEEDED:
                score = new.summary.score or f"no score ({new.summary.reason})"
                found.append(Event(new.stable is False, Reason.SUCCEEDED, f"score {score}, epoch {new.summary.epoch}"))
            case TrainRunPhase.FAILED:
                found.append(Event(True, Reason.RUN_FAILED, new.summary.reason))
            case TrainRunPhase.STOPPED:
                found.append(Event(False, Reason.STOPPED, new.summary.reason))
            case _:
                pass
    return found
