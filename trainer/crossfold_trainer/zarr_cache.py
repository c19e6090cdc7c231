"""A zarr store whose objects are kept in a DiskCache: for the layouts that are read through zarr."""

import asyncio
from typing import Any

from zarr.abc.store import ByteRequest, OffsetByteRequest, RangeByteRequest, Store, SuffixByteRequest
from zarr.core.buffer import Buffer, BufferPrototype
from zarr.storage import WrapperStore

from crossfold_trainer.cache import DiskCache
from crossfold_trainer.inventory import Inventory


class CachedStore(WrapperStore[Any]):
    """Reads what was listed from the cache, else from the store below; a part of an object brings all of it."""

    def __init__(self, below: Store, cache: DiskCache, inventory: Inventory) -> None:
        """Put a cache in front of a store."""
        super().__init__(below)
        self._cache = cache
        self._inventory = inventory

    async def get(self, key: str, prototype: BufferPrototype, byte_range: ByteRequest | None = None) -> Buffer | None:
        """An object or a part of it; None when there is none."""
        size = self._inventory.size(key)
        if size is None:
            return await self._store.get(key, prototype, byte_range)  # type: ignore[no-any-return]
        content = await asyncio.to_thread(self._cache.read, key, size)
        if content is None:
            got = await self._store.get(key, prototype)
            if got is None:
                return None
            content = memoryview(got.to_bytes())
            await asyncio.to_thread(self._cache.write, key, content)
        return prototype.buffer.from_bytes(content[_slice(byte_range)])


def _slice(part: ByteRequest | None) -> slice:
    match part:
        case None:
            return slice(None)
        case RangeByteRequest():
            return slice(part.start, part.end)
        case OffsetByteRequest():
            return slice(part.offset, None)
        case SuffixByteRequest():
            return slice(-part.suffix, None)
