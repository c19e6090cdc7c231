"""The process that holds all trackers: JSON lines in, JSON lines out.

In: first ``{"run": RunFacts, "trackers": {name: spec}}``, then ``{"scalars": {...}, "step": n}`` and ``{"image": name,
"png": base64, "step": n}``, at last ``{"finish": {...}, "ended": bool}``. Out: ``{"tracker": name, "id": ...}`` once a
tracker is open, ``{"tracker": name, "problem": text}`` for the first of its problems.
"""

import base64
import json
import os
import queue
import signal
import sys
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

from crossfold_trainer.trackers.base import RunFacts, Tracker

WAITING = 5000
"""Messages that may wait for a tracker; what comes when it is full is dropped."""
OPEN_PAUSES = (0.0, 5.0, 20.0)
"""Seconds before each try to open a tracker."""
MOST_FAILURES = 5
"""Messages in a row that a tracker may fail at before it is given up."""

Message = dict[str, Any]
Tell = Callable[[Message], None]


def make(name: str, spec: Mapping[str, Any]) -> Tracker:
    """A tracker by its name in the API."""
    match name:
        case "wandb":
            from crossfold_trainer.trackers.wandb import WandbTracker  # noqa: PLC0415

            return WandbTracker(spec)
        case "aim":
            from crossfold_trainer.trackers.aim import AimTracker  # noqa: PLC0415

            return AimTracker(spec)
        case "mlflow":
            from crossfold_trainer.trackers.mlflow import MlflowTracker  # noqa: PLC0415

            return MlflowTracker(spec)
        case _:
            raise ValueError(f"there is no tracker {name}")


class Worker:
    """One tracker in a thread: a service that hangs holds up nobody else."""

    def __init__(self, name: str, tracker: Tracker, run: RunFacts, tell: Tell) -> None:
        """Start the thread."""
        self._name = name
        self._tracker = tracker
        self._run = run
        self._tell = tell
        self._told = False
        self._todo: queue.Queue[Message] = queue.Queue(WAITING)
        self.thread = threading.Thread(target=self._work, name=name, daemon=True)
        self.thread.start()

    def put(self, message: Message) -> None:
        """Hand on a message, or drop it when too many wait."""
        try:
            self._todo.put_nowait(message)
        except queue.Full:
            self._problem("it is too slow: some of its numbers were dropped")

    def _problem(self, text: str) -> None:
        if not self._told:
            self._told = True
            self._tell({"tracker": self._name, "problem": text})

    def _work(self) -> None:
        if not self._open():
            return
        failures = 0
        while failures < MOST_FAILURES:
            message = self._todo.get()
            try:
                self._log(message)
                failures = 0
            except Exception as error:  # noqa: BLE001 - a tracker's problem is nobody else's
                failures += 1
                self._problem(said(error))
            if "finish" in message:
                return

    def _open(self) -> bool:
        why = ""
        for pause in OPEN_PAUSES:
            time.sleep(pause)
            try:
                self._tell({"tracker": self._name, "id": self._tracker.open(self._run)})
            except ModuleNotFoundError as error:
                remedy = "pip install crossfold[trackers], or build the image with TRACKERS=1"
                why = f"{error.name} is not installed: {remedy}"
                break
            except ValueError as error:
                why = said(error)
                break
            except Exception as error:  # noqa: BLE001
                why = said(error)
            else:
                return True
        self._problem(why)
        return False

    def _log(self, message: Message) -> None:
        if "scalars" in message:
            self._tracker.log_scalars(message["scalars"], message["step"])
        elif "image" in message:
            self._tracker.log_image(message["image"], base64.b64decode(message["png"]), message["step"])
        elif "finish" in message:
            self._tracker.finish(message["finish"], ended=message["ended"])


def said(error: Exception) -> str:
    """An error in one line."""
    return f"{type(error).__name__}: {' '.join(str(error).split())}"[:300]


def main() -> None:
    """Serve one attempt, until its end or the trainer's."""
    # The trainer says when to end; what libraries print goes with the errors.
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    lock = threading.Lock()

    def tell(message: Message) -> None:
        with lock:
            answers.write(json.dumps(message) + "\n")
            answers.flush()

    opening = json.loads(sys.stdin.readline())
    run = RunFacts(**opening["run"])
    workers = [Worker(name, make(name, spec), run, tell) for name, spec in opening["trackers"].items()]
    ended = False
    for line in sys.stdin:
        message = json.loads(line)
        ended = ended or "finish" in message
        for worker in workers:
            worker.put(message)
    if not ended:
        for worker in workers:
            worker.put({"finish": {}, "ended": False})
    for worker in workers:
        worker.thread.join()
    # What a library left behind has nobody to wait for it.
    os._exit(0)


if __name__ == "__main__":
    main()
