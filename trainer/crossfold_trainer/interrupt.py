"""SIGTERM: the request to save what there is and to end."""

import signal
from types import FrameType

from crossfold_trainer.errors import Interrupted


class Interrupt:
    """Knows whether SIGTERM (or ctrl-C) arrived.

    Before training there is nothing to save, so the signal ends the process where it is. Once `deferred`, it only
    sets `requested`, and the training loop ends after the step under way.
    """

    def __init__(self) -> None:
        """Nothing has arrived."""
        self.requested = False
        self.deferred = False

    def install(self) -> None:
        """Listen from now on. Main thread only."""
        signal.signal(signal.SIGTERM, self._arrived)
        signal.signal(signal.SIGINT, self._arrived)

    def _arrived(self, number: int, _frame: FrameType | None) -> None:
        self.requested = True
        if not self.deferred:
            raise Interrupted(f"{signal.Signals(number).name} arrived before training began: nothing to save")
