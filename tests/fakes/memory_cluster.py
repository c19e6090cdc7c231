"""A Cluster in memory that behaves as an API server does: admission, versions, conflicts, deletion, and faults.

The server's objects and the cache that a Reconciler reads from are two things, so that the cache may lag behind.
Writes pass admission (the CRDs' own schemas and rules); a status that its schema does not take is refused.
"""

import copy
import itertools
import json
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Any

from crossfold_operator.cluster import admission
from crossfold_operator.cluster.base import Creation, Key, Obj, Refused, Unavailable, WarningEvent, key_of
from crossfold_operator.cluster.cache import Cache, controller_uid
from crossfold_operator.names import OWN_KINDS, Kind
from crossfold_operator.observe.metadata import wakes

START = datetime(2026, 1, 1, tzinfo=UTC)


class Clock:
    """A virtual clock; time passes only when it is told to."""

    def __init__(self, now: datetime = START) -> None:
        self.now = now

    def __call__(self) -> datetime:
        return self.now

    def advance(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)

    @property
    def text(self) -> str:
        return self.now.strftime("%Y-%m-%dT%H:%M:%SZ")


Fault = Callable[[str, Key], str | None]
"""(verb, key) of a write -> "before" (it is refused an answer and nothing happened), "after" (it took effect and the
answer was lost), or None."""


def merge(target: Any, patch: Any) -> Any:
    """RFC 7386."""
    if not isinstance(patch, dict):
        return patch
    out = dict(target) if isinstance(target, dict) else {}
    for key, value in patch.items():
        if value is None:
            out.pop(key, None)
        else:
            out[key] = merge(out.get(key), value)
    return out


# Objects are never changed in place, so that the same judgement may serve many of them: tests repeat themselves.


@lru_cache(maxsize=4096)
def _created(text: str) -> tuple[Obj, list[str]]:
    return admission.admit(json.loads(text), None)


@lru_cache(maxsize=4096)
def _status(kind: str, text: str) -> tuple[Obj, list[str]]:
    """What the schema makes of a status; rules over the spec need not be asked again while it stays."""
    schema = admission.schema_of_kind(Kind(kind))["properties"]["status"]
    status = admission._defaulted(json.loads(text), schema)
    found = [*admission._unknown(status, schema, "status"), *admission._mismatches(status, schema, "status")]
    return status, [f"{path}: {text}" for path, text in found]


class MemoryCluster:
    """The Cluster protocol over dictionaries.

    Attributes:
        objects: what the API server has.
        cache: what a Reconciler sees; the same unless ``lagging``.
        lagging: news of the server reaches the cache only by ``deliver``; answers to own writes do so at once.
        woken: keys to reconcile, in the order in which news of them came.
        events: (name, reason, message) of every Event that was recorded.
        calls: every write that was asked for, as (verb, key).
        writes: every write that took effect.
        faults: decides which writes get no answer.
        scripted_warnings: Warning Events by the object's name.
    """

    def __init__(self, clock: Clock | None = None) -> None:
        self.clock = clock or Clock()
        self.objects: dict[Key, Obj] = {}
        self.cache = Cache()
        self.lagging = False
        self.news: list[tuple[bool, Obj]] = []
        self.woken: dict[Key, None] = {}
        self.events: list[tuple[str, str, str]] = []
        self.writes: list[tuple[str, Key]] = []
        self.calls: list[tuple[str, Key]] = []
        self.faults: Fault = lambda verb, key: None
        self.scripted_warnings: dict[str, list[tuple[str, str]]] = {}
        self.refuse: Callable[[Obj], Refused | None] = lambda manifest: None
        self._numbers = itertools.count(1)

    # The Cluster protocol ---------------------------------------------------------------------------------------

    def get(self, key: Key) -> Obj | None:
        return self.cache.get(key)

    def children(self, kind: Kind, owner_uid: str) -> list[Obj]:
        return self.cache.children(kind, owner_uid)

    def all(self, kind: Kind) -> list[Obj]:
        return [obj for key in self.cache.keys(kind) if (obj := self.cache.get(key)) is not None]

    async def create(self, manifest: Obj) -> Creation:
        key = key_of(manifest)
        fault = self._fault("create", key)
        if key in self.objects:
            return Creation(self._show(self.objects[key]), existed=True)
        if (refused := self.refuse(manifest)) is not None:
            raise refused
        stored = self._store(self._born(self._admitted(manifest, None)))
        self._wrote("create", key, fault)
        return Creation(self._show(stored), existed=False)

    async def patch(self, key: Key, uid: str, patch: Mapping[str, Any], *, status: bool = False) -> Obj | None:
        verb = "status" if status else "patch"
        fault = self._fault(verb, key)
        seen, old = self.cache.get(key), self.objects.get(key)
        if old is None or old["metadata"]["uid"] != uid or seen is None:
            return None
        if status and seen["metadata"]["resourceVersion"] != old["metadata"]["resourceVersion"]:
            raise Unavailable(f"{key} was changed meanwhile")
        assert set(patch) <= ({"status"} if status else {"spec", "metadata"}), f"{verb} writes {set(patch)}"
        new = self._admitted(merge(old, json.loads(json.dumps(patch, allow_nan=False))), old)
        if new == old:
            return self._show(old)
        if new["spec"] != old["spec"]:
            new["metadata"] = {**new["metadata"], "generation": old["metadata"]["generation"] + 1}
        stored = self._store(new)
        self._wrote(verb, key, fault)
        return self._show(stored)

    async def delete(self, key: Key, uid: str) -> None:
        fault = self._fault("delete", key)
        old = self.objects.get(key)
        if old is None or old["metadata"]["uid"] != uid:
            return
        self.remove(key, foreground=True)
        self._wrote("delete", key, fault)
        if (now := self.objects.get(key)) is not None:
            self._show(now)
        else:
            self.cache.remove(key, uid)

    async def warnings(self, regarding: Obj) -> list[WarningEvent]:
        return [WarningEvent(*event) for event in self.scripted_warnings.get(regarding["metadata"]["name"], ())]

    async def event(self, regarding: Obj, *, warning: bool, reason: str, message: str) -> None:
        self.events.append((regarding["metadata"]["name"], str(reason), message))

    # What others do ---------------------------------------------------------------------------------------------

    def apply(self, manifest: Obj) -> Obj:
        """Create or merge, as a person or a controller does. No faults."""
        key = key_of(manifest)
        old = self.objects.get(key)
        if old is None:
            return self._store(self._born(self._admitted(manifest, None)))
        new = self._admitted(merge(old, manifest), old)
        if new.get("spec") != old.get("spec"):
            new["metadata"] = {**new["metadata"], "generation": old["metadata"].get("generation", 1) + 1}
        return self._store(new)

    def replace(self, obj: Obj) -> Obj:
        """Put an object as it is, past admission: what an earlier release may have left."""
        obj = copy.deepcopy(obj)
        obj["metadata"].setdefault("uid", f"uid-{next(self._numbers)}")
        return self._store(obj)

    def remove(self, key: Key, *, foreground: bool = False) -> None:
        """Delete an object; in the foreground it stays until ``collect`` has removed what depends on it."""
        obj = self.objects.get(key)
        if obj is None:
            return
        if foreground and self._dependents(obj["metadata"]["uid"]):
            if not obj["metadata"].get("deletionTimestamp"):
                self._store({**obj, "metadata": {**obj["metadata"], "deletionTimestamp": self.clock.text}})
            return
        del self.objects[key]
        self._tell(gone=True, obj=obj)

    def collect(self) -> bool:
        """One pass of the garbage collector; whether it did anything."""
        before = len(self.objects)
        uids = {obj["metadata"]["uid"] for obj in self.objects.values()}
        deleting = {obj["metadata"]["uid"] for obj in self.objects.values() if obj["metadata"].get("deletionTimestamp")}
        for key, obj in list(self.objects.items()):
            owner, uid = controller_uid(obj), obj["metadata"]["uid"]
            if owner and owner not in uids:
                self.remove(key)
            elif owner in deleting or uid in deleting:
                if not self._dependents(uid):
                    self.remove(key)
                elif owner in deleting:
                    self.remove(key, foreground=True)
        return len(self.objects) != before

    def deliver(self, count: int | None = None) -> None:
        """Let news of the server reach the cache."""
        due, self.news = self.news[:count], self.news[len(self.news) if count is None else count :]
        for gone, obj in due:
            if gone:
                self.cache.remove(key_of(obj), obj["metadata"]["uid"])
            else:
                self.cache.put(obj)
            self._wake(obj)

    def of(self, kind: Kind) -> list[Obj]:
        """The server's objects of a kind, sorted by name."""
        return [self.objects[key] for key in sorted(self.objects) if key.kind is kind]

    def status(self, kind: Kind, name: str, namespace: str = "d") -> Obj:
        """The stored status of an object."""
        return self.objects[Key(kind, namespace, name)].get("status", {})

    # Inside -----------------------------------------------------------------------------------------------------

    def _admitted(self, manifest: Obj, old: Obj | None) -> Obj:
        manifest = json.loads(json.dumps(manifest, allow_nan=False))
        if Kind(manifest["kind"]) not in OWN_KINDS:
            return manifest
        if old is None:
            defaulted, problems = _created(json.dumps(manifest))
        elif manifest["spec"] == old["spec"]:
            status, problems = _status(manifest["kind"], json.dumps(manifest.get("status", {})))
            defaulted = {**manifest, "status": status}
        else:
            defaulted, problems = admission.admit(manifest, old)
            # As an API server does, what was wrong before may stay so.
            problems = [problem for problem in problems if problem not in _created(json.dumps(old))[1]]
        if problems:
            raise Refused(422, f"{key_of(manifest)}: {'; '.join(problems)}")
        assert len(json.dumps(defaulted)) < 300_000, "the object is too large"
        return defaulted

    def _born(self, obj: Obj) -> Obj:
        born = {"uid": f"uid-{next(self._numbers)}", "generation": 1, "creationTimestamp": self.clock.text}
        return {**obj, "metadata": {**obj["metadata"], **born}}

    def _store(self, obj: Obj) -> Obj:
        stored = {**obj, "metadata": {**obj["metadata"], "resourceVersion": str(next(self._numbers))}}
        self.objects[key_of(stored)] = stored
        self._tell(gone=False, obj=stored)
        return stored

    def _tell(self, *, gone: bool, obj: Obj) -> None:
        self.news.append((gone, obj))
        if not self.lagging:
            self.deliver()

    def _show(self, obj: Obj) -> Obj:
        """The answer to a write enters the cache."""
        if self.cache.put(obj):
            self._wake(obj)
        return self.cache.get(key_of(obj)) or obj

    def _wake(self, obj: Obj) -> None:
        for key in wakes(obj):
            self.woken[Key(*key)] = None

    def _dependents(self, uid: str) -> list[Key]:
        return [key for key, obj in self.objects.items() if controller_uid(obj) == uid]

    def _fault(self, verb: str, key: Key) -> str | None:
        self.calls.append((verb, key))
        fault = self.faults(verb, key)
        if fault == "before":
            raise Unavailable(f"{verb} {key}: no answer")
        return fault

    def _wrote(self, verb: str, key: Key, fault: str | None) -> None:
        self.writes.append((verb, key))
        if fault == "after":
            raise Unavailable(f"{verb} {key}: it happened, and the answer was lost")
