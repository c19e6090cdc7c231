"""What runs come to, in numbers that may be added. Pure."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from crossfold_operator.api.fields import Usage
from crossfold_operator.names import TERMINAL_TRAIN_RUN, TrainRunPhase
from crossfold_operator.observe.runs import Run
from crossfold_operator.times import parse_time


class Used(NamedTuple):
    """Seconds that attempts which have ended used: GPU seconds by what became of them, and those of containers."""

    useful: int = 0
    pruned: int = 0
    preempted: int = 0
    failed: int = 0
    run_seconds: int = 0

    def plus(self, usage: Usage) -> "Used":
        """And those of another one."""
        fate = usage.gpu_seconds
        return Used(
            self.useful + fate.useful,
            self.pruned + fate.pruned,
            self.preempted + fate.preempted,
            self.failed + fate.failed,
            self.run_seconds + usage.run_seconds,
        )


NOTHING = Used()


@dataclass(frozen=True)
class Tally:
    """Runs, counted.

    Attributes:
        runs: all of them.
        in_flight: those that take a slot: which have not ended.
        suspended: those in flight that are suspended.
        running: those that train.
        succeeded: with a result.
        failed: without one.
        stopped: ended before their time.
        preemptions: attempts that were interrupted.
        used: by attempts that have ended.
        started: when the containers of attempts under way started, in seconds since 1970.
        ended: when the latest attempt that has ended did so, in seconds since 1970; None where none has.
    """

    runs: int = 0
    in_flight: int = 0
    suspended: int = 0
    running: int = 0
    succeeded: int = 0
    failed: int = 0
    stopped: int = 0
    preemptions: int = 0
    used: Used = NOTHING
    started: tuple[float, ...] = ()
    ended: float | None = None

    @property
    def queued(self) -> int:
        """Those in flight that do not train."""
        return self.in_flight - self.running


def tally(runs: Sequence[Run]) -> Tally:
    """Count runs."""
    phases = [run.record.phase for run in runs]
    used = Used()
    for run in runs:
        used = used.plus(run.record.usage)
    return Tally(
        runs=len(runs),
        in_flight=sum(phase not in TERMINAL_TRAIN_RUN for phase in phases),
        suspended=phases.count(TrainRunPhase.SUSPENDED),
        running=phases.count(TrainRunPhase.RUNNING),
        succeeded=phases.count(TrainRunPhase.SUCCEEDED),
        failed=phases.count(TrainRunPhase.FAILED),
        stopped=phases.count(TrainRunPhase.STOPPED),
        preemptions=sum(run.record.preemptions for run in runs),
        used=used,
        started=tuple(parse_time(run.started).timestamp() for run in runs if run.started and not run.terminal),
        ended=max((parse_time(run.ended).timestamp() for run in runs if run.ended), default=None),
    )


def total(tallies: Iterable[Tally]) -> Tally:
    """The sum of tallies. There are as many as trials under way, at each look: it is one loop over plain numbers."""
    runs = in_flight = suspended = running = succeeded = failed = stopped = preemptions = 0
    useful = pruned = preempted = wasted = seconds = 0
    started: list[float] = []
    ended: float | None = None
    for one in tallies:
        runs += one.runs
        in_flight += one.in_flight
        suspended += one.suspended
        running += one.running
        succeeded += one.succeeded
        failed += one.failed
        stopped += one.stopped
        preemptions += one.preemptions
        started += one.started
        if one.ended is not None:
            ended = one.ended if ended is None or one.ended > ended else ended
        used = one.used
        if any(used):
            useful += used.useful
            pruned += used.pruned
            preempted += used.preempted
            wasted += used.failed
            seconds += used.run_seconds
    return Tally(
        runs=runs,
        in_flight=in_flight,
        suspended=suspended,
        running=running,
        succeeded=succeeded,
        failed=failed,
        stopped=stopped,
        preemptions=preemptions,
        used=Used(useful, pruned, preempted, wasted, seconds),
        started=tuple(started),
        ended=ended,
    )
