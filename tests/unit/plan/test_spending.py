"""What was spent: time in which something ran, and device-seconds."""

from datetime import UTC, datetime, timedelta

import pytest

from crossfold_operator.api.crossvalidation import RunRecord
from crossfold_operator.api.fields import GpuSeconds, Usage
from crossfold_operator.api.tune import TuneSpec, WallClock
from crossfold_operator.names import CrossValidationPhase, TrainRunPhase
from crossfold_operator.observe.runs import Run
from crossfold_operator.observe.trials import Ended, Trial
from crossfold_operator.plan.spending import spent, wall_clock
from crossfold_operator.times import duration_seconds, timestamp
from tests.fakes.world import tune

START = datetime(2026, 1, 1, tzinfo=UTC)


def at(seconds: int) -> str:
    return timestamp(START + timedelta(seconds=seconds))


def clock(seconds: int, running: int | None = None, idle: int | None = None) -> WallClock:
    return WallClock(
        seconds=seconds,
        running_since=None if running is None else at(running),
        idle_since=None if idle is None else at(idle),
    )


def run(phase: str = "Running", started: int | None = None, ended: int | None = None, useful: int = 0) -> Run:
    record = RunRecord(
        fold=0, seed=42, run="r", phase=TrainRunPhase(phase), usage=Usage(gpu_seconds=GpuSeconds(useful=useful))
    )
    return Run(record, started=None if started is None else at(started), ended=None if ended is None else at(ended))


def trial(*runs: Run) -> Trial:
    return Trial(0, "t-cv0", "u", CrossValidationPhase.RUNNING, {}, runs=runs)


def finished(end: int, seconds: int = 0) -> Trial:
    fates = GpuSeconds(useful=seconds, pruned=1, preempted=2, failed=3)
    ended = Ended(end_time=at(end), usage=Usage(gpu_seconds=fates))
    return Trial(1, "t-cv1", "v", CrossValidationPhase.COMPLETE, {}, ended=ended)


@pytest.mark.parametrize(
    ("previous", "trials", "now", "found"),
    [
        # Nothing ran yet.
        (clock(0), [], 50, clock(0)),
        (clock(0), [trial(run("Queued"))], 50, clock(0)),
        # It begins when the first container started, not when it is seen.
        (clock(0), [trial(run(started=10), run(started=5))], 50, clock(0, running=5)),
        # While it lasts, nothing is written.
        (clock(0, running=5), [trial(run(started=40))], 50, clock(0, running=5)),
        # It ends when the last container ended, not when that is seen.
        (clock(7, running=5), [trial(run("Succeeded", ended=30), run("Preempted", ended=35))], 50, clock(37, idle=35)),
        (clock(0, running=5), [finished(25)], 50, clock(20, idle=25)),
        # Where nobody knows, when it is seen; an end before the beginning is another one's.
        (clock(0, running=5), [], 50, clock(45, idle=50)),
        (clock(0, running=5), [finished(4)], 50, clock(45, idle=50)),
        # A beginning that is yet to come, as a status may say, takes nothing away.
        (clock(30, running=60), [], 50, clock(30, idle=60)),
        # No time is counted twice: a container that was seen late.
        (clock(30, idle=35), [trial(run(started=20))], 50, clock(30, running=35)),
        (clock(30, idle=35), [trial(run(started=45))], 50, clock(30, running=45)),
        # Waiting is free.
        (clock(30, idle=35), [trial(run("Queued"))], 5000, clock(30, idle=35)),
    ],
)
def test_wall_clock(previous: WallClock, trials: list[Trial], now: int, found: WallClock) -> None:
    assert wall_clock(previous, trials, START + timedelta(seconds=now)) == found


def test_spent_counts_what_runs_and_everything_that_has_ended() -> None:
    spec = TuneSpec.model_validate(tune(template={"resources": {"limits": {"nvidia.com/gpu": 2}}})["spec"])
    trials = [trial(run("Succeeded", ended=30, useful=100), run(started=40)), finished(25, 1000)]
    used = spent(spec, trials, clock(30, running=40), START + timedelta(seconds=50))
    # 100 of the run that succeeded, 2 GPUs for 10 seconds, and all fates of the trial that has ended.
    assert (used.gpu_seconds, used.wall_seconds) == (100 + 2 * 10 + 1000 + 1 + 2 + 3, 40)
    one = TuneSpec.model_validate(tune()["spec"])
    assert spent(one, [trial(run(started=40))], clock(0), START + timedelta(seconds=50)).gpu_seconds == 10


@pytest.mark.parametrize(
    ("text", "seconds"), [("45s", 45), ("90m", 5400), ("48h", 172800), ("1h30m", 5400), ("1h1s", 3601), ("2m5s", 125)]
)
def test_duration(text: str, seconds: int) -> None:
    assert duration_seconds(text) == seconds
