"""Which trials and runs of a Tune are due, and which trials need no more of them. Pure.

The root decides everything below it in one place: parallelism is a number of runs in flight over all trials.

Where racing may prune a trial, its runs come one by one, and slots go to many trials rather than to many runs of one: a
run that was started before the look that prunes its trial is lost. The first trials, which racing waits for, and all
trials where it is off, come whole instead, the oldest first: a complete trial teaches the sampler and racing the most.
Where racing is off and pruning is not, a trial comes whole when its first run has ended.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from crossfold_operator.api.crossvalidation import AuditSpec, TrialStopSpec
from crossfold_operator.api.trainrun import StopReason
from crossfold_operator.api.tune import TuneSpec
from crossfold_operator.names import CrossValidationPhase
from crossfold_operator.observe.finished import Trials
from crossfold_operator.observe.runs import Run
from crossfold_operator.observe.trials import Trial
from crossfold_operator.plan import pruning, racing
from crossfold_operator.plan.crossvalidation import Unit, due, spoilt
from crossfold_operator.plan.spending import Spent
from crossfold_operator.plan.verdict import failure, halt, verdict
from crossfold_operator.search.history import Trial as SearchTrial
from crossfold_operator.search.history import TrialState
from crossfold_operator.times import timestamp
from crossfold_trainer.contract.config import OutOfMemoryPolicy

Ask = Callable[[Sequence[SearchTrial], int], dict[str, Any] | None]
"""(history, number) -> the parameters of the trial of this number, or None when the space has no further point."""

RACED = 2
"""Runs of a trial that may be pruned which are in flight at most: one, and another when no trial is left to ask."""


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
class Stop:
    """A trial to end before its time, with the runs of it that are under way."""

    trial: Trial
    stop: TrialStopSpec


@dataclass(frozen=True)
class Audit:
    """A trial that would be pruned and runs to its end."""

    trial: Trial
    audit: AuditSpec


@dataclass(frozen=True)
class TunePlan:
    """What should be that is not."""

    stops: tuple[Stop, ...] = ()
    audits: tuple[Audit, ...] = ()
    runs: tuple[NewRun, ...] = ()
    trials: tuple[NewTrial, ...] = ()
    exhausted: bool = False
    """The space has no further point."""


_STATES = {
    CrossValidationPhase.COMPLETE: TrialState.COMPLETE,
    CrossValidationPhase.UNSTABLE: TrialState.UNSTABLE,
    CrossValidationPhase.FAILED: TrialState.FAILED,
    CrossValidationPhase.STOPPED: TrialState.STOPPED,
    CrossValidationPhase.PRUNED: TrialState.STOPPED,  # with no number that it was judged by
}


def history(
    trials: Sequence[Trial], asked: int, policy: OutOfMemoryPolicy = OutOfMemoryPolicy.FAIL
) -> list[SearchTrial]:
    """The trials as the sampler is told of them, by number.

    A trial that is not terminal is running; a pruned one counts as soon as it is decided, with the mean that it was
    predicted to reach, whatever its runs in flight still say.

    Args:
        trials: those that exist.
        asked: numbers given out.
        policy: spec.retries.outOfMemory: whether a trial that did not fit into memory says something of its point.
    """
    trials = Trials.of(trials)
    there = {
        told.number: told
        for told in (*trials.finished.each(_told, policy), *(_told(trial, policy) for trial in trials.active))
    }
    return [there.get(number) or SearchTrial(number, {}, TrialState.DELETED) for number in range(asked)]


def _told(trial: Trial, policy: OutOfMemoryPolicy) -> SearchTrial:
    stop = trial.stop
    if trial.pruned and stop is not None and stop.look is not None:
        look = stop.look
        return SearchTrial(trial.number, trial.parameters, TrialState.PRUNED, look.predicted, max(1, look.runs_done))
    if trial.pruned and stop is not None and stop.run_look is not None:
        inside = stop.run_look
        return SearchTrial(trial.number, trial.parameters, TrialState.PRUNED, inside.predicted, inside.runs_done)
    state = _STATES.get(trial.phase, TrialState.RUNNING)
    if state is TrialState.FAILED and trial.out_of_memory and policy is OutOfMemoryPolicy.CONSTRAIN:
        state = TrialState.INFEASIBLE
    return SearchTrial(trial.number, trial.parameters, state, trial.score if trial.terminal else None)


def in_flight(trials: Sequence[Trial]) -> list[Run]:
    """The runs that take a slot."""
    return [run for trial in Trials.of(trials).active for run in trial.runs if not run.terminal]


def plan(spec: TuneSpec, trials: Sequence[Trial], asked: int, ask: Ask, *, spent: Spent, now: datetime) -> TunePlan:
    """Decide what is next.

    Args:
        spec: the Tune's.
        trials: the trials that exist, by number.
        asked: numbers below this one have been given out, whether or not their trial still exists.
        ask: chooses the parameters of a new trial.
        spent: up to now.
        now: the time, which decisions are marked with.
    """
    trials = Trials.of(trials)
    failing = failure(spec, trials, asked)
    if failing is not None:
        return TunePlan(stops=_stop_all(trials.active, f"the Tune failed: {failing.message}", now))
    units = spec.cross_validation.units
    stops, audits = _prune(spec, trials, now)
    trials = _with(trials, stops, audits)
    ending = halt(spec, trials, spent)
    if ending is not None:
        under_way = [trial for trial in trials.active if not (trial.deleting or trial.stopping)]
        unfinished = [t for t in under_way if ending.at_once or due(units, t.runs, stopping=False)]
        stops += _stop_all(unfinished, f"the search has ended: {ending.message}", now)
    if ending is not None or spec.suspend or verdict(spec, trials, asked, spent, exhausted=False) is not None:
        return TunePlan(stops, audits)
    filled = _Slots(spec, trials, asked).fill(ask)
    return replace(filled, stops=stops, audits=audits)


def _prune(spec: TuneSpec, trials: Trials, now: datetime) -> tuple[tuple[Stop, ...], tuple[Audit, ...]]:
    """What racing decides, and of the trials that it leaves what is decided inside their first run."""
    raced = racing.judge(spec, trials)
    known = {found.trial.number for found in raced}
    judged = [*raced, *(found for found in pruning.judge(spec, trials) if found.trial.number not in known)]
    stops = tuple(Stop(found.trial, found.stop(now)) for found in judged if not found.audited)
    audits = tuple(Audit(found.trial, found.audit(now)) for found in judged if found.audited)
    return stops, audits


def _with(trials: Trials, stops: Sequence[Stop], audits: Sequence[Audit]) -> Trials:
    """The trials as they are when the decisions are written down: what follows must not depend on when that is."""
    stopped = {item.trial.number: item.stop for item in stops}
    audited = {item.trial.number: item.audit for item in audits}
    active = (
        replace(trial, stop=stopped.get(trial.number, trial.stop), audit=audited.get(trial.number, trial.audit))
        if trial.number in stopped or trial.number in audited
        else trial
        for trial in trials.active
    )
    return Trials(active, trials.finished)


def _stop_all(active: Sequence[Trial], message: str, now: datetime) -> tuple[Stop, ...]:
    stop = TrialStopSpec(reason=StopReason.STOPPED, message=message[:1024], time=timestamp(now))
    return tuple(Stop(trial, stop) for trial in active if not (trial.deleting or trial.stopping))


class _Slots:
    """The free slots of one look, and who gets them."""

    def __init__(self, spec: TuneSpec, trials: Trials, asked: int) -> None:
        self._spec = spec
        self._units = spec.cross_validation.units
        self._asked = asked
        self._trials = trials
        self._told: list[SearchTrial] | None = None
        self._free = spec.parallelism - len(in_flight(trials))
        self._active = [trial for trial in trials.active if not (trial.deleting or trial.stopping)]
        self._due = {t.number: due(self._units, t.runs, stopping=False) for t in self._active}
        self._flying = {t.number: sum(not run.terminal for run in t.runs) for t in self._active}
        self._lead = racing.lead(spec, trials)
        # Whole trials: all that may not be pruned inside their first run, or as many as racing waits for.
        sound = [trial for trial in self._active if not spoilt(trial.runs)]
        kept = [trial for trial in sound if not pruning.prunable(spec, trial)]
        self._whole = kept if self._lead is None else sound[: self._lead]
        self._runs: list[NewRun] = []
        self._new: dict[int, tuple[dict[str, Any], list[Unit]]] = {}
        self._exhausted = False

    def fill(self, ask: Ask) -> TunePlan:
        """Give out all of them, as far as there is something to start."""
        for trial in self._whole:
            self._start(trial, len(self._units))
        # One run of each trial that may be pruned, then new trials, then another run where there are none to ask.
        for trial in self._active:
            self._start(trial, 1)
        while self._free > 0 and self._ask(ask):
            pass
        for trial in self._active:
            self._start(trial, RACED)
        for _, started in self._new.values():
            while self._free > 0 and len(started) < min(RACED, len(self._units)):
                started.append(self._units[len(started)])
                self._free -= 1
        return TunePlan(
            runs=tuple(self._runs),
            trials=tuple(NewTrial(n, parameters, tuple(u)) for n, (parameters, u) in self._new.items()),
            exhausted=self._exhausted,
        )

    def _start(self, trial: Trial, most: int) -> None:
        """Start runs of a trial, up to so many in flight."""
        number = trial.number
        while self._free > 0 and self._due[number] and self._flying[number] < most:
            self._runs.append(NewRun(trial, self._due[number].pop(0)))
            self._flying[number] += 1
            self._free -= 1

    def _ask(self, ask: Ask) -> bool:
        """Ask for a trial and start it; False when there is none."""
        if self._asked >= self._spec.max_trials:
            return False
        if self._told is None:
            self._told = history(self._trials, self._asked, self._spec.retries.out_of_memory)
        parameters = ask(self._told, self._asked)
        if parameters is None:
            self._exhausted = True
            return False
        waited_for = self._lead is not None and len(self._whole) + len(self._new) < self._lead
        whole = waited_for or (self._lead is None and not self._spec.pruning.enabled)
        started = list(self._units[: self._free if whole else 1])
        self._new[self._asked] = (parameters, started)
        self._told.append(SearchTrial(self._asked, parameters, TrialState.RUNNING))
        self._free -= len(started)
        self._asked += 1
        return True
