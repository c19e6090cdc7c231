"""The Cluster protocol over a Kubernetes API server."""

import asyncio
import logging
from collections.abc import Mapping
from typing import Any, NoReturn

from crossfold_operator import names
from crossfold_operator.cluster import paths
from crossfold_operator.cluster.base import (
    Creation,
    Key,
    Obj,
    OnChange,
    Refused,
    Unavailable,
    WarningEvent,
    key_of,
)
from crossfold_operator.cluster.cache import Cache, version_of
from crossfold_operator.cluster.client import MERGE_PATCH, ApiError, ApiServer
from crossfold_operator.cluster.events import EventRecorder, recent_warnings
from crossfold_operator.cluster.watch import ListWatch
from crossfold_operator.names import Kind

logger = logging.getLogger(__name__)

MASS_KINDS = (Kind.JOB, Kind.POD, Kind.SERVICE)
"""Kinds that this class watches itself; events of the own kinds are brought to ``observe``."""
_MANAGED = f"{names.LABEL_MANAGED_BY}=crossfold"
_WRITE = {"fieldManager": names.FIELD_MANAGER, "fieldValidation": "Strict"}
_REFUSALS = frozenset({400, 403, 405, 406, 413, 415, 422})
_CREATE_TRIES = 3
# After a watch of an own kind has listed, when to list too: see watch_started.
_SETTLE_SECONDS = 2.0
_UNHEARD_SECONDS = (2.0, 10.0, 30.0, 60.0)


class KubernetesCluster:
    """Objects of one namespace, or of all, through one API server.

    Use: ``sync`` once (again until it succeeds), then ``run`` beside the reconciles, and ``observe`` for each event
    of the own kinds. Every version of an object that gets into the cache is reported to ``on_change`` once, whether
    a watch, a list or a write of our own brought it.
    """

    def __init__(self, server: ApiServer, *, namespace: str, on_change: OnChange, resync_seconds: float) -> None:
        self._server = server
        self._cache = Cache()
        self._on_change = on_change
        self._resync_seconds = resync_seconds
        self._relist: asyncio.Queue[Kind] = asyncio.Queue()
        self._relisting: set[Kind] = set()
        self._unheard: set[Kind] = set()
        self._events = EventRecorder(server)
        self._lists = {
            kind: ListWatch(server, kind, namespace, _MANAGED if kind in MASS_KINDS else "", self)
            for kind in (*names.OWN_KINDS, *MASS_KINDS)
        }

    # Reading ------------------------------------------------------------------------------------------------------

    def get(self, key: Key) -> Obj | None:
        """The cached object, or None."""
        return self._cache.get(key)

    def children(self, kind: Kind, owner_uid: str) -> list[Obj]:
        """Cached objects of a kind whose controller owner has this UID, sorted by name."""
        return self._cache.children(kind, owner_uid)

    def all(self, kind: Kind) -> list[Obj]:
        """All cached objects of a kind."""
        return [obj for key in self._cache.keys(kind) if (obj := self._cache.get(key)) is not None]

    async def warnings(self, regarding: Obj) -> list[WarningEvent]:
        """Recent Warning Events about an object, newest first; those of this operator are left out."""
        try:
            return await recent_warnings(self._server, regarding)
        except ApiError as error:
            _fail(error)

    def count(self, kind: Kind) -> int:
        """How many objects of a kind are cached."""
        return len(self._cache.keys(kind))

    # Writing ------------------------------------------------------------------------------------------------------

    async def create(self, manifest: Obj) -> Creation:
        """Create under a fixed name. Where the name is taken, return the object that has it, read afresh."""
        key = key_of(manifest)
        refusal: ApiError | None = None
        for _ in range(_CREATE_TRIES):
            try:
                obj = await self._server.request(
                    "POST", paths.collection(key.kind, key.namespace), query=_WRITE, body=manifest
                )
            except ApiError as error:
                if error.code != 409:
                    _fail(error)
                # Whoever had the name may be gone by the time one looks: then it is free.
                refusal = error
                holder = await self._read(key)
                if holder is not None:
                    return Creation(holder, existed=True)
            else:
                return Creation(self._keep(key.kind, obj), existed=False)
        raise Unavailable(f"{key} is there when created and not when read: {refusal}")

    async def patch(self, key: Key, uid: str, patch: Mapping[str, Any], *, status: bool = False) -> Obj | None:
        """Merge-patch an object (or its status). None when it is gone or another object has the name (UID)."""
        cached = self._cache.get(key)
        if cached is None or cached["metadata"]["uid"] != uid:
            return None
        metadata = {**patch.get("metadata", {}), "uid": uid}
        if status:
            # A status patch ignores the UID. The version that the status was judged by says which object is meant,
            # and keeps a judgement of an outdated object from being written.
            metadata["resourceVersion"] = cached["metadata"]["resourceVersion"]
        path = paths.path_of(key, "status" if status else "")
        try:
            obj = await self._server.request(
                "PATCH", path, query=_WRITE, body={**patch, "metadata": metadata}, content_type=MERGE_PATCH
            )
        except ApiError as error:
            if error.code == 404:
                self._forget(key, uid)
                return None
            # A UID that does not fit is 422 (immutable) or 409, and so is much else: look who is there.
            if error.code in (409, 422):
                holder = await self._read(key)
                if holder is None or holder["metadata"]["uid"] != uid:
                    return None
            _fail(error)
        return self._keep(key.kind, obj)

    async def delete(self, key: Key, uid: str) -> None:
        """Delete in the foreground: the object stays, with a deletionTimestamp, until its dependents are gone."""
        options = {
            "apiVersion": "v1",
            "kind": "DeleteOptions",
            "propagationPolicy": "Foreground",
            "preconditions": {"uid": uid},
        }
        try:
            answer = await self._server.request("DELETE", paths.path_of(key), body=options)
        except ApiError as error:
            if error.code == 404:
                self._forget(key, uid)
                return
            if error.code == 409:
                holder = await self._read(key)
                if holder is None or holder["metadata"]["uid"] != uid:
                    return
            _fail(error)
        if answer.get("kind") == key.kind:
            self._keep(key.kind, answer)
        else:
            self._forget(key, uid)

    async def event(self, regarding: Obj, *, warning: bool, reason: str, message: str) -> None:
        """Record an Event about an object. Best effort: never raises."""
        await self._events.record(regarding, warning=warning, reason=reason, message=message)

    # Keeping the cache --------------------------------------------------------------------------------------------

    async def sync(self) -> None:
        """Fill the cache, completely.

        Raises:
            Unavailable: a list failed; call again.
        """
        for lists in self._lists.values():
            await lists.list()

    async def run(self) -> None:
        """Keep the cache current, for ever: watch the mass kinds, and compare all kinds from time to time."""
        async with asyncio.TaskGroup() as group:
            for kind in MASS_KINDS:
                group.create_task(self._lists[kind].run(), name=f"watch {kind}")
            group.create_task(self._relist_for_ever(), name="relist")
            group.create_task(self._resync_for_ever(), name="resync")

    def watch_started(self) -> None:
        """Be told that the watches of the own kinds start (again).

        Such a watch begins with a list of its own, and says nothing of what was deleted before that. A list of ours
        that is younger closes the gap: it is due once the watch's list begins to come in. An empty list never does,
        so that until a kind is heard of it is listed a few times, which costs little as it has few objects.
        """
        self._unheard = set(names.OWN_KINDS)
        for seconds in _UNHEARD_SECONDS:
            asyncio.get_running_loop().call_later(seconds, self._list_unheard)

    def observe(self, event_type: str | None, obj: Obj) -> None:
        """Take in one event: ADDED, MODIFIED, DELETED, or None for an object of a watch's list."""
        key = key_of(obj)
        if event_type == "DELETED":
            self._forget(key, obj["metadata"]["uid"], last=paths.slim(key.kind, obj))
            return
        if event_type is None:
            self._unheard.discard(key.kind)
            self._list_soon(key.kind, _SETTLE_SECONDS)
        self._keep(key.kind, obj)

    def listed(self, kind: Kind, page: list[Obj]) -> None:
        """Take in one page of a list."""
        for obj in page:
            self._keep(kind, obj)

    def list_ended(self, kind: Kind, version: int, seen: set[tuple[str, str]]) -> None:
        """Remove what a list no longer has, other than objects that are younger than the list."""
        for key in self._cache.keys(kind):
            if (key.namespace, key.name) in seen:
                continue
            obj = self._cache.get(key)
            if obj is not None and version_of(obj) <= version:
                self._forget(key, obj["metadata"]["uid"])

    def _list_unheard(self) -> None:
        for kind in self._unheard:
            self._list_soon(kind, 0.0)

    def _list_soon(self, kind: Kind, seconds: float) -> None:
        if kind not in self._relisting:
            self._relisting.add(kind)
            asyncio.get_running_loop().call_later(seconds, self._relist.put_nowait, kind)

    async def _resync_for_ever(self) -> None:
        while True:
            await asyncio.sleep(self._resync_seconds)
            for kind in self._lists:
                self._list_soon(kind, 0.0)

    async def _relist_for_ever(self) -> None:
        while True:
            kind = await self._relist.get()
            self._relisting.discard(kind)
            try:
                await self._lists[kind].list()
            except Unavailable as error:
                logger.warning("comparison interrupted: %s", error, extra={"kind": kind})
            except Exception:
                logger.exception("comparison failed", extra={"kind": kind})

    async def _read(self, key: Key) -> Obj | None:
        """Read one object past the cache."""
        try:
            return self._keep(key.kind, await self._server.request("GET", paths.path_of(key)))
        except ApiError as error:
            if error.code == 404:
                return None
            _fail(error)

    def _keep(self, kind: Kind, obj: Obj) -> Obj:
        """Put into the cache; return what is then known under the name: this object, or a newer one."""
        slimmed = paths.slim(kind, obj)
        if self._cache.put(slimmed):
            self._report(slimmed)
            return slimmed
        return self._cache.get(key_of(slimmed)) or slimmed

    def _forget(self, key: Key, uid: str, last: Obj | None = None) -> None:
        removed = self._cache.remove(key, uid)
        if (gone := last or removed) is not None:
            self._report(gone)

    def _report(self, obj: Obj) -> None:
        try:
            self._on_change(obj)
        except Exception:
            logger.exception("a change was not understood", extra={"object": str(key_of(obj))})


def _fail(error: ApiError) -> NoReturn:
    """Raise what the protocol calls this error."""
    if error.code in _REFUSALS:
        raise Refused(error.code, error.message) from error
    raise Unavailable(str(error)) from error
