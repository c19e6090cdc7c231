"""Runs the steps of a long command, side by side where they do not wait for one another.

    python3 -m devcluster.together "make demo" env="make env" images,after=env="make images" demo,after=images="..."

A step is NAME[,after=NAME+NAME...]=COMMAND. Each line of its output is shown behind a clock; a step that runs alone at
the end has the terminal to itself. When a step fails, the others are stopped, and the last lines say which step it was,
what it said, and how to go on.
"""

import contextlib
import os
import shlex
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from devcluster.console import say

_LAST_LINES = 8
_STOP_S = 20.0
_NOT_FOUND = 127


@dataclass
class Step:
    """A command of the whole, and what became of it."""

    name: str
    command: Sequence[str]
    after: frozenset[str] = frozenset()
    """Names of the steps that must have succeeded before."""
    process: "subprocess.Popen[str] | None" = None
    seconds: float | None = None
    """How long it took; None: it has not ended."""
    last_lines: deque[str] = field(default_factory=lambda: deque(maxlen=_LAST_LINES))


class Failed(Exception):
    """A step did not succeed."""

    def __init__(self, step: Step, code: int) -> None:
        """Keeps which step it was, and its exit status."""
        super().__init__(step.name)
        self.step, self.code = step, code


def parse(argument: str) -> Step:
    """A step as it is written on the command line.

    Raises:
        ValueError: it is not NAME[,after=NAME+NAME...]=COMMAND.
    """
    head, _, rest = argument.partition("=")
    name, _, option = head.partition(",")
    after = ""
    if option == "after":
        after, _, rest = rest.partition("=")
    if not name or not rest or option not in ("", "after"):
        raise ValueError(f"{argument!r} is not NAME[,after=NAME+NAME...]=COMMAND")
    return Step(name, shlex.split(rest), frozenset(after.split("+")) - {""})


class Together:
    """Runs steps and shows what they say."""

    def __init__(self, steps: Iterable[Step]) -> None:
        """Starts the clock.

        Raises:
            ValueError: a step waits for one that there is not.
        """
        self._steps = list(steps)
        unknown = {name for step in self._steps for name in step.after} - {step.name for step in self._steps}
        if unknown:
            raise ValueError(f"no such step: {', '.join(sorted(unknown))}")
        self._began = time.monotonic()
        self._changed = threading.Condition()
        self._failed: tuple[Step, int] | None = None
        self._stopping = False

    def run(self) -> None:
        """Runs them all.

        Raises:
            Failed: one of them failed; the others have been stopped.
        """
        try:
            while any(step.seconds is None for step in self._steps):
                self._start_what_is_due()
                with self._changed:
                    if self._failed is not None:
                        raise Failed(*self._failed)
                    self._changed.wait(timeout=0.2)
        finally:
            self._stop()

    def summary(self) -> str:
        """How long it all took, and each step."""
        parts = (f"{step.name} {step.seconds:.0f} s" for step in self._steps if step.seconds is not None)
        return f"{self._elapsed():.0f} s ({', '.join(parts)})"

    def _elapsed(self) -> float:
        return time.monotonic() - self._began

    def _start_what_is_due(self) -> None:
        over = {step.name for step in self._steps if step.seconds is not None}
        for step in self._steps:
            if step.process is None and step.after <= over:
                self._start(step, alone=len(over) == len(self._steps) - 1)

    def _start(self, step: Step, *, alone: bool) -> None:
        start = time.monotonic()
        # With others beside it: line by line, and in a group of its own, so that all of it can be stopped.
        beside: dict[str, Any] = {
            "stdin": subprocess.DEVNULL,
            "stdout": subprocess.PIPE,
            "stderr": subprocess.STDOUT,
            "start_new_session": True,
        }
        try:
            process = subprocess.Popen(step.command, text=True, errors="replace", **({} if alone else beside))
        except OSError as error:
            step.last_lines.append(f"{step.command[0]}: {error.strerror}")
            raise Failed(step, _NOT_FOUND) from None
        step.process = process
        threading.Thread(target=self._follow, args=(step, process, start), daemon=True).start()

    def _follow(self, step: Step, process: "subprocess.Popen[str]", start: float) -> None:
        for raw in process.stdout or ():
            self._show(step, raw.rstrip())
        code = process.wait()
        with self._changed:
            if code == 0:
                step.seconds = time.monotonic() - start
            elif self._failed is None:
                self._failed = (step, code)
            self._changed.notify_all()

    def _show(self, step: Step, line: str) -> None:
        # Of those that are stopped because another failed, nothing is worth reading.
        if line.strip() and not self._stopping:
            step.last_lines.append(line)
            say(f"{self._elapsed():6.0f} s  {step.name:<8} {line}")

    def _stop(self) -> None:
        """Ends what still runs, and waits for it."""
        self._stopping = True
        running = [step.process for step in self._steps if step.process and step.process.poll() is None]
        for stop in (signal.SIGTERM, signal.SIGKILL):
            for process in running:
                _signal_group(process, stop)
            end = time.monotonic() + _STOP_S
            for process in running:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(max(0.0, end - time.monotonic()))


def _signal_group(process: "subprocess.Popen[str]", number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        if os.getpgid(process.pid) == process.pid:
            os.killpg(process.pid, number)
        elif number is signal.SIGKILL:
            # It has this terminal, and got ctrl-C from there.
            process.kill()


def main(arguments: Sequence[str]) -> int:
    """Runs the steps; returns the exit status."""
    title, *rest = arguments
    together = Together(map(parse, rest))
    go_on = f"`{title}` goes on where this one was: what is built and downloaded is kept."
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        together.run()
    except Failed as failure:
        step = failure.step
        lines = [f"{title}: step {step.name} failed with exit status {failure.code} after {together.summary()}"]
        lines += [f"    {line}" for line in step.last_lines]
        lines += ["  Mend what its last lines say, then type the same command again.", f"  {go_on}"]
    except KeyboardInterrupt:
        lines = [f"{title}: interrupted after {together.summary()}", f"  {go_on}"]
    else:
        say(f"\n{title}: {together.summary()}")
        return 0
    say("\n" + "\n".join(lines))
    return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
