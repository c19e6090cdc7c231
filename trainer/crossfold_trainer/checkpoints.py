"""Which checkpoints count, and who may add the next one.

``checkpoints/log/NNNNNN.json`` are entries: each is created where there was none and never changed, so of two writers
that want the same number one wins (S3's If-None-Match, a hard link in a folder). The newest entry counts. It names
the newest states, each with the best epoch's weights that go with it; what it does not name does not exist.

Every process begins by adding an entry: its claim. From then on a process that claimed before cannot add the number
that it would have to add next: it is fenced, whenever it wakes up, and ends. States are uploaded under names of their
own before the entry that names them, so nobody ever overwrites another's, and half an upload is never named.
An ETag to match would do the same on S3 only; folders have none that can be matched atomically.
"""

import contextlib
import logging
import re
import uuid
from collections.abc import Iterable
from functools import partial
from typing import Annotated, NamedTuple

from pydantic import Field, ValidationError

from crossfold_trainer.artifacts import BEST, LAST, retried
from crossfold_trainer.contract.base import Model
from crossfold_trainer.errors import Fenced, StoreError
from crossfold_trainer.store import Store

log = logging.getLogger(__name__)

FOLDER = "checkpoints"
ENTRIES = f"{FOLDER}/log"
KEPT = 2
"""States that an entry names: the newest, and the one before it for when the newest cannot be read."""
CLAIM_TRIES = 20
"""Claims that may be lost to others who start at the same moment."""
_ENTRY = re.compile(rf"{ENTRIES}/(\d{{6,}})\.json$")
_OBJECT = re.compile(rf"{FOLDER}/(?:state|best)-(\d{{6,}})-\w+\.ckpt$")


class Writer(NamedTuple):
    """A process that may add entries."""

    owner: str
    """The TrainRun's uid; empty when there is none."""
    attempt: int
    token: str
    """Of this process alone."""


class Saved(Model):
    """An object that an entry names."""

    path: str
    size: Annotated[int, Field(ge=0)]


class Snapshot(Model):
    """A state, and the best epoch's weights as they were then."""

    state: Saved
    best: Saved | None = None


class Entry(Model):
    """What counts from here on."""

    owner: str = ""
    attempt: int = 1
    token: str
    snapshots: tuple[Snapshot, ...] = ()
    """The newest first."""


class CheckpointLog:
    """The checkpoints of one run, as one process sees them. One thread at a time."""

    def __init__(self, store: Store, owner: str = "", attempt: int = 1) -> None:
        """Of the run whose folder this is; nothing is read yet."""
        self._store = store
        self._writer = Writer(owner, attempt, uuid.uuid4().hex[:12])
        self._number = 0
        self.snapshots: tuple[Snapshot, ...] = ()
        """What counts now, the newest first."""
        self._published: tuple[Snapshot, ...] = ()

    def claim(self) -> None:
        """Become the one that may add entries.

        Raises:
            Fenced: a later attempt of the same TrainRun has claimed the run.
            StoreError: the store does not answer.
        """
        for _ in range(CLAIM_TRIES):
            self._number, entry = self._newest()
            if entry is not None and entry.owner == self._writer.owner and entry.attempt > self._writer.attempt:
                raise Fenced(f"attempt {entry.attempt} of this run has begun: this one is {self._writer.attempt}")
            self.snapshots = entry.snapshots if entry is not None else ()
            if self._add(self.snapshots):
                self._clear_orphans()
                return
        raise Fenced("other attempts claim this run again and again")

    def use(self, snapshots: tuple[Snapshot, ...]) -> None:
        """Go on from the first of these: what was newer could not be used."""
        self.snapshots = snapshots

    def commit(self, state: bytes, best: bytes | None) -> None:
        """Save a state, and the best epoch's weights where they are new.

        Raises:
            Fenced: another process has claimed the run since.
            StoreError: the store does not answer.
        """
        kept = self.snapshots[0].best if self.snapshots else None
        saved = self._upload("state", state)
        if best is not None:
            kept = self._upload("best", best)
        self._replace((Snapshot(state=saved, best=kept), *self.snapshots)[:KEPT])

    def publish(self) -> None:
        """At a run's end: the newest state and the best weights under their plain names."""
        if not self.snapshots:
            return
        newest = self.snapshots[0]
        last = self._copy(newest.state, LAST)
        self._published = (Snapshot(state=last, best=self._copy(newest.best, BEST) if newest.best else None),)

    def settle(self) -> None:
        """After the result: only the plain names are left. Nothing is lost when this is not reached."""
        if self.snapshots:
            self._replace(self._published)
        # What a fenced process had under way came when this one had begun.
        self._clear_orphans()

    def _copy(self, saved: Saved, name: str) -> Saved:
        if saved.path != name:
            retried(partial(self._store.copy, saved.path, name))
        return Saved(path=name, size=saved.size)

    def _upload(self, kind: str, content: bytes) -> Saved:
        path = f"{FOLDER}/{kind}-{self._number + 1:06d}-{self._writer.token}.ckpt"
        retried(partial(self._store.write, path, content))
        return Saved(path=path, size=len(content))

    def _replace(self, snapshots: tuple[Snapshot, ...]) -> None:
        before = self.snapshots
        if not self._add(snapshots):
            with contextlib.suppress(StoreError):
                self._delete(path for path in _paths(snapshots) - _paths(before) if self._writer.token in path)
            raise Fenced("another attempt has claimed this run: what this one computes no longer counts")
        self.snapshots = snapshots
        # Whoever claims from now on reads the entry that was just added, so that nobody needs what it leaves out.
        self._delete(_paths(before) - _paths(snapshots))

    def _add(self, snapshots: tuple[Snapshot, ...]) -> bool:
        """Add the next entry; False when another process has taken its number."""
        entry = Entry(
            owner=self._writer.owner, attempt=self._writer.attempt, token=self._writer.token, snapshots=snapshots
        )
        content = entry.model_dump_json().encode()
        while True:
            path = _entry_path(self._number + 1)
            if retried(partial(self._store.create, path, content)):
                self._number += 1
                break
            there = _parse(self._store.read(path))
            if there is None or there.token != self._writer.token:
                return False
            # An earlier request of this process, whose answer was lost.
            self._number += 1
            if there == entry:
                break
        # Old entries are deleted: a number may be free because it was used long ago. The newest one never is.
        if self._numbers()[0] > self._number:
            return False
        self._delete([_entry_path(self._number - KEPT)])
        return True

    def _numbers(self) -> list[int]:
        """Of the entries that are there, the highest first."""
        found = (_ENTRY.search(item.path) for item in self._store.list(ENTRIES))
        return sorted((int(match[1]) for match in found if match), reverse=True)

    def _newest(self) -> tuple[int, Entry | None]:
        """The highest number, and the newest entry that can be read."""
        numbers = self._numbers()
        for number in numbers:
            entry = _parse(self._store.read(_entry_path(number)))
            if entry is not None:
                return numbers[0], entry
            log.warning("%s cannot be read and is passed over", _entry_path(number))
        return (numbers[0] if numbers else 0), None

    def sizes(self) -> dict[str, int]:
        """The objects that are there, with their bytes."""
        return {item.path: item.size for item in self._store.list(FOLDER)}

    def _clear_orphans(self) -> None:
        """Delete what former processes uploaded and never named. Later ones use higher numbers than this claim's."""
        named = _paths(self.snapshots)
        self._delete(
            path
            for path in self.sizes()
            if (found := _OBJECT.search(path)) and int(found[1]) <= self._number and path not in named
        )

    def _delete(self, paths: Iterable[str]) -> None:
        for path in paths:
            self._store.delete(path)


def _entry_path(number: int) -> str:
    return f"{ENTRIES}/{number:06d}.json"


def _paths(snapshots: tuple[Snapshot, ...]) -> set[str]:
    return {saved.path for snapshot in snapshots for saved in (snapshot.state, snapshot.best) if saved is not None}


def _parse(raw: bytes | None) -> Entry | None:
    if raw is None:
        return None
    try:
        return Entry.model_validate_json(raw)
    except ValidationError:
        return None
