"""What a Tune has spent. Pure."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime

from crossfold_operator.api.fields import Usage
from crossfold_operator.api.trainrun import TrainRunSpec
from crossfold_operator.api.tune import TuneSpec, WallClock
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
    runs = [run for trial in trials for run in trial.runs]
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
    seen = [run.ended for run in runs] + [trial.ended.end_time for trial in trials if trial.ended is not None]
    ends = [end for text in seen if text and (end := parse_time(text)) >= begin]
    end = max(ends, default=now)
    return WallClock(
        seconds=previous.seconds + round((end - begin).total_seconds()),
        idle_since=timestamp(end),
    )


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
    running = sum(
        seconds_between(run.started, None, now)
        for trial in trials
        for run in trial.runs
        if run.started and not run.terminal
    )
    ended = sum(gpu_seconds(usage) for usage in usages(trials))
    wall = clock.seconds + seconds_between(clock.running_since, None, now)
    return Spent(gpu_seconds=ended + running * devices(spec), wall_seconds=wall)


def usages(trials: Iterable[Trial]) -> list[Usage]:
    """Of the attempts that have ended: per run of the trials under way, per trial that has ended."""
    return [
        usage
        for trial in trials
        for usage in ([trial.ended.usage] if trial.ended is not None else [run.record.usage for run in trial.runs])
    ]


def gpu_seconds(usage: Usage) -> int:
    """All of it, whatever became of it."""
    by_fate = usage.gpu_seconds
    return by_fate.useful + by_fate.pruned + by_fate.preempted + by_fate.failed
