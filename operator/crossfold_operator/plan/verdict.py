"""When a Tune is over, and why. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from crossfold_operator.api.tune import TuneSpec, WallClock
from crossfold_operator.names import CrossValidationPhase, Reason
from crossfold_operator.observe.finished import Finished, Trials
from crossfold_operator.observe.trials import Trial
from crossfold_operator.plan.ranking import ahead
from crossfold_operator.plan.spending import Spent, spent, wall_clock
from crossfold_operator.times import duration_seconds
from crossfold_trainer.contract.config import OutOfMemoryPolicy
from crossfold_trainer.contract.metrics import Direction
from crossfold_trainer.contract.scoring import better, score_direction

CONFIG_FAILURES = 3
"""The Tune fails when this many trials failed for their configuration and no other trial has ended otherwise."""
_JUDGED = (CrossValidationPhase.COMPLETE, CrossValidationPhase.PRUNED, CrossValidationPhase.UNSTABLE)
"""Phases of a trial whose parameters were judged by their scores."""


@dataclass(frozen=True)
class Halt:
    """A rule by which a search ends before its time: nothing new starts."""

    reason: Reason
    message: str
    at_once: bool
    """What is under way is stopped, as opposed to finished."""


@dataclass(frozen=True)
class Verdict:
    """A Tune that is over."""

    failed: bool
    reason: Reason
    message: str


def counted_failures(spec: TuneSpec, trials: Sequence[Trial], asked: int) -> int:
    """Failed trials that count towards spec.maxFailedTrials.

    Under retries.outOfMemory Constrain those that did not fit into memory are what the search learns its limit from,
    and do not count once a trial has fitted: before that nothing says that there is a point that fits.
    """
    failed = failed_trials(trials, asked)
    if spec.retries.out_of_memory is not OutOfMemoryPolicy.CONSTRAIN:
        return failed
    return failed - out_of_memory(trials) if Trials.of(trials).finished.fold(_fitted, False) else failed


def _fitted(before: bool, trial: Trial) -> bool:
    """Whether a trial has fitted into memory."""
    return before or _judged(trial)


def _judged(trial: Trial) -> bool:
    """Whether a trial was judged by its scores.

    One that was told to stop since the search is over does not count: it may still end well, and what is over stays so.
    """
    return trial.phase in _JUDGED and (trial.pruned or not trial.stopping)


def out_of_memory(trials: Sequence[Trial]) -> int:
    """Failed trials with a run that did not fit into the accelerator's memory."""
    return Trials.of(trials).finished.fold(_out_of_memory, 0)


def _out_of_memory(count: int, trial: Trial) -> int:
    return count + (trial.phase is CrossValidationPhase.FAILED and trial.out_of_memory)


def failed_trials(trials: Sequence[Trial], asked: int) -> int:
    """Trials that failed; a number that was given out and has no trial any more was deleted, and counts as failed."""
    return Trials.of(trials).finished.count(CrossValidationPhase.FAILED) + asked - len(trials)


def failure(spec: TuneSpec, trials: Sequence[Trial], asked: int) -> Verdict | None:
    """Whether too much has failed; what is under way is then stopped."""
    trials = Trials.of(trials)
    misconfigured = trials.finished.fold(_misconfigured, 0)
    if misconfigured >= min(CONFIG_FAILURES, spec.max_trials) and misconfigured == trials.finished.fold(_telling, 0):
        first = next(trial for trial in trials.finished if _misconfigured(0, trial))
        message = f"the first {misconfigured} trials all failed: {first.config_failure}"
        return Verdict(True, Reason.CONFIG_ERROR, message)
    failed = counted_failures(spec, trials, asked)
    if failed > spec.failed_trials_allowed:
        message = f"{failed} trials failed, {spec.failed_trials_allowed} are allowed: see spec.maxFailedTrials"
        return Verdict(True, Reason.MAX_FAILED_TRIALS_EXCEEDED, message)
    return None


def _misconfigured(count: int, trial: Trial) -> int:
    """Trials that failed for their configuration."""
    return count + (trial.phase is CrossValidationPhase.FAILED and bool(trial.config_failure))


def _telling(count: int, trial: Trial) -> int:
    """Trials that say something about the configuration.

    One that was told to stop says nothing: those under way are, once the Tune has failed, and may end well.
    """
    return count + (not trial.stopping and trial.phase is not CrossValidationPhase.STOPPED)


def halt(spec: TuneSpec, trials: Sequence[Trial], used: Spent) -> Halt | None:
    """Whether a rule ends the search before its time; the first that does."""
    finished = Trials.of(trials).finished
    return _target(spec, finished) or _early_stopping(spec, finished) or _budget(spec, used)


def _target(spec: TuneSpec, finished: Finished) -> Halt | None:
    if spec.target is None:
        return None
    first = finished.fold(_reaching, None, spec.target, score_direction(spec.objective))
    if first is None:
        return None
    message = f"trial {first.number} scores {first.score:.4g}, which reaches spec.target = {spec.target:g}"
    return Halt(Reason.TARGET_REACHED, message, at_once=True)


def _reaching(first: Trial | None, trial: Trial, target: float, direction: Direction) -> Trial | None:
    """The trial with the lowest number that reaches the target."""
    if trial.phase is not CrossValidationPhase.COMPLETE or trial.score is None:
        return first
    if better(target, trial.score, direction) or (first is not None and first.number < trial.number):
        return first
    return trial


def _early_stopping(spec: TuneSpec, finished: Finished) -> Halt | None:
    rule = spec.early_stopping
    if rule is None:
        return None
    best, without = finished.once(_without_new_best, rule.min_delta, score_direction(spec.objective))
    if best is None or without < rule.patience:
        return None
    delta = f" by more than {rule.min_delta:g}" if rule.min_delta else ""
    message = f"{without} trials in a row are not better than {best:.4g}{delta}: see spec.earlyStopping"
    return Halt(Reason.EARLY_STOPPED, message, at_once=True)


def _without_new_best(finished: Finished, min_delta: float, direction: Direction) -> tuple[float | None, int]:
    """The best score, and the trials in a row after it without a new best, in the order of their numbers."""
    best: float | None = None
    without = 0
    for trial in finished:
        if not _judged(trial):
            continue
        score = trial.score if trial.phase is CrossValidationPhase.COMPLETE else None
        if score is not None and (best is None or better(score, ahead(best, min_delta, direction), direction)):
            best, without = score, 0
        else:
            without += 1
    return best, without


def _budget(spec: TuneSpec, used: Spent) -> Halt | None:
    budget = spec.budget
    if budget is None:
        return None
    if budget.gpu_hours is not None and used.gpu_seconds >= budget.gpu_hours * 3600:
        return Halt(Reason.BUDGET_SPENT, f"spec.budget.gpuHours = {budget.gpu_hours:g} are spent", at_once=False)
    if budget.wall_clock is not None and used.wall_seconds >= duration_seconds(budget.wall_clock):
        return Halt(Reason.BUDGET_SPENT, f"spec.budget.wallClock = {budget.wall_clock} is over", at_once=False)
    return None


@dataclass(frozen=True)
class Judgement:
    """What one look at a Tune finds, before anything is done about it. It is reckoned once and handed on.

    Attributes:
        finished: the trials that had ended.
        clock: the time in which runs trained.
        spent: up to now.
        failing: too much has failed.
        halt: the rule that ends the search before its time.
    """

    finished: Finished
    clock: WallClock
    spent: Spent
    failing: Verdict | None = None
    halt: Halt | None = None


def judge(spec: TuneSpec, trials: Sequence[Trial], asked: int, clock: WallClock, now: datetime) -> Judgement:
    """Judge a Tune.

    Args:
        spec: its spec.
        trials: the trials that exist, by number.
        asked: numbers below this one have been given out.
        clock: of the last look.
        now: the time.
    """
    trials = Trials.of(trials)
    clock = wall_clock(clock, trials, now)
    used = spent(spec, trials, clock, now)
    return Judgement(trials.finished, clock, used, failure(spec, trials, asked), halt(spec, trials, used))


def verdict(
    spec: TuneSpec, trials: Sequence[Trial], asked: int, judgement: Judgement, *, exhausted: bool
) -> Verdict | None:
    """Whether the Tune is over, and why; None while there is something to do or to wait for.

    Args:
        spec: the Tune's.
        trials: the trials that exist, by number.
        asked: numbers below this one have been given out.
        judgement: of these trials, whatever was started since.
        exhausted: the space has no further point.
    """
    trials = Trials.of(trials)
    if judgement.failing is not None:
        return judgement.failing
    if trials.active:
        return None
    stopped = judgement.halt
    if stopped is None and not exhausted and asked < spec.max_trials:
        return None
    if not trials.finished.count(CrossValidationPhase.COMPLETE):
        why = f": {stopped.message}" if stopped is not None else ""
        return Verdict(True, Reason.NO_SCORE, f"none of {asked} trials has a score that may be compared{why}")
    if stopped is not None:
        return Verdict(False, stopped.reason, stopped.message)
    if asked >= spec.max_trials:
        return Verdict(False, Reason.MAX_TRIALS_REACHED, f"all {spec.max_trials} trials have ended")
    return Verdict(False, Reason.SPACE_EXHAUSTED, f"all {asked} points of the search space were tried")
