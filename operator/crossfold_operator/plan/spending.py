"""What a Tune has spent. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from crossfold_operator.api.fields import GpuSeconds, Usage
from crossfold_operator.api.trainrun import TrainRunSpec
from crossfold_operator.api.tune import TuneSpec, WallClock
from crossfold_operator.observe.finished import Trials
from crossfold_operator.observe.trials import Trial
from crossfold_operator.times import parse_time, seconds_between, timestamp


@dataclass(frozen=True)
class Spent:
    """What was spent up to now, running attempts included."""

    gpu_seconds: float = 0
    wall_seconds: float = 0


def wall_clock(previous: WallClock, trials: Sequence[Trial], now: datetime) -> WallClock:
    """The time in which runs trained, carried on from the last look.

    A time that began and ended while nobody looked is not counted: it was that of runs in flight at most, since nothing
    new starts without a look.
    """
    trials = Trials.of(trials)
    runs = [run for trial in trials.active for run in trial.runs]
    starts = [parse_time(run.started) for run in runs if run.started and not run.terminal]
    if starts:
        if previous.running_since is None:
            begin = min(starts)
            if previous.idle_since is not None:
                begin = max(begin, parse_time(previous.idle_since))
            return WallClock(seconds=previous.seconds, running_since=timestamp(begin))
        return previous
    if previous.running_since is None:
        return previous
    begin = parse_time(previous.running_since)
    seen = [parse_time(run.ended) for run in runs if run.ended]
    latest = trials.finished.fold(_latest, None)
    ends = [end for end in (*seen, latest) if end is not None and end >= begin]
    end = max(ends, default=max(now, begin))  # a status may say anything, a time to come too
    return WallClock(
        seconds=previous.seconds + round((end - begin).total_seconds()),
        idle_since=timestamp(end),
    )


def _latest(latest: datetime | None, trial: Trial) -> datetime | None:
    """When the last of them ended."""
    if trial.ended is None or not trial.ended.end_time:
        return latest
    end = parse_time(trial.ended.end_time)
    return end if latest is None else max(latest, end)


def devices(spec: TuneSpec | TrainRunSpec) -> int:
    """What a second of a run counts as in GPU-seconds: the GPUs of all its nodes."""
    return spec.trainer.nodes * spec.template.devices


def spent(spec: TuneSpec, trials: Sequence[Trial], clock: WallClock, now: datetime) -> Spent:
    """What was spent up to now.

    Args:
        spec: the Tune's; attempts that run are taken to have its devices.
        trials: the trials that exist.
        clock: of this look.
        now: the time.
    """
    trials = Trials.of(trials)
    running = sum(
        seconds_between(run.started, None, now)
        for trial in trials.active
        for run in trial.runs
        if run.started and not run.terminal
    )
    ended = gpu_seconds(usage_of(trials))
    wall = clock.seconds + seconds_between(clock.running_since, None, now)
    return Spent(gpu_seconds=ended + running * devices(spec), wall_seconds=wall)


def usage_of(trials: Sequence[Trial]) -> Usage:
    """Of all attempts that have ended."""
    trials = Trials.of(trials)
    used = trials.finished.fold(_used, (0, 0, 0, 0, 0))
    for trial in trials.active:
        for run in trial.runs:
            used = _plus(used, run.record.usage)
    useful, pruned, preempted, failed, run_seconds = used
    return Usage(
        gpu_seconds=GpuSeconds(useful=useful, pruned=pruned, preempted=preempted, failed=failed),
        run_seconds=run_seconds,
    )


_Used = tuple[int, int, int, int, int]
"""GPU seconds that were useful, pruned, preempted, failed; seconds that containers ran."""


def _used(used: _Used, trial: Trial) -> _Used:
    return used if trial.ended is None else _plus(used, trial.ended.usage)


def _plus(used: _Used, usage: Usage) -> _Used:
    fate = usage.gpu_seconds
    return (
        used[0] + fate.useful,
        used[1] + fate.pruned,
        used[2] + fate.preempted,
        used[3] + fate.failed,
        used[4] + usage.run_seconds,
    )


def gpu_seconds(usage: Usage) -> int:
    """All of it, whatever became of it."""
    by_fate = usage.gpu_seconds
    return by_fate.useful + by_fate.pruned + by_fate.preempted + by_fate.failed
