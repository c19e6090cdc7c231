"""Batches of patches in a reproducible order: from memory when the data fits, else read ahead in threads."""

from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
import torch
from torch import Tensor

from crossfold_trainer.data import DataSet, Index, Patches

READ_PATCHES = 64
"""Patches per request when everything is read into memory."""


def epoch_batches(rows: Index, batch_size: int, seed: int, epoch: int) -> list[Index]:
    """The train batches of one epoch: shuffled by (seed, epoch) alone; what does not fill a batch waits its turn."""
    order = np.random.default_rng([seed, epoch]).permutation(rows)
    return [order[i : i + batch_size] for i in range(0, len(order) - batch_size + 1, batch_size)]


def ordered_batches(rows: Index, batch_size: int) -> list[Index]:
    """The validation batches: every row once, in order."""
    return [rows[i : i + batch_size] for i in range(0, len(rows), batch_size)]


class Loader:
    """Reads batches of an open data set onto a device.

    Patches that the run needs are kept in memory when they fit; otherwise `ahead` batches are read while the
    device computes. Order and content do not depend on which of the two it is.
    """

    def __init__(self, data: DataSet, rows: Index, device: torch.device, readers: int = 1) -> None:
        """Prepare for these rows; reads all of them when they fit in memory."""
        self._data = data
        self._device = device
        self._readers = max(1, readers)
        self._kept: Patches | None = None
        self._position = {int(row): i for i, row in enumerate(rows)}
        if data.fits_in_memory(len(rows)):
            parts = [data.read(rows[i : i + READ_PATCHES]) for i in range(0, len(rows), READ_PATCHES)]
            self._kept = Patches(np.concatenate([p.x for p in parts]), np.concatenate([p.y for p in parts]))

    def batches(self, batches: Sequence[Index]) -> Iterator[tuple[Tensor, Tensor]]:
        """Each batch as x (B, C, H, W) float32 and y (B, H, W) uint8 on the device."""
        if self._kept is not None:
            for rows in batches:
                at = [self._position[int(row)] for row in rows]
                yield self._to_device(Patches(self._kept.x[at], self._kept.y[at]))
            return
        with ThreadPoolExecutor(self._readers, thread_name_prefix="read") as pool:
            waiting: deque[Future[Patches]] = deque()
            todo = iter(batches)
            try:
                for rows in todo:
                    waiting.append(pool.submit(self._data.read, rows))
                    if len(waiting) > self._readers:
                        yield self._to_device(waiting.popleft().result())
                while waiting:
                    yield self._to_device(waiting.popleft().result())
            finally:
                for future in waiting:
                    future.cancel()

    def _to_device(self, patches: Patches) -> tuple[Tensor, Tensor]:
        x, y = torch.from_numpy(patches.x), torch.from_numpy(patches.y)
        if self._device.type == "cuda":
            return x.pin_memory().to(self._device, non_blocking=True), y.pin_memory().to(
                self._device, non_blocking=True
            )
        return x, y
