"""What a Tune has spent. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from operator import add

from crossfold_operator.api.fields import GpuSeconds, Usage
from crossfold_operator.api.trainrun import TrainRunSpec
from crossfold_operator.api.tune import TuneSpec, WallClock
from crossfold_operator.observe.finished import Trials
from crossfold_operator.observe.tally import NOTHING, Used
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
    under_way = trials.under_way
    if under_way.started:
        if previous.running_since is None:
            begin = _utc(min(under_way.started))
            if previous.idle_since is not None:
                begin = max(begin, parse_time(previous.idle_since))
            return WallClock(seconds=previous.seconds, running_since=timestamp(begin))
        return previous
    if previous.running_since is None:
        return previous
    begin = parse_time(previous.running_since)
    seen = None if under_way.ended is None else _utc(under_way.ended)
    latest = trials.finished.fold(_latest, None)
    ends = [end for end in (seen, latest) if end is not None and end >= begin]
    end = max(ends, default=max(now, begin))  # a status may say anything, a time to come too
    return WallClock(
        seconds=previous.seconds + round((end - begin).total_seconds()),
        idle_since=timestamp(end),
    )


def _utc(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)


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
    at = now.timestamp()
    running = sum(max(0, round(at - started)) for started in trials.under_way.started)
    ended = gpu_seconds(usage_of(trials))
    wall = clock.seconds + seconds_between(clock.running_since, None, now)
    return Spent(gpu_seconds=ended + running * devices(spec), wall_seconds=wall)


def usage_of(trials: Sequence[Trial]) -> Usage:
    """Of all attempts that have ended."""
    trials = Trials.of(trials)
    ended: Used = trials.finished.fold(_used, NOTHING)
    used = Used(*map(add, ended, trials.under_way.used))
    return Usage(
        gpu_seconds=GpuSeconds(useful=used.useful, pruned=used.pruned, preempted=used.preempted, failed=used.failed),
        run_seconds=used.run_seconds,
    )


def _used(used: Used, trial: Trial) -> Used:
    return used if trial.ended is None else used.plus(trial.ended.usage)


def gpu_seconds(usage: Usage) -> int:
    """All of it, whatever became of it."""
    by_fate = usage.gpu_seconds
    return by_fate.useful + by_fate.pruned + by_fate.preempted + by_fate.failed
