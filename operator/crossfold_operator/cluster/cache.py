"""The cache of objects that every Cluster reads from."""

from bisect import bisect_left
from collections import OrderedDict, defaultdict
from dataclasses import dataclass, field

from crossfold_operator.cluster.base import Key, Obj, key_of
from crossfold_operator.names import Kind
from crossfold_operator.observe.metadata import controller_of


def controller_uid(obj: Obj) -> str:
    """UID of the controller owner, or an empty string."""
    owner = controller_of(obj)
    return str(owner["uid"]) if owner else ""


def version_of(obj: Obj) -> int:
    """The resource version, which orders the changes of one kind's objects."""
    return int(obj["metadata"].get("resourceVersion", 0))


REMEMBERED_DELETIONS = 20_000
"""How many deleted objects are remembered: more than can be in flight between a request and its answer."""


@dataclass
class _Family:
    """The children of one owner: their names in order, and the objects in the same order.

    There are thousands of them, they are asked for at each look at their owner, and one changes from one look to the
    next.
    """

    names: list[tuple[str, str]] = field(default_factory=list)
    objects: list[Obj] = field(default_factory=list)

    def put(self, key: Key, obj: Obj) -> None:
        name = key[1:]
        place = bisect_left(self.names, name)
        if place < len(self.names) and self.names[place] == name:
            self.objects[place] = obj
        else:
            self.names.insert(place, name)
            self.objects.insert(place, obj)

    def remove(self, key: Key) -> None:
        name = key[1:]
        place = bisect_left(self.names, name)
        if place < len(self.names) and self.names[place] == name:
            del self.names[place], self.objects[place]


class Cache:
    """Objects by key and by controller owner.

    An object is only ever replaced by a newer one of its name, and a deleted one never comes back: the answer to a
    patch may arrive after the news that its object was deleted.
    """

    def __init__(self) -> None:
        self._objects: dict[Key, Obj] = {}
        self._children: defaultdict[tuple[Kind, str], _Family] = defaultdict(_Family)
        self._deleted: OrderedDict[str, None] = OrderedDict()

    def get(self, key: Key) -> Obj | None:
        """The object of this key, or None."""
        return self._objects.get(key)

    def children(self, kind: Kind, owner_uid: str) -> list[Obj]:
        """Objects of a kind whose controller owner has this UID, sorted by name."""
        family = self._children.get((kind, owner_uid))
        return [] if family is None else list(family.objects)

    def keys(self, kind: Kind) -> list[Key]:
        """Keys of all objects of a kind."""
        # A copy first: metrics are read in another thread, where a dictionary must not change meanwhile.
        return [key for key in list(self._objects) if key.kind is kind]

    def put(self, obj: Obj) -> bool:
        """Add or replace; False when the cached object is the same or newer, or this one is known to be deleted."""
        key = key_of(obj)
        if obj["metadata"].get("uid", "") in self._deleted:
            return False
        old = self._objects.get(key)
        if old is not None:
            if version_of(old) >= version_of(obj):
                return False
            if controller_uid(old) != controller_uid(obj):
                self._forget(key, old)
        self._objects[key] = obj
        if uid := controller_uid(obj):
            self._children[key.kind, uid].put(key, obj)
        return True

    def remove(self, key: Key, uid: str = "") -> Obj | None:
        """Remove and return the object; None when it is not there or has another UID."""
        old = self._objects.get(key)
        if gone := uid or (old["metadata"].get("uid", "") if old else ""):
            self._deleted[gone] = None
            if len(self._deleted) > REMEMBERED_DELETIONS:
                self._deleted.popitem(last=False)
        if old is None or (uid and old["metadata"].get("uid") != uid):
            return None
        del self._objects[key]
        self._forget(key, old)
        return old

    def _forget(self, key: Key, obj: Obj) -> None:
        index = (key.kind, controller_uid(obj))
        if family := self._children.get(index):
            family.remove(key)
            if not family.names:
                del self._children[index]
