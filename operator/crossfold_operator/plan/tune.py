"""Which trials and runs of a Tune are due, and which trials need no more of them. Pure.

The root decides everything below it in one place: parallelism is a number of runs in flight over all trials.

Where racing may prune a trial, its runs come one by one, and slots go to many trials rather than to many runs of one: a
run that was started before the look that prunes its trial is lost. The first trials, which racing waits for, and all
trials where it is off, come whole instead, the oldest first: a complete trial teaches the sampler and racing the most.
Where racing is off and pruning is not, a trial comes whole when its first run has ended.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from itertools import islice
from typing import Any

from crossfold_operator.api.crossvalidation import AuditSpec, TrialStopSpec
from crossfold_operator.api.trainrun import StopReason
from crossfold_operator.api.tune import TuneSpec
from crossfold_operator.names import CrossValidationPhase
from crossfold_operator.observe.finished import Trials
from crossfold_operator.observe.trials import Trial
from crossfold_operator.plan import pruning, racing
from crossfold_operator.plan.crossvalidation import Unit, due
from crossfold_operator.plan.verdict import Judgement
from crossfold_operator.search.history import Trial as SearchTrial
from crossfold_operator.search.history import TrialState
from crossfold_operator.times import timestamp
from crossfold_trainer.contract.config import OutOfMemoryPolicy

RACED = 2
"""Runs of a trial that may be pruned which are in flight at most: one, and another when no trial is left to ask."""


@dataclass(frozen=True)
class Suggestions:
    """What the sampler has answered so far.

    Attributes:
        points: parameters of the next trials, from the first number that is not given out.
        exhausted: after these the space has no further point.
        paused: nothing is asked for now, since the sampler failed a moment ago.
    """

    points: tuple[Mapping[str, Any], ...] = ()
    exhausted: bool = False
    paused: bool = False


@dataclass(frozen=True)
class NewTrial:
    """A trial to create, and the units of it to start at once."""

    number: int
    parameters: Mapping[str, Any]
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
class Decisions:
    """What is decided about the trials that exist, before anything is started.

    Attributes:
        stops: trials to end before their time.
        audits: trials that would be pruned and run to their end.
        trials: all of them, as they are when this is written down: what follows must not depend on when that is.
        starting: whether anything new may start.
    """

    trials: Trials
    stops: tuple[Stop, ...] = ()
    audits: tuple[Audit, ...] = ()
    starting: bool = True


@dataclass(frozen=True)
class Starts:
    """What is to start.

    Attributes:
        runs: of trials that exist.
        trials: to create.
        wanted: further trials for which there is a slot and no suggestion yet.
        slots: runs that all of it makes, those of the wanted trials included.
        exhausted: a trial was wanted and the space has no further point.
    """

    runs: tuple[NewRun, ...] = ()
    trials: tuple[NewTrial, ...] = ()
    wanted: int = 0
    slots: int = 0
    exhausted: bool = False


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
        for told in (*trials.finished.each(_told, policy), *(trial.once(_told, policy) for trial in trials.active))
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


def decide(spec: TuneSpec, trials: Sequence[Trial], judgement: Judgement, now: datetime) -> Decisions:
    """Decide about the trials that exist.

    Args:
        spec: the Tune's.
        trials: the trials that exist, by number.
        judgement: of this look.
        now: the time, which decisions are marked with.
    """
    trials = Trials.of(trials)
    if judgement.failing is not None:
        stops = _stop_all(trials.active, f"the Tune failed: {judgement.failing.message}", now)
        return Decisions(trials, stops, starting=False)
    stops, audits = _prune(spec, trials, now)
    trials = _with(trials, stops, audits)
    ending = judgement.halt
    if ending is not None:
        units = spec.cross_validation.units
        under_way = [trial for trial in trials.active if not (trial.deleting or trial.stopping)]
        unfinished = [t for t in under_way if ending.at_once or due(units, t.runs, stopping=False)]
        stops += _stop_all(unfinished, f"the search has ended: {ending.message}", now)
    return Decisions(trials, stops, audits, starting=ending is None and not spec.suspend)


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
    if not stops and not audits:
        return trials
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


def free_slots(spec: TuneSpec, trials: Sequence[Trial]) -> int:
    """Runs that may be started beside those in flight."""
    return max(0, spec.parallelism - Trials.of(trials).under_way.in_flight)


def fill(spec: TuneSpec, trials: Sequence[Trial], asked: int, free: int, suggestions: Suggestions) -> Starts:
    """Give out free slots, as far as there is something to start.

    Args:
        spec: the Tune's.
        trials: the trials that exist, by number, with what was decided about them.
        asked: numbers below this one have been given out, whether or not their trial still exists.
        free: slots.
        suggestions: parameters of the next trials.
    """
    return _Slots(spec, Trials.of(trials), asked, free).fill(suggestions) if free > 0 else Starts()


class _Slots:
    """The free slots of one look, and who gets them."""

    def __init__(self, spec: TuneSpec, trials: Trials, asked: int, free: int) -> None:
        self._units = spec.cross_validation.units
        self._unasked = max(0, spec.max_trials - asked)
        self._asked = asked
        self._given = self._free = free
        self._active = [trial for trial in trials.active if not (trial.deleting or trial.stopping)]
        self._started: dict[int, int] = {}
        """Runs that this look starts, by the trial's number."""
        self._lead = racing.lead(spec, trials)
        self._prunable = spec.pruning.enabled
        # Whole trials: all that may not be pruned inside their first run, or as many as racing waits for.
        sound = (trial for trial in self._active if not trial.spoilt)
        if self._lead is None:
            self._whole = [trial for trial in sound if not pruning.prunable(spec, trial)]
        else:
            self._whole = list(islice(sound, self._lead))
        self._runs: list[NewRun] = []

    def fill(self, suggestions: Suggestions) -> Starts:
        """Give out all of them."""
        for trial in self._whole:
            self._start(trial, len(self._units))
        # One run of each trial that may be pruned, then new trials, then another run where there are none to ask.
        for trial in self._active:
            self._start(trial, 1)
        new = list(self._new_trials(suggestions))
        exhausted = suggestions.exhausted and self._free > 0 and len(new) < self._unasked
        points = suggestions.points[: len(new)]
        if len(points) == len(new):
            for trial in self._active:
                self._start(trial, RACED)
            for units in new:
                more = self._units[len(units) : max(len(units), min(RACED, len(self._units)))][: self._free]
                units.extend(more)
                self._free -= len(more)
        numbered = enumerate(zip(points, new, strict=False), self._asked)
        return Starts(
            runs=tuple(self._runs),
            trials=tuple(NewTrial(number, point, tuple(units)) for number, (point, units) in numbered),
            wanted=len(new) - len(points),
            slots=self._given - self._free,
            exhausted=exhausted,
        )

    def _start(self, trial: Trial, most: int) -> None:
        """Start runs of a trial, up to so many in flight."""
        if self._free <= 0:
            return
        started = self._started.get(trial.number, 0)
        count = min(self._free, most - trial.tally.in_flight - started)
        if count <= 0:
            return
        # All runs of a trial that does not stop have units of their own.
        units = due(self._units, trial.runs, stopping=False)[started : started + count]
        self._runs += (NewRun(trial, unit) for unit in units)
        self._started[trial.number] = started + len(units)
        self._free -= len(units)

    def _new_trials(self, suggestions: Suggestions) -> Iterator[list[Unit]]:
        """The units that each new trial starts with, as far as there are slots."""
        known = len(suggestions.points)
        most = min(self._unasked, known) if suggestions.exhausted or suggestions.paused else self._unasked
        for count in range(most):
            if self._free <= 0:
                return
            waited_for = self._lead is not None and len(self._whole) + count < self._lead
            whole = waited_for or (self._lead is None and not self._prunable)
            units = list(self._units[: self._free if whole else 1])
            self._free -= len(units)
            yield units
