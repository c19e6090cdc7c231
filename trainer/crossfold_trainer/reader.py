"""Reads patches into buffers of the caller's: many requests in flight in one asyncio thread, decoding in threads.

Shapes: n rows, k read bands, H x W pixels; x is written to (n, k, H, W) as it is stored, y to (n, H, W) uint8.
"""

import asyncio
import gzip
import threading
import zlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from crossfold_trainer.cache import DiskCache
from crossfold_trainer.errors import ConfigError
from crossfold_trainer.inventory import Inventory
from crossfold_trainer.layout import Buffer, Layout, Raw, Scaling
from crossfold_trainer.machine import cpu_count
from crossfold_trainer.splits import Index
from crossfold_trainer.store import Store
from crossfold_trainer.values import PatchCheck

if TYPE_CHECKING:
    from zarr import Array

T = TypeVar("T")
Mask = NDArray[np.uint8]
REQUESTS = 96
"""Requests in flight, at most."""
DECODERS = 8
"""Threads that decode, at most, unless a number is given."""
ZARR_READERS = 4
"""Batches that zarr reads at the same time, each with its own concurrent requests."""


def threads(wanted: int = 0) -> int:
    """How many threads decode: what is wanted; 0: one a CPU, at most `DECODERS`."""
    return wanted or min(DECODERS, cpu_count())


class Reader(ABC):
    """Reads patches of one data set.

    What is submitted first is read first. Failures come out of the future: ConfigError where the data are wrong,
    StoreError where the storage fails in spite of bounded retries; the buffers then hold anything.
    """

    dtype: np.dtype[Any]
    """In which x is written."""
    scaling: Scaling | None
    """What stored numbers mean; None: they are meant as they are."""

    @abstractmethod
    def submit(self, rows: Index, x: Raw, y: Mask) -> "Future[None]":
        """Begin to read these rows into C-contiguous buffers, which are the reader's own until the future is done."""

    @abstractmethod
    def use_threads(self, n: int) -> None:
        """Decode in this many threads; called before the first `submit`."""


class ChunkReader(Reader):
    """Reads a data set whose chunks hold one patch each, x and y alike, straight into the buffers."""

    def __init__(
        self,
        store: Store,
        inventory: Inventory,
        x: Layout,
        y: Layout,
        *,
        columns: Sequence[int],
        check: PatchCheck,
        cache: DiskCache | None = None,
    ) -> None:
        """Prepare; threads start with the first `submit`.

        Args:
            store: holds the chunks.
            inventory: what it held when the data set was opened.
            x: layout of the images.
            y: layout of the labels.
            columns: the bands to read, in their order, as positions in x.
            check: called with each patch that is read, before it is anyone's.
            cache: keeps the chunks that are fetched.
        """
        self.dtype, self.scaling = x.dtype, x.scaling
        self._store = store
        self._inventory = inventory
        self._x, self._y = x, y
        self._blocks = _blocks(columns, x.bands)
        self._check = check
        self._cache = cache
        self._threads = threads()
        self._started = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._pool: ThreadPoolExecutor
        self._requests: asyncio.Semaphore
        self._samples: asyncio.Semaphore

    def use_threads(self, n: int) -> None:
        """Decode in this many threads."""
        self._threads = threads(n)

    def submit(self, rows: Index, x: Raw, y: Mask) -> "Future[None]":
        """Begin to read these rows."""
        return asyncio.run_coroutine_threadsafe(self._fill(rows, x, y), self._running())

    def _running(self) -> asyncio.AbstractEventLoop:
        with self._started:
            if self._loop is None:
                self._loop = asyncio.new_event_loop()
                self._pool = ThreadPoolExecutor(self._threads, thread_name_prefix="decode")
                self._requests = asyncio.Semaphore(REQUESTS)
                # Half as many samples again as fill the requests: the last chunk of one must not hold up the next.
                per_sample = 1 + len(self._blocks)
                self._samples = asyncio.Semaphore(max(2 * self._threads, 3 * REQUESTS // (2 * per_sample)))
                threading.Thread(target=self._loop.run_forever, name="read", daemon=True).start()
            return self._loop

    async def _fill(self, rows: Index, x: Raw, y: Mask) -> None:
        try:
            async with asyncio.TaskGroup() as group:
                for i, row in enumerate(rows.tolist()):
                    group.create_task(self._sample(row, x[i], y[i]))
        except BaseExceptionGroup as errors:
            raise errors.exceptions[0] from None

    async def _sample(self, row: int, x: Raw, y: Mask) -> None:
        chunks = [_Chunk(self._y.key(row), self._y, y, None)]
        chunks += [_Chunk(self._x.key(row, block.number), self._x, x, block) for block in self._blocks]
        async with self._samples:
            # What is near has no latency to hide: it is read in the thread that decodes it.
            if self._store.folder is not None:
                return await self._in_thread(self._read_and_decode, row, chunks, x, y)
            if self._cache is not None and await self._in_thread(self._take_cached, row, chunks, x, y):
                return None
            await asyncio.gather(*(self._fetch(chunk) for chunk in chunks if chunk.content is None))
        # Decoding waits its turn without keeping new requests from starting.
        try:
            return await self._in_thread(self._decode, row, chunks, x, y)
        except _Undecodable:
            # Damaged on its way, or where it lies? A second copy tells.
            await asyncio.gather(*(self._fetch(chunk) for chunk in chunks))
        return await self._in_thread(self._decode, row, chunks, x, y)

    async def _in_thread(self, work: Callable[..., T], *arguments: Any) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._pool, work, *arguments)

    async def _fetch(self, chunk: "_Chunk") -> None:
        if self._inventory.size(chunk.key) is None:
            return
        async with self._requests:
            got = await self._store.fetch(chunk.key)
        if got is None:
            raise self._lost(chunk.key)
        if got.tag and not self._inventory.same(chunk.key, got.tag):
            raise ConfigError(
                "data.uri",
                f"{self._store.uri}/{chunk.key} was replaced while this run read the data set: write a changed data"
                " set to a place of its own",
            )
        chunk.content, chunk.fetched = got.content, True

    def _take_cached(self, row: int, chunks: "Sequence[_Chunk]", x: Raw, y: Mask) -> bool:
        """Take what the cache has; when that is everything, decode it and say so."""
        missing = False
        for chunk in chunks:
            size = self._inventory.size(chunk.key)
            if size is not None and self._cache is not None:
                chunk.content = self._cache.read(chunk.key, size)
                missing = missing or chunk.content is None
        if not missing:
            self._decode(row, chunks, x, y)
        return not missing

    def _read_and_decode(self, row: int, chunks: "Sequence[_Chunk]", x: Raw, y: Mask) -> None:
        folder = self._store.folder
        for chunk in chunks:
            if self._inventory.size(chunk.key) is None:
                continue
            try:
                chunk.content = (folder / chunk.key).read_bytes()  # type: ignore[operator]
            except FileNotFoundError:
                raise self._lost(chunk.key) from None
            except OSError as error:
                raise self._store.explain(error, chunk.key) from None
        self._decode(row, chunks, x, y)

    def _decode(self, row: int, chunks: "Sequence[_Chunk]", x: Raw, y: Mask) -> None:
        for chunk in chunks:
            try:
                chunk.decode()
            except ValueError as error:
                raise _Undecodable(
                    "data.uri",
                    f"{self._store.uri}/{chunk.key} cannot be decoded ({error}): write the data set again",
                ) from error
            if chunk.fetched and self._cache is not None:
                self._cache.write(chunk.key, chunk.content)
            chunk.content = None
        self._check(row, x, y)

    def _lost(self, key: str) -> ConfigError:
        return ConfigError(
            "data.uri",
            f"{self._store.uri}/{key} was there when the data set was opened and is gone: nothing may change a data set"
            " that runs use",
        )


class _Undecodable(ConfigError):
    """A chunk's bytes are no chunk."""


@dataclass(frozen=True)
class _Block:
    """The bands that one chunk gives."""

    number: int
    source: list[int]
    """Positions in the chunk."""
    target: list[int]
    """Positions in the buffer."""


def _blocks(columns: Sequence[int], bands: int) -> list[_Block]:
    """Which chunks hold the wanted bands: each chunk once."""
    found: dict[int, _Block] = {}
    for target, column in enumerate(columns):
        block = found.setdefault(column // bands, _Block(column // bands, [], []))
        block.source.append(column % bands)
        block.target.append(target)
    return list(found.values())


@dataclass
class _Chunk:
    """One chunk on its way to its place in a buffer."""

    key: str
    layout: Layout
    out: Raw
    block: _Block | None
    content: Buffer | None = None
    fetched: bool = False

    def decode(self) -> None:
        """Put the numbers where they belong.

        Raises:
            ValueError: the content is no chunk of this layout.
        """
        layout, block = self.layout, self.block
        if block is None:
            layout.decode(self.content, self.out)
        elif layout.bands == 1 and len(block.target) == 1:
            layout.decode(self.content, self.out[block.target[0]])
        elif block.source == list(range(layout.bands)) and block.target == list(range(len(self.out))):
            layout.decode(self.content, self.out)
        else:
            all_bands = np.empty((layout.bands, *layout.pixels), layout.dtype)
            layout.decode(self.content, all_bands)
            self.out[block.target] = all_bands[block.source]


class ZarrReader(Reader):
    """Reads any other data set through zarr."""

    def __init__(
        self,
        store: Store,
        x: "Array[Any]",
        y: "Array[Any]",
        *,
        columns: Sequence[int],
        check: PatchCheck,
    ) -> None:
        """Wrap open arrays; `columns` and `check` as with `ChunkReader`."""
        self.dtype, self.scaling = np.dtype(x.dtype).newbyteorder("="), None
        self._store = store
        self._x, self._y = x, y
        self._columns = np.array(columns)
        self._check = check
        self._pool = ThreadPoolExecutor(ZARR_READERS, thread_name_prefix="zarr")

    def use_threads(self, n: int) -> None:
        """Let zarr, whose threads all arrays of a process share, decode in this many."""
        import zarr  # noqa: PLC0415 - open already

        zarr.config.set({"threading.max_workers": threads(n)})

    def submit(self, rows: Index, x: Raw, y: Mask) -> "Future[None]":
        """Begin to read these rows."""
        return self._pool.submit(self._fill, rows, x, y)

    def _fill(self, rows: Index, x: Raw, y: Mask) -> None:
        def read() -> None:
            try:
                x[:] = self._x.oindex[rows, self._columns]
                y[:] = self._y.oindex[rows]
            except (ValueError, RuntimeError, EOFError, zlib.error, gzip.BadGzipFile) as error:
                raise ConfigError(
                    "data.uri",
                    f"a chunk of patches {_some(rows)} cannot be decoded ({error}): write the data set again",
                ) from error

        self._store.attempt(read, "")
        for i, row in enumerate(rows.tolist()):
            self._check(row, x[i], y[i])


def _some(rows: Index) -> str:
    return ", ".join(map(str, rows[:8])) + (", ..." if len(rows) > 8 else "")
