"""Which trials and runs of a Tune are due, and when a Tune is over. Pure.

The root decides everything below it in one place: parallelism is a number of runs in flight over all trials, and a
run that has ended makes room for the next one of the oldest trial that still needs one, before a new trial is asked.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from crossfold_operator.api.tune import TuneSpec
from crossfold_operator.names import CrossValidationPhase, Reason
from crossfold_operator.observe.runs import Run
from crossfold_operator.observe.trials import Trial
from crossfold_operator.plan.crossvalidation import Unit, due
from crossfold_operator.search.history import Trial as SearchTrial
from crossfold_operator.search.history import TrialState

Ask = Callable[[Sequence[SearchTrial], int], dict[str, Any] | None]
"""(history, number) -> the parameters of the trial of this number, or None when the space has no further point."""

CONFIG_FAILURES = 3
"""The Tune fails when this many trials failed for their configuration and no other trial has ended otherwise."""


@dataclass(frozen=True)
class NewTrial:
    """A trial to create, and the units of it to start at once."""

    number: int
    parameters: dict[str, Any]
    units: tuple[Unit, ...]


@dataclass(frozen=True)
class NewRun:
    """A run to create below a trial that exists."""

    trial: Trial
    unit: Unit


@dataclass(frozen=True)
class TunePlan:
    """What should exist that does not."""

    trials: tuple[NewTrial, ...] = ()
    runs: tuple[NewRun, ...] = ()
    exhausted: bool = False
    """The space has no further point."""


_STATES = {
    CrossValidationPhase.COMPLETE: TrialState.COMPLETE,
    CrossValidationPhase.UNSTABLE: TrialState.UNSTABLE,
    CrossValidationPhase.FAILED: TrialState.FAILED,
    CrossValidationPhase.STOPPED: TrialState.STOPPED,
    CrossValidationPhase.PRUNED: TrialState.STOPPED,
}


def history(trials: Sequence[Trial]) -> list[SearchTrial]:
    """The trials as the sampler is told of them; a trial that is not terminal is running."""
    return [
        SearchTrial(t.number, t.parameters, _STATES.get(t.phase, TrialState.RUNNING), t.score if t.terminal else None)
        for t in trials
    ]


def in_flight(trials: Sequence[Trial]) -> list[Run]:
    """The runs that take a slot."""
    return [run for trial in trials for run in trial.runs if not run.terminal]


def plan(spec: TuneSpec, trials: Sequence[Trial], asked: int, ask: Ask) -> TunePlan:
    """Fill the free slots: first with runs of the trials that exist, in their order, then with new trials.

    Args:
        spec: the Tune's.
        trials: the trials that exist, by number.
        asked: numbers below this one have been given out, whether or not their trial still exists.
        ask: chooses the parameters of a new trial.
    """
    if spec.suspend or verdict(spec, trials, asked, exhausted=False) is not None:
        return TunePlan()
    units = spec.cross_validation.units
    slots = spec.parallelism - len(in_flight(trials))
    new_runs: list[NewRun] = []
    for trial in trials:
        if slots <= 0:
            break
        if trial.terminal or trial.deleting:
            continue
        started = due(units, trial.runs, stopping=trial.stopping)[:slots]
        new_runs += [NewRun(trial, unit) for unit in started]
        slots -= len(started)
    new_trials: list[NewTrial] = []
    told = history(trials)
    exhausted = False
    while slots > 0 and asked < spec.max_trials:
        parameters = ask(told, asked)
        if parameters is None:
            exhausted = True
            break
        started = list(units[:slots])
        new_trials.append(NewTrial(asked, parameters, tuple(started)))
        told.append(SearchTrial(asked, parameters, TrialState.RUNNING))
        slots -= len(started)
        asked += 1
    return TunePlan(tuple(new_trials), tuple(new_runs), exhausted)


@dataclass(frozen=True)
class Verdict:
    """A Tune that is over."""

    failed: bool
    reason: Reason
    message: str


def failed_trials(trials: Sequence[Trial], asked: int) -> int:
    """Trials that failed; a number that was given out and has no trial any more was deleted, and counts as failed."""
    failed = sum(trial.phase is CrossValidationPhase.FAILED for trial in trials)
    return failed + asked - len(trials)


def verdict(spec: TuneSpec, trials: Sequence[Trial], asked: int, *, exhausted: bool) -> Verdict | None:
    """Whether the Tune is over, and why; None while there is something to do."""
    ended = [trial for trial in trials if trial.terminal]
    misconfigured = [trial for trial in ended if trial.phase is CrossValidationPhase.FAILED and trial.config_failure]
    # A trial that was told to stop says nothing: those under way are, once this verdict is reached, and may end well.
    told = [trial for trial in ended if not trial.stopping and trial.phase is not CrossValidationPhase.STOPPED]
    if len(misconfigured) >= min(CONFIG_FAILURES, spec.max_trials) and len(misconfigured) == len(told):
        message = f"the first {len(misconfigured)} trials all failed: {misconfigured[0].config_failure}"
        return Verdict(True, Reason.CONFIG_ERROR, message)
    failed = failed_trials(trials, asked)
    if failed > spec.failed_trials_allowed:
        message = f"{failed} trials failed, {spec.failed_trials_allowed} are allowed: see spec.maxFailedTrials"
        return Verdict(True, Reason.MAX_FAILED_TRIALS_EXCEEDED, message)
    if len(ended) < len(trials) or not (exhausted or asked >= spec.max_trials):
        return None
    if not any(trial.phase is CrossValidationPhase.COMPLETE for trial in ended):
        return Verdict(True, Reason.NO_SCORE, f"none of {asked} trials has a score that may be compared")
    if asked >= spec.max_trials:
        return Verdict(False, Reason.MAX_TRIALS_REACHED, f"all {spec.max_trials} trials have ended")
    return Verdict(False, Reason.SPACE_EXHAUSTED, f"all {asked} points of the search space were tried")
