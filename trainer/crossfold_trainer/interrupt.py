"""SIGTERM: the request to save what there is and to end."""

import signal
import time
from types import FrameType

from crossfold_trainer.errors import Interrupted

MARGIN_S = 2.0


class Interrupt:
    """Knows whether SIGTERM (or ctrl-C) arrived.

    Before training there is nothing to save, so the signal ends the process where it is. Once `deferred`, it only
    sets `requested`, and the training loop ends after the step under way.
    """

    def __init__(self) -> None:
        """Nothing has arrived."""
        self.requested = False
        self.deferred = False
        self.grace_seconds = 0.0
        """From SIGTERM to SIGKILL."""
        self._arrived_at = 0.0

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
        signal.signal(signal.SIGTERM, self._arrived)
        signal.signal(signal.SIGINT, self._arrived)

    def _arrived(self, number: int, _frame: FrameType | None) -> None:
        self.request()
        if not self.deferred:
            raise Interrupted(f"{signal.Signals(number).name} arrived before training began: nothing to save")
