"""A queue that serves its groups in turn. Pure asyncio."""

import asyncio
from collections import OrderedDict, deque
from typing import Generic, TypeVar

T = TypeVar("T")

Path = tuple[str, str]
"""The namespace of what an item belongs to, and who it belongs to in there."""


class FairQueue(Generic[T]):
    """First in, first out for each owner; owners of a namespace take turns, and so do namespaces.

    Whoever puts many items into it delays nobody but itself. All methods belong to the thread of one event loop.
    """

    def __init__(self) -> None:
        self._groups: OrderedDict[str, OrderedDict[str, deque[T]]] = OrderedDict()
        self._count = 0
        self._filled = asyncio.Event()

    def __len__(self) -> int:
        """How many items wait."""
        return self._count

    def put(self, path: Path, item: T) -> None:
        """Add an item at the end of its owner's queue."""
        namespace, owner = path
        self._groups.setdefault(namespace, OrderedDict()).setdefault(owner, deque()).append(item)
        self._count += 1
        self._filled.set()

    def take(self) -> T:
        """Remove the next item.

        Raises:
            IndexError: there is none.
        """
        if not self._groups:
            raise IndexError("the queue is empty")
        namespace, owners = next(iter(self._groups.items()))
        owner, items = next(iter(owners.items()))
        item = items.popleft()
        self._count -= 1
        owners.move_to_end(owner)
        self._groups.move_to_end(namespace)
        if not items:
            del owners[owner]
        if not owners:
            del self._groups[namespace]
        return item

    async def get(self) -> T:
        """Remove the next item; wait while there is none."""
        while not self._groups:
            self._filled.clear()
            await self._filled.wait()
        return self.take()
