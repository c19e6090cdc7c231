"""The Cluster protocol: all that a reconcile may ask of the outside world."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

from crossfold_operator.names import Kind

Obj = dict[str, Any]
"""A Kubernetes object as plain JSON."""


class Key(NamedTuple):
    """Names one object. The only form of key there is."""

    kind: Kind
    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.kind}/{self.namespace}/{self.name}"


def key_of(obj: Obj) -> Key:
    """The key of an object that says its kind."""
    meta = obj["metadata"]
    return Key(Kind(obj["kind"]), meta.get("namespace", ""), meta["name"])


class Refused(Exception):
    """The cluster refused a write for good: it would be refused again until somebody changes something.

    Attributes:
        code: HTTP status (403 quota or rights, 422 invalid).
        message: what the cluster said.
    """

    def __init__(self, code: int, message: str) -> None:
        super().__init__(f"{code}: {message}")
        self.code = code
        self.message = message


class Unavailable(Exception):
    """The cluster could not answer (network, 429, 5xx, conflict): trying again later is right."""


@dataclass(frozen=True)
class Creation:
    """What became of a create: the object that now stands under the name, and whether it was there before."""

    obj: Obj
    existed: bool


class WarningEvent(NamedTuple):
    """A Warning Event of the cluster's own about an object (FailedMount, FailedCreate, FailedScheduling)."""

    reason: str
    message: str


class Cluster(Protocol):
    """Objects and the Jobs that they turn into.

    Reads come from a cache that is complete before the first reconcile: nothing is read from the cluster in a
    reconcile, with the exception of ``warnings``. Returned objects are shared and must not be changed. Every
    write puts the cluster's answer into the cache before it returns, so that the next read sees it; a cached object
    is only ever replaced by a newer one. Children are found by the UID of their controller owner.

    All methods raise Unavailable when the cluster cannot answer, and writes raise Refused when it will not.
    """

    def get(self, key: Key) -> Obj | None:
        """The cached object, or None."""
        ...

    def children(self, kind: Kind, owner_uid: str) -> list[Obj]:
        """Cached objects of a kind whose controller owner has this UID, sorted by name."""
        ...

    def all(self, kind: Kind) -> list[Obj]:
        """All cached objects of a kind."""
        ...

    async def create(self, manifest: Obj) -> Creation:
        """Create under a fixed name. Where the name is taken, return the object that has it, read afresh."""
        ...

    async def patch(self, key: Key, uid: str, patch: Mapping[str, Any], *, status: bool = False) -> Obj | None:
        """Merge-patch an object (or its status). None when it is gone or another object has the name (UID)."""
        ...

    async def delete(self, key: Key, uid: str) -> None:
        """Delete in the foreground: the object stays, with a deletionTimestamp, until its dependents are gone.

        An object that is gone already, or whose name another one has, is no error.
        """
        ...

    async def warnings(self, regarding: Obj) -> list[WarningEvent]:
        """Recent Warning Events about an object, newest first."""
        ...

    async def event(self, regarding: Obj, *, warning: bool, reason: str, message: str) -> None:
        """Record an Event about an object. Best effort: never raises."""
        ...


OnChange = Callable[[Obj], None]
"""Called with every object that was added, changed or (in its last form) deleted."""

Reconcile = Callable[[Key], Awaitable[float | None]]
"""Reconciles one key; returns seconds after which to look again, or None."""
