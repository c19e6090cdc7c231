"""SIGTERM: the request to save what there is and to end."""

import signal
import time
from types import FrameType

from crossfold_trainer.errors import Interrupted

MARGIN_S = 2.0


class Interrupt:
    """Knows whether SIGTERM (or ctrl-C) arrived.

    While `deferred`, a signal only sets `requested`: as long as the program is imported, and again when it trains,
    where the training loop ends after the step under way. In between there is nothing to save, and whatever takes
    long may never end, so the signal ends the process where it is.
    """

    def __init__(self) -> None:
        """Nothing has arrived."""
        self.requested = False
        self.deferred = True
        self.grace_seconds = 0.0
        """From SIGTERM to SIGKILL."""
        self._arrived_at = 0.0
        self._signal = ""
        self._installed = False

    @property
    def deadline(self) -> float | None:
        """When everything must be over (`time.monotonic`); None while nothing has arrived.

        A tenth of the grace period, but two seconds at least, is left for ending the process.
        """
        if not self.requested:
            return None
        return self._arrived_at + self.grace_seconds - max(MARGIN_S, self.grace_seconds / 10)

    def request(self) -> None:
        """Ask for the end, as the signal does."""
        if not self.requested:
            self.requested, self._arrived_at = True, time.monotonic()

    def install(self) -> None:
        """Listen from now on. Main thread only."""
        self._installed = True
        signal.signal(signal.SIGTERM, self._arrived)
        signal.signal(signal.SIGINT, self._arrived)

    def reinstall(self) -> None:
        """Listen again, where we did and a library has put a handler of its own in our place."""
        if self._installed:
            self.install()

    def undefer(self) -> None:
        """From now on a signal ends the process where it is; one that has arrived does so now.

        Raises:
            Interrupted: one has arrived.
        """
        self.deferred = False
        if self._signal:
            self._end()

    @property
    def ended_early(self) -> bool:
        """Whether a signal ended the process before it trained."""
        return bool(self._signal) and not self.deferred

    def _arrived(self, number: int, _frame: FrameType | None) -> None:
        self.request()
        self._signal = signal.Signals(number).name
        if not self.deferred:
            self._end()

    def _end(self) -> None:
        raise Interrupted(f"{self._signal} arrived before training began: nothing to save")


class Stop(Exception):
    """SIGTERM arrived while training: the state is to be saved."""
