"""Chunks of data sets on a node's own disk, shared by all runs that see the folder, without locks.

``<folder>/<digest of the data set>/<key with dots for slashes>`` holds a chunk as it was fetched, and its CRC-32C
behind it. Files are written under another name and renamed, so that a reader finds a whole file or none; what is short
or damaged counts as not there. A data set is dropped as a whole, the one first that was not used for longest.
"""

import logging
import os
import shutil
import struct
import threading
import time
import uuid
from contextlib import suppress
from pathlib import Path

import google_crc32c

from crossfold_trainer.errors import ConfigError
from crossfold_trainer.layout import Buffer

log = logging.getLogger(__name__)

SHARE = 0.95
"""Of the limit: the rest is for folders, and for what other runs write before they notice."""
IN_USE_S = 600.0
"""A data set that was used in the last ten minutes is not dropped."""
TOUCH_S = 60.0
"""How often a run says that it uses a data set."""
COUNT_S = 60.0
"""A full folder is counted again, and others' data sets are dropped, at most this often."""
ABANDONED_S = 3600.0
"""After an hour a file that was never renamed belongs to nobody."""

_CHECKSUM = struct.Struct("<I")
_USED = ".used"
"""Its time says when a data set was used last."""
_PARTS = ".parts"
"""Folder of files that are being written."""
_DROPPED = ".dropped"


class DiskCache:
    """One data set's part of the folder. Safe to use from several threads and processes.

    A disk that fails or is full costs speed, never a run: reading falls back on the store, writing stops.
    """

    def __init__(self, folder: Path, digest: str, limit: int) -> None:
        """Use a folder for a data set.

        Args:
            folder: is made where it does not exist.
            digest: of the data set.
            limit: bytes that all data sets in the folder may take together.

        Raises:
            ConfigError: nothing can be written there.
        """
        self.hits = self.misses = 0
        """Chunks that were there, and that were not."""
        self._folder = folder
        self._own = folder / digest
        self._parts = folder / _PARTS
        self._limit = int(SHARE * limit)
        self._lock = threading.Lock()
        self._room: int | None = None
        self._counted = self._touched = float("-inf")
        try:
            for made in (self._own, self._parts):
                made.mkdir(parents=True, exist_ok=True)
            self._touch()
            trial = self._part()
            trial.write_bytes(b"")
            trial.unlink()
        except OSError as error:
            raise ConfigError(
                "data.cache",
                f"{folder} cannot be written to ({error.strerror or error}) by user {os.getuid()}: make the folder"
                " writable for that user, or leave hostPath and claimName out",
            ) from None

    def read(self, key: str, size: int) -> Buffer | None:
        """A chunk of this size; None where it is not there, short or damaged."""
        path = self._path(key)
        content = None
        with suppress(OSError):
            # One read for each of the two: a chunk is neither copied nor cut while other threads want the interpreter.
            with path.open("rb", buffering=0) as file:
                raw, checksum = file.read(size), file.read(_CHECKSUM.size + 1)
            if len(raw) == size and checksum == _CHECKSUM.pack(google_crc32c.value(raw)):
                content = raw
            if content is None:
                path.unlink(missing_ok=True)
        if content is None:
            self.misses += 1
        else:
            self.hits += 1
        self._touch()
        return content

    def write(self, key: str, content: Buffer) -> None:
        """Keep a chunk, where there is room."""
        raw = bytes(content)
        size = len(raw) + _CHECKSUM.size
        if not self._reserve(size):
            return
        part = self._part()
        try:
            with part.open("xb") as file:
                file.write(raw)
                file.write(_CHECKSUM.pack(google_crc32c.value(raw)))
            try:
                part.rename(self._path(key))
            except FileNotFoundError:  # dropped by another run just now
                self._own.mkdir(exist_ok=True)
                part.rename(self._path(key))
        except OSError as error:
            part.unlink(missing_ok=True)
            with self._lock:
                if self._room:
                    log.warning("the cache %s takes no more: %s", self._folder, error.strerror or error)
                self._room, self._counted = 0, time.monotonic()

    def _path(self, key: str) -> Path:
        return self._own / key.replace("/", ".")

    def _part(self) -> Path:
        return self._parts / uuid.uuid4().hex

    def _touch(self) -> None:
        now = time.monotonic()
        if now - self._touched > TOUCH_S:
            self._touched = now
            with suppress(OSError):
                (self._own / _USED).touch()

    def _reserve(self, size: int) -> bool:
        """Whether there is room for so many bytes more; makes room where it can."""
        with self._lock:
            now = time.monotonic()
            short = self._room is None or self._room < size
            if short and now - self._counted > COUNT_S:
                self._counted = now
                self._room = self._make_room(size)
            if self._room is None or self._room < size:
                return False
            self._room -= size
            return True

    def _make_room(self, wanted: int) -> int:
        """Bytes that may still be written, after other data sets were dropped as far as it takes."""
        self._tidy()
        sizes = {folder: _size(folder) for folder in self._data_sets()}
        room = self._limit - sum(sizes.values())
        for folder in sorted(sizes, key=_used):
            if room >= wanted:
                break
            if folder != self._own and time.time() - _used(folder) > IN_USE_S:
                self._drop(folder)
                room += sizes[folder]
        return room

    def _data_sets(self) -> list[Path]:
        with suppress(OSError):
            return [entry for entry in self._folder.iterdir() if not entry.name.startswith(".") and entry.is_dir()]
        return []

    def _drop(self, folder: Path) -> None:
        """Take a data set out of sight at once, then off the disk."""
        log.info("the cache %s is full: data set %s is dropped", self._folder, folder.name[:12])
        hidden = self._folder / f"{_DROPPED}-{uuid.uuid4().hex}"
        with suppress(OSError):
            folder.rename(hidden)
        shutil.rmtree(hidden, ignore_errors=True)

    def _tidy(self) -> None:
        """Remove what runs that were killed have left."""
        with suppress(OSError):
            for part in self._parts.iterdir():
                if time.time() - part.stat().st_mtime > ABANDONED_S:
                    part.unlink(missing_ok=True)
            for dropped in self._folder.glob(f"{_DROPPED}-*"):
                shutil.rmtree(dropped, ignore_errors=True)


def _size(folder: Path) -> int:
    """Bytes of the files in a folder, those aside that go meanwhile."""
    total = 0
    with suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            with suppress(OSError):
                total += entry.stat().st_size
    return total


def _used(folder: Path) -> float:
    try:
        return (folder / _USED).stat().st_mtime
    except OSError:
        return 0.0
