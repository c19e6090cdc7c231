"""Batches of patches on a device in a reproducible order: read ahead into recycled buffers, or kept in memory.

Shapes: B patches in a batch, k bands, H x W pixels. Numbers travel to the device as they are stored (two bytes
instead of four in data sets that Crossfold writes) and become float32 there.
"""

import sys
import time
from collections import deque
from collections.abc import Generator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, assert_never

import numpy as np
import torch
from torch import Tensor

from crossfold_trainer.contract.trainer import InMemory
from crossfold_trainer.data import DataSet
from crossfold_trainer.errors import ConfigError
from crossfold_trainer.layout import Raw, Scaling
from crossfold_trainer.machine import memory_limit
from crossfold_trainer.reader import Mask
from crossfold_trainer.splits import Index
from crossfold_trainer.values import Range, ends, is_unit, plain

AHEAD_BATCHES = 8
AHEAD_BYTES = 256 * 2**20
"""So many batches are read ahead, or so many bytes where that is less; two batches at least."""
GATHERED_AHEAD = 4
"""Batches that are gathered ahead for a GPU where all patches are in memory."""
SWITCH_S = 0.0005
"""A thread that has a batch to gather or decode waits for the interpreter so long at most; Python's own 5 ms are more
than a step of a GPU takes."""
RESTING = 2
"""Pinned buffers rest for so many batches until their copy on the device is waited for: by then it is done."""
STEPS_QUEUED = 4
"""A device is at most so many batches behind: each takes its memory."""
MEMORY_SHARE = 0.4
"""Of the memory that this process may use: what is used of the data is kept when it is no more than this share."""

_TORCH = {"<f4": torch.float32, "<u2": torch.uint16, "<i2": torch.int16, "|u1": torch.uint8, "|i1": torch.int8}


def epoch_batches(rows: Index, batch_size: int, seed: int, epoch: int) -> list[Index]:
    """The train batches of one epoch: shuffled by (seed, epoch) alone; what does not fill a batch waits its turn."""
    order = np.random.default_rng([seed, epoch]).permutation(rows)
    return [order[i : i + batch_size] for i in range(0, len(order) - batch_size + 1, batch_size)]


def ordered_batches(rows: Index, batch_size: int) -> list[Index]:
    """The validation batches: every row once, in order."""
    return [rows[i : i + batch_size] for i in range(0, len(rows), batch_size)]


class Loader:
    """Reads batches of an open data set onto a device.

    The rows that the run needs are kept in memory when they fit; otherwise some batches are read ahead while the
    device computes. Order and content do not depend on which of the two it is.
    """

    def __init__(
        self,
        data: DataSet,
        rows: Index,
        device: torch.device,
        threads: int = 0,
        in_memory: InMemory = InMemory.AUTO,
        *,
        processes: int = 1,
    ) -> None:
        """Prepare for these rows; reads all of them when they fit in memory.

        Args:
            data: the open data set.
            rows: all rows that will ever be asked for.
            device: where batches go.
            threads: that decode; 0: one a CPU, at most eight.
            in_memory: whether the rows are kept in memory.
            processes: that keep the same rows in the same memory.

        Raises:
            ConfigError: the rows are to be kept in memory and do not fit.
        """
        self.waited = 0.0
        """Seconds that `batches` has waited for data while the device had nothing to do, at most."""
        self._data = data
        self._device = device
        cuda = device.type == "cuda"
        if cuda:
            sys.setswitchinterval(SWITCH_S)
        self._copying = torch.cuda.Stream(device) if cuda else None  # type: ignore[no-untyped-call]
        # On a CPU the training thread may as well gather batches itself: there is nothing that it keeps from working.
        self._gathering = ThreadPoolExecutor(1, thread_name_prefix="gather") if cuda else None
        self._scale = Scale(data.reader.dtype, data.reader.scaling, data.ranges, device)
        self._idle: list[_Buffers] = []
        self._kept: _Buffers | None = None
        self._position: dict[int, int] = {}
        data.reader.use_threads(threads)
        if _fits(processes * len(rows) * data.patch_bytes, in_memory):
            self._position = {int(row): i for i, row in enumerate(rows)}
            self._kept = _Buffers(*self._new(len(rows), pinned=False))
            if len(rows):
                data.reader.submit(rows, *self._kept.arrays(len(rows))).result()

    @property
    def in_memory(self) -> bool:
        """Whether the rows are kept in memory."""
        return self._kept is not None

    def batches(self, batches: Sequence[Index]) -> Generator[tuple[Tensor, Tensor], None, None]:
        """Each batch as x (B, k, H, W) float32 and y (B, H, W) uint8 on the device, for the caller to keep."""
        if not batches:
            return
        free, resting = self._room(max(map(len, batches)))
        todo, under_way, behind = iter(batches), deque[_Reading](), _Behind(self._device)

        def read_ahead() -> None:
            while len(free) > resting and (rows := next(todo, None)) is not None:
                under_way.append(self._begin(rows, free.popleft()))

        try:
            read_ahead()
            while under_way:
                self._wait(under_way[0].future, behind)
                done = under_way.popleft()
                batch = self._to_device(done.buffers, done.n)
                free.append(done.buffers)
                read_ahead()
                yield batch
                behind.note()
        finally:
            self._idle = list(free)
            for reading in under_way:
                reading.future.cancel()

    def _wait(self, future: "Future[None]", behind: "_Behind") -> None:
        """Until a batch is read. A device that has other work all the while misses nothing."""
        began = time.perf_counter()
        late = not future.done()
        future.result()
        if late and behind.idle:
            self.waited += time.perf_counter() - began

    def _room(self, batch: int) -> "tuple[deque[_Buffers], int]":
        """Buffers for as many batches of this size as are read ahead, and how many of them rest between two uses."""
        pinned = self._copying is not None
        resting = RESTING if pinned else 0
        ahead = (
            (GATHERED_AHEAD if pinned else 1)
            if self.in_memory
            else max(2, min(AHEAD_BATCHES, AHEAD_BYTES // (batch * self._data.patch_bytes)))
        )
        room = deque(buffers for buffers in self._idle[: ahead + resting] if len(buffers.x) >= batch)
        while len(room) < ahead + resting:
            room.append(_Buffers(*self._new(batch, pinned=pinned)))
        return room, resting

    def _new(self, n: int, *, pinned: bool) -> tuple[Tensor, Tensor]:
        data = self._data
        shape = (n, len(data.bands), *data.shape)
        with torch.inference_mode(False):  # made while validating, they serve training too
            return (
                torch.empty(shape, dtype=_TORCH[data.reader.dtype.str], pin_memory=pinned),
                torch.empty((n, *data.shape), dtype=torch.uint8, pin_memory=pinned),
            )

    def _begin(self, rows: Index, buffers: "_Buffers") -> "_Reading":
        buffers.wait()
        if self._kept is None:
            return _Reading(self._data.reader.submit(rows, *buffers.arrays(len(rows))), buffers, len(rows))
        if self._gathering is not None:
            return _Reading(self._gathering.submit(self._gather, self._kept, rows, buffers), buffers, len(rows))
        self._gather(self._kept, rows, buffers)
        ready: Future[None] = Future()
        ready.set_result(None)
        return _Reading(ready, buffers, len(rows))

    def _gather(self, kept: "_Buffers", rows: Index, buffers: "_Buffers") -> None:
        at = torch.tensor([self._position[int(row)] for row in rows])
        for source, target in ((kept.x, buffers.x), (kept.y, buffers.y)):
            torch.index_select(_signed(source), 0, at, out=_signed(target)[: len(rows)])

    def _to_device(self, buffers: "_Buffers", n: int) -> tuple[Tensor, Tensor]:
        x, y = buffers.x[:n], buffers.y[:n]
        if self._copying is not None:
            # Beside the work that is queued, not behind it.
            with torch.cuda.stream(self._copying):
                x, y = x.to(self._device, non_blocking=True), y.to(self._device, non_blocking=True)
                buffers.copied = torch.cuda.Event()  # type: ignore[no-untyped-call]
                buffers.copied.record()
            working = torch.cuda.current_stream(self._device)
            working.wait_event(buffers.copied)
            for tensor in (x, y):  # its memory is not taken for another copy before it has been worked with
                tensor.record_stream(working)
            return self._scale(x), y
        scaled = self._scale(x)
        if scaled is not x:
            return scaled, y.clone()
        # The caller's from here on: new room costs less than a copy.
        buffers.x, buffers.y = self._new(len(buffers.x), pinned=False)
        return x, y


class _Behind:
    """How far a device is behind what the host has queued for it; a CPU never is."""

    def __init__(self, device: torch.device) -> None:
        self._cuda = device.type == "cuda"
        self._queued: deque[torch.cuda.Event] = deque()

    def note(self) -> None:
        """All work on a batch is queued; wait while there is too much of it."""
        if self._cuda:
            end = torch.cuda.Event()  # type: ignore[no-untyped-call]
            end.record()
            self._queued.append(end)
            if len(self._queued) > STEPS_QUEUED:
                self._queued.popleft().synchronize()

    @property
    def idle(self) -> bool:
        """Whether the device has done all that was noted."""
        return not self._queued or self._queued[-1].query()  # type: ignore[no-untyped-call]


def _fits(size: int, wanted: InMemory) -> bool:
    """Whether so many bytes are to be kept in memory."""
    limit = memory_limit()
    match wanted:
        case InMemory.AUTO:
            return size <= MEMORY_SHARE * limit
        case InMemory.NEVER:
            return False
        case InMemory.ALWAYS:
            if size > limit:
                raise ConfigError(
                    "trainer.inMemory",
                    f"the run's patches take {size / 2**30:.1f} GiB of memory, and {limit / 2**30:.1f} GiB may be used:"
                    " raise template.resources.limits.memory or choose Auto",
                )
            return True
        case _:
            assert_never(wanted)


@dataclass
class _Buffers:
    """Room for one batch, as it is stored: x (B, k, H, W), y (B, H, W)."""

    x: Tensor
    y: Tensor
    copied: torch.cuda.Event | None = None
    """When the device has taken it all."""

    def arrays(self, n: int) -> tuple[Raw, Mask]:
        """The room for n patches, for a reader."""
        return self.x[:n].numpy(), self.y[:n].numpy()

    def wait(self) -> None:
        """Until it may be written to again."""
        if self.copied is not None:
            self.copied.synchronize()
            self.copied = None


@dataclass
class _Reading:
    """A batch under way."""

    future: "Future[None]"
    buffers: _Buffers
    n: int


class Scale:
    """Stored numbers to what a model gets, on the device, to the last bit as `values.decode` does."""

    def __init__(
        self, dtype: np.dtype[Any], scaling: Scaling | None, ranges: Sequence[Range], device: torch.device
    ) -> None:
        """Prepare; divisors lie on the device, since a device may multiply by a host number's reciprocal.

        Args:
            dtype: in which numbers are stored.
            scaling: the array's own filter.
            ranges: of the k bands.
            device: where batches are.
        """
        self._scaling = scaling
        if scaling is not None:
            exact = torch.float32 if scaling.plain else torch.float64
            self._divisor = torch.tensor(scaling.scale, dtype=exact, device=device)
        self._ends: list[Tensor] = []
        if not is_unit(ranges):
            exact = torch.float32 if plain(ranges, integers=scaling is None and dtype.kind != "f") else torch.float64
            self._ends = [torch.from_numpy(each).to(device, exact) for each in ends(ranges)]

    def __call__(self, stored: Tensor) -> Tensor:
        """(B, k, H, W) as stored -> float32, in room of its own; the same tensor where there is nothing to do."""
        values = self._unfiltered(stored)
        if not self._ends:
            return values.float()
        low, width = self._ends
        return values.to(low.dtype).sub(low).div_(width).float()

    def _unfiltered(self, stored: Tensor) -> Tensor:
        if self._scaling is None:
            return stored
        values = stored.to(self._divisor.dtype).div_(self._divisor)
        return values if self._scaling.plain else values.add_(self._scaling.offset).float()


def _signed(tensor: Tensor) -> Tensor:
    """The same bits in a type that torch can gather."""
    return tensor.view(torch.int16) if tensor.dtype == torch.uint16 else tensor
