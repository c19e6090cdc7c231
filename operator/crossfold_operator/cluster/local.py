"""The Cluster protocol on one machine: objects in a folder, Jobs as processes."""

import asyncio
import fcntl
import json
import logging
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

from crossfold_operator.cluster import jobs
from crossfold_operator.cluster.admission import admit
from crossfold_operator.cluster.base import Creation, Key, Obj, OnChange, Refused, WarningEvent, key_of
from crossfold_operator.cluster.cache import controller_uid
from crossfold_operator.cluster.folder import Folder, FolderError, merge_patch
from crossfold_operator.cluster.kubelet import DEFAULT_COMMAND, Kubelet
from crossfold_operator.cluster.slots import Slot, SlotPool
from crossfold_operator.names import OWN_KINDS, Kind
from crossfold_operator.times import timestamp

logger = logging.getLogger(__name__)

FOREGROUND = "foregroundDeletion"
"""The finalizer of an object that waits for its dependents to go."""

OnEvent = Callable[[Key, bool, str, str], None]
"""Called with every Event: key of the object, whether it is a warning, reason and message."""


class LocalCluster:
    """Objects of one folder, and their Jobs as processes of this machine.

    It plays API server (admission, defaults, generations, foreground deletion), Job controller and kubelet.
    Use: ``start`` once, ``stop`` at the end. A folder serves one of them at a time.
    """

    def __init__(
        self,
        root: Path,
        slots: Sequence[Slot],
        *,
        on_change: OnChange = lambda _: None,
        on_event: OnEvent = lambda *_: None,
        command: Sequence[str] = DEFAULT_COMMAND,
    ) -> None:
        self._root = root
        self._on_event = on_event
        self._folder = Folder(root, on_change)
        self._kubelet = Kubelet(self._folder, root, SlotPool(slots), command, self._pod_gone)
        self._lock: IO[str] | None = None

    async def start(self) -> None:
        """Lock the folder, read it, and take up where it was left.

        Raises:
            FolderError: another process works in the folder, or it cannot be read.
        """
        self._root.mkdir(parents=True, exist_ok=True)
        lock = (self._root / "lock").open("a+")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            lock.seek(0)
            holder = lock.read().strip() or "unknown"
            lock.close()
            raise FolderError(
                f"process {holder} works in {self._root}: wait for it or end it, or choose another folder"
            ) from error
        lock.truncate(0)
        lock.write(f"{os.getpid()}\n")
        lock.flush()
        self._lock = lock
        self._folder.load()
        await self._kubelet.resume()
        for kind in Kind:
            for obj in self._folder.all(kind):
                self._collect_orphan(key_of(obj), obj["metadata"]["uid"])

    async def stop(self) -> None:
        """End all processes cleanly and release the folder."""
        await self._kubelet.stop()
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def kill(self) -> None:
        """End all processes at once, without their leave."""
        self._kubelet.kill()

    def log_of(self, pod: Obj) -> Path:
        """The log of a pod."""
        return self._kubelet.log_of(pod)

    def progress_of(self, pod: Obj) -> Path:
        """The file in which a pod's trainer says how far it is; not there before it has."""
        return self._kubelet.progress_of(pod)

    # Reading ------------------------------------------------------------------------------------------------------

    def get(self, key: Key) -> Obj | None:
        """The object, or None."""
        return self._folder.get(key)

    def all(self, kind: Kind) -> list[Obj]:
        """All objects of a kind, sorted by name."""
        return self._folder.all(kind)

    def children(self, kind: Kind, owner_uid: str) -> list[Obj]:
        """Objects of a kind whose controller owner has this UID, sorted by name."""
        return self._folder.children(kind, owner_uid)

    async def warnings(self, regarding: Obj) -> list[WarningEvent]:  # noqa: ARG002 -- the protocol's signature
        """None: what keeps a process from starting is in its pod's status."""
        return []

    # Writing ------------------------------------------------------------------------------------------------------

    async def create(self, manifest: Obj) -> Creation:
        """Create under a fixed name. Where the name is taken, return the object that has it."""
        manifest = {**manifest, "metadata": {"namespace": "default", **manifest["metadata"]}}
        key = key_of(manifest)
        holder = self._folder.get(key)
        if holder is not None:
            return Creation(holder, existed=True)
        manifest.pop("status", None)
        if key.kind is Kind.JOB:
            manifest = jobs.on_one_machine(manifest)
        obj = self._folder.add(_admitted(manifest, None))
        if key.kind is Kind.JOB:
            self._kubelet.start(obj)
        asyncio.get_running_loop().call_soon(self._collect_orphan, key, obj["metadata"]["uid"])
        return Creation(obj, existed=False)

    async def apply(self, manifest: Obj) -> Obj:
        """Create an object, or give the one that has its name this spec.

        Raises:
            Refused: the object, or what would change in it, is not accepted.
        """
        created = await self.create(manifest)
        if not created.existed:
            return created.obj
        old = created.obj
        new = _admitted({**old, "spec": manifest.get("spec")}, old)
        return self._folder.replace(old, new)

    async def patch(self, key: Key, uid: str, patch: Mapping[str, Any], *, status: bool = False) -> Obj | None:
        """Merge-patch an object (or its status). None when it is gone or another object has the name (UID)."""
        old = self._folder.get(key)
        if old is None or old["metadata"]["uid"] != uid:
            return None
        if status:
            new = {**old, "status": merge_patch(old.get("status", {}), patch.get("status", {}))}
        else:
            metadata = patch.get("metadata", {})
            marks = {name: metadata[name] for name in ("labels", "annotations") if name in metadata}
            new = {**old, "metadata": merge_patch(old["metadata"], marks)}
            if "spec" in patch:
                new["spec"] = merge_patch(old["spec"], patch["spec"])
        return self._folder.replace(old, _admitted(new, old))

    async def delete(self, key: Key, uid: str) -> None:
        """Delete in the foreground: the object stays, with a deletionTimestamp, until its dependents are gone."""
        obj = self._folder.get(key)
        if obj is not None and obj["metadata"]["uid"] == uid:
            self._delete(obj)

    async def event(self, regarding: Obj, *, warning: bool, reason: str, message: str) -> None:
        """Record an Event about an object. Best effort: never raises."""
        key = key_of(regarding)
        record = {
            "time": timestamp(),
            "type": "Warning" if warning else "Normal",
            "object": str(key),
            "reason": str(reason),
            "message": message,
        }
        try:
            with (self._root / "events.jsonl").open("a") as file:
                file.write(json.dumps(record) + "\n")
            self._on_event(key, warning, str(reason), message)
        except Exception:
            logger.exception("an Event was lost", extra={"object": str(key)})

    # Deleting -----------------------------------------------------------------------------------------------------

    def _delete(self, obj: Obj) -> None:
        if obj["kind"] == Kind.POD:
            self._kubelet.delete(obj)
            return
        metadata = obj["metadata"]
        if not metadata.get("deletionTimestamp"):
            marks = {"deletionTimestamp": timestamp(), "deletionGracePeriodSeconds": 0, "finalizers": [FOREGROUND]}
            obj = self._folder.replace(obj, {**obj, "metadata": {**metadata, **marks}})
        for dependent in self._folder.dependents(metadata["uid"]):
            self._delete(dependent)
        self._collect(key_of(obj), metadata["uid"])

    def _collect(self, key: Key, uid: str) -> None:
        """Remove an object under deletion once its dependents are gone, then see to its owner."""
        obj = self._folder.get(key)
        if obj is None or obj["metadata"]["uid"] != uid or not obj["metadata"].get("deletionTimestamp"):
            return
        if self._folder.dependents(uid):
            return
        self._folder.remove(obj)
        self._see_to_owner(obj)

    def _pod_gone(self, pod: Obj) -> None:
        self._see_to_owner(pod)

    def _see_to_owner(self, obj: Obj) -> None:
        for owner in obj["metadata"].get("ownerReferences", ()):
            if owner.get("controller"):
                self._collect(Key(Kind(owner["kind"]), obj["metadata"]["namespace"], owner["name"]), owner["uid"])

    def _collect_orphan(self, key: Key, uid: str) -> None:
        """Delete an object whose owner is gone or under deletion, and go on with a deletion that was interrupted."""
        obj = self._folder.get(key)
        if obj is None or obj["metadata"]["uid"] != uid:
            return
        doomed = bool(obj["metadata"].get("deletionTimestamp"))
        if controller_uid(obj):
            reference = next(o for o in obj["metadata"]["ownerReferences"] if o.get("controller"))
            owner = self._folder.get(Key(Kind(reference["kind"]), key.namespace, reference["name"]))
            gone = owner is None or owner["metadata"]["uid"] != reference["uid"]
            doomed = doomed or gone or bool(owner and owner["metadata"].get("deletionTimestamp"))
        if doomed:
            self._delete(obj)


def _admitted(obj: Obj, old: Obj | None) -> Obj:
    """The object as it is stored: with its defaults.

    Raises:
        Refused: it is not valid.
    """
    if obj["kind"] not in OWN_KINDS:
        return obj
    admitted, problems = admit(obj, old)
    if problems:
        raise Refused(422, "\n".join(problems))
    return admitted
