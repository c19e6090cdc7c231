"""A worker process: it answers the operator's questions to samplers, one after the other, until its input ends."""

import os
import queue
import signal
import sys
import threading
import traceback
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

from crossfold_operator.search.history import Trial
from crossfold_operator.search.suggest import suggest
from crossfold_operator.workers import frames
from crossfold_operator.workers.frames import Reply, Request

_NICER = 5
"""The operator itself comes first where CPUs are short, """
_SOONER = "500"
"""and is the last to be killed where memory is (Linux: oom_score_adj)."""


class Histories:
    """What each Tune has told so far: the operator sends what has changed."""

    def __init__(self) -> None:
        self._told: dict[str, list[Trial]] = {}

    def updated(self, request: Request) -> Sequence[Trial]:
        """The trials of the Tune that asks."""
        for search in request.forget:
            self._told.pop(search, None)
        told = [] if request.kept is None else self._told[request.search][: request.kept]
        for place, sent in request.changes:
            told[place : place + 1] = [frames.trial_of(sent)]
        self._told[request.search] = told
        return told


def reply_to(histories: Histories, request: Request) -> Reply:
    """Answer; what goes wrong is an answer, too."""
    try:
        told = histories.updated(request)
        return Reply(suggest(request.settings, told, request.first, request.count, request.seconds))
    except Exception as error:  # noqa: BLE001 -- whatever a sampler's package raises
        return Reply(None, f"{type(error).__name__}: {error}", traceback.format_exc())


def _requests(stream: BinaryIO, into: "queue.Queue[Request]") -> None:
    """Hand requests on. The end of the operator is the end of this process, whatever it is reckoning."""
    with suppress(EOFError, OSError):
        while True:
            into.put(frames.read(stream))
    os._exit(0)


def main() -> None:
    """Work until the input ends."""
    # ctrl-C is for the operator, or for `crossfold run`.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with suppress(OSError):
        os.nice(_NICER)
    with suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text(_SOONER)
    # Nothing but frames may get into the output, whatever a package prints.
    out = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    requests: queue.Queue[Request] = queue.Queue()
    threading.Thread(target=_requests, args=(sys.stdin.buffer, requests), daemon=True).start()
    histories = Histories()
    out.write(frames.packed(frames.READY))
    out.flush()
    while True:
        out.write(frames.packed(reply_to(histories, requests.get())))
        out.flush()


if __name__ == "__main__":
    main()
