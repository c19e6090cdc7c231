"""Objects as JSON files in a folder, with the rules by which an API server keeps them."""

import copy
import json
import logging
import os
import uuid
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from crossfold_operator.cluster.base import Key, Obj, OnChange, key_of
from crossfold_operator.cluster.cache import Cache, version_of
from crossfold_operator.names import PLURALS, Kind
from crossfold_operator.times import timestamp

logger = logging.getLogger(__name__)


class FolderError(Exception):
    """The folder cannot be used; says why, and what to do."""


def merge_patch(target: Any, patch: Any) -> Any:
    """RFC 7386: mappings merge, null removes, everything else replaces. Arguments stay as they are."""
    if not isinstance(patch, Mapping):
        return copy.deepcopy(patch)
    out = dict(target) if isinstance(target, Mapping) else {}
    for name, value in patch.items():
        if value is None:
            out.pop(name, None)
        else:
            out[name] = merge_patch(out.get(name), value)
    return out


class Folder:
    """All objects of a local cluster: read once, then kept in memory and written through.

    A file is replaced as a whole, so that a reader or a crash never sees half of one.
    """

    def __init__(self, root: Path, on_change: OnChange) -> None:
        self._root = root / "objects"
        self._on_change = on_change
        self._cache = Cache()
        self._version = 0

    def load(self) -> None:
        """Read all objects.

        Raises:
            FolderError: a file cannot be read.
        """
        for path in sorted(self._root.glob("*/*/*.json")):
            try:
                obj: Obj = json.loads(path.read_bytes())
                self._version = max(self._version, version_of(obj))
                self._cache.put(obj)
            except (OSError, ValueError, KeyError, TypeError) as error:
                raise FolderError(
                    f"{path} holds no object ({error}): remove the file, or start in a new folder"
                ) from error
        for kind in Kind:
            for key in self._cache.keys(kind):
                if (obj_now := self._cache.get(key)) is not None:
                    self._report(obj_now)

    def get(self, key: Key) -> Obj | None:
        """The object of this key, or None."""
        return self._cache.get(key)

    def children(self, kind: Kind, owner_uid: str) -> list[Obj]:
        """Objects of a kind whose controller owner has this UID, sorted by name."""
        return self._cache.children(kind, owner_uid)

    def dependents(self, uid: str) -> list[Obj]:
        """Objects of any kind whose controller owner has this UID."""
        return [obj for kind in Kind for obj in self._cache.children(kind, uid)]

    def all(self, kind: Kind) -> list[Obj]:
        """All objects of a kind."""
        return [obj for key in sorted(self._cache.keys(kind)) if (obj := self._cache.get(key)) is not None]

    def add(self, manifest: Obj) -> Obj:
        """Store a new object; its name must be free. What a client may not set is left out."""
        given = manifest["metadata"]
        metadata = {k: given[k] for k in ("name", "labels", "annotations", "ownerReferences") if given.get(k)}
        metadata |= {
            "namespace": given.get("namespace") or "default",
            "uid": str(uuid.uuid4()),
            "generation": 1,
            "creationTimestamp": timestamp(),
        }
        return self._store({**manifest, "metadata": metadata})

    def replace(self, old: Obj, new: Obj) -> Obj:
        """Store a new version of an object; one that says the same is not written. A new spec is a new generation."""
        if new == old:
            return old
        if new.get("spec") != old.get("spec"):
            new = {**new, "metadata": {**new["metadata"], "generation": old["metadata"].get("generation", 0) + 1}}
        return self._store(new)

    def remove(self, obj: Obj) -> None:
        """Remove an object for good."""
        key = key_of(obj)
        removed = self._cache.remove(key, obj["metadata"]["uid"])
        if removed is None:
            return
        with suppress(FileNotFoundError):
            self._path(key).unlink()
        self._report(removed)

    def _store(self, obj: Obj) -> Obj:
        self._version += 1
        stored = copy.deepcopy(obj)
        stored["metadata"]["resourceVersion"] = str(self._version)
        path = self._path(key_of(stored))
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_suffix(".part")
        part.write_text(json.dumps(stored, indent=1, allow_nan=False))
        os.replace(part, path)  # noqa: PTH105 -- Path.replace says the same at greater length
        self._cache.put(stored)
        self._report(stored)
        return stored

    def _path(self, key: Key) -> Path:
        return self._root / PLURALS[key.kind] / (key.namespace or "default") / f"{key.name}.json"

    def _report(self, obj: Obj) -> None:
        try:
            self._on_change(obj)
        except Exception:
            logger.exception("a change was not understood", extra={"object": str(key_of(obj))})
