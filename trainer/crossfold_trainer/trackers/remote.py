"""The trainer's side of the trackers' process: hands over, never waits, and tells at the end what went wrong."""

import base64
import contextlib
import json
import logging
import queue
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from crossfold_trainer.trackers.base import RunFacts

log = logging.getLogger(__name__)

PROGRAM = (sys.executable, "-m", "crossfold_trainer.trackers.process")
FINISH_S = 20.0
"""Seconds that trackers have at the end of a run, all together."""
INTERRUPTED_S = 5.0
"""The same when the run was interrupted, and the pod's grace period runs."""
WAITING = 5000
Message = dict[str, Any]


class Remote:
    """The trackers of one attempt."""

    def __init__(self, run: RunFacts, trackers: Mapping[str, Any], program: Sequence[str] = ()) -> None:
        """Start the process. It never raises: a problem is noted for each tracker."""
        self.problems: dict[str, str] = {}
        self.ids: dict[str, str] = {}
        self._trackers = dict(trackers)
        self._todo: queue.Queue[Message | None] = queue.Queue(WAITING)
        self._process: subprocess.Popen[str] | None = None
        program = program or PROGRAM
        try:
            self._process = subprocess.Popen(
                program,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                text=True,
                bufsize=1,
            )
        except OSError as error:
            self._all(f"{program[0]} cannot be started: {error.strerror}")
            return
        self._put({"run": asdict(run), "trackers": self._trackers})
        self._writer = threading.Thread(target=self._write, name="trackers", daemon=True)
        self._reader = threading.Thread(target=self._read, name="trackers-answers", daemon=True)
        self._writer.start()
        self._reader.start()

    def scalars(self, values: Mapping[str, float], step: int) -> None:
        """Hand over finite numbers."""
        self._put({"scalars": dict(values), "step": step})

    def image(self, name: str, png: bytes, step: int) -> None:
        """Hand over a picture."""
        self._put({"image": name, "png": base64.b64encode(png).decode(), "step": step})

    def finish(self, values: Mapping[str, Any], *, ended: bool, patience: float | None = None) -> None:
        """Hand over the end, and wait for it as long as trackers have at most."""
        process = self._process
        if process is None:
            return
        until = time.monotonic() + (patience if patience is not None else FINISH_S if ended else INTERRUPTED_S)
        self._put({"finish": dict(values), "ended": ended})
        self._put(None)
        self._writer.join(max(0.0, until - time.monotonic()))
        try:
            process.wait(max(0.0, until - time.monotonic()))
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            for name in self._trackers:
                self._problem(name, "it was still busy when the run ended, and was ended with it")
        self._reader.join(1.0)
        if process.returncode and process.returncode > 0:
            self._all(f"the trackers' process ended with {process.returncode}")
        self._process = None

    def _put(self, message: Message | None) -> None:
        if self._process is None:
            return
        try:
            self._todo.put_nowait(message)
        except queue.Full:
            if message is None or "finish" in message:
                # The end is worth more than what waits.
                with contextlib.suppress(queue.Empty):
                    self._todo.get_nowait()
                self._put(message)

    def _write(self) -> None:
        process = self._process
        assert process is not None  # noqa: S101 - it is what started this thread
        assert process.stdin is not None  # noqa: S101
        with contextlib.suppress(OSError, ValueError):
            while (message := self._todo.get()) is not None:
                process.stdin.write(json.dumps(message) + "\n")
            process.stdin.close()

    def _read(self) -> None:
        process = self._process
        assert process is not None  # noqa: S101
        assert process.stdout is not None  # noqa: S101
        for line in process.stdout:
            with contextlib.suppress(ValueError, KeyError, TypeError):
                message = json.loads(line)
                if "problem" in message:
                    self._problem(message["tracker"], message["problem"])
                elif "id" in message:
                    self.ids[message["tracker"]] = message["id"]

    def _all(self, why: str) -> None:
        for name in self._trackers:
            self._problem(name, why)

    def _problem(self, name: str, why: str) -> None:
        if name not in self.problems:
            self.problems[name] = why
            log.warning("warning: tracking.%s does not work, and the run goes on without it: %s", name, why)
