"""Where the wall-clock time of an attempt goes: training, waiting for data, waiting for checkpoints.

Only the host's clock is read: nothing here waits for a device. On a GPU a step is queued in no time and the host runs
ahead of it, so that a rate is right over an epoch (whose metrics are read at its end) rather than over a step.
"""

import time
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TypeVar

Batch = TypeVar("Batch")


@dataclass
class Meter:
    """Sums of one attempt, in seconds; the training thread alone changes them."""

    clock: Callable[[], float] = time.monotonic
    began: float = field(init=False)
    training: float = 0.0
    """In train epochs, from asking for the first batch to having the metrics; validation is not in it."""
    data_wait: float = 0.0
    """Of that, without anything to train on."""
    checkpoint_wait: float = 0.0
    """Until a checkpoint was packed and handed to the upload."""
    patches: int = 0
    """Patches trained on."""
    _since: float | None = None
    """Since when an epoch is trained."""

    def __post_init__(self) -> None:
        """Time begins to count."""
        self.began = self.clock()

    @property
    def elapsed(self) -> float:
        """Seconds of the attempt."""
        return self.clock() - self.began

    @property
    def trained(self) -> float:
        """Seconds of training so far, the epoch under way included."""
        return self.training + (self.clock() - self._since if self._since is not None else 0.0)

    @property
    def patches_per_second(self) -> float | None:
        """Patches trained per second of training; None before there are any."""
        return self.patches / seconds if self.patches and (seconds := self.trained) > 0 else None

    @property
    def data_wait_share(self) -> float | None:
        """Share of training that was waiting for data, in [0, 1]; None before there is any."""
        return min(1.0, self.data_wait / seconds) if (seconds := self.trained) > 0 else None

    @property
    def checkpoint_wait_share(self) -> float | None:
        """Share of the attempt that was waiting for checkpoints, in [0, 1]; None before there is any."""
        return min(1.0, self.checkpoint_wait / seconds) if (seconds := self.elapsed) > 0 else None

    def start(self) -> None:
        """An epoch is trained from now on; nothing when it is already."""
        if self._since is None:
            self._since = self.clock()

    def stop(self) -> None:
        """No epoch is trained any more; nothing when none was."""
        if self._since is not None:
            self.training += self.clock() - self._since
            self._since = None

    def batches(self, source: Iterator[Batch], waited: Callable[[], float]) -> Generator[Batch, None, None]:
        """The same batches; the wait for each is counted.

        Args:
            source: batches, or one rank's shares of them.
            waited: seconds that the source has waited for data since it began.
        """
        before = waited()
        for batch in source:
            self.data_wait += waited() - before
            before = waited()
            yield batch

    @contextmanager
    def checkpoint(self) -> Iterator[None]:
        """A checkpoint is made in here."""
        asked = self.clock()
        try:
            yield
        finally:
            self.checkpoint_wait += self.clock() - asked
