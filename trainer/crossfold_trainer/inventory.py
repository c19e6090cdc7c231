"""What objects a data set has: listed once, in parallel, for its digest and for telling a gap from a loss.

zarr leaves chunks out that hold nothing but the fill value; a chunk that was listed and is gone, or is another one
now, is a data set that changed under the run.
"""

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from crossfold_trainer.store import Entry, Store

PAGE = 1000
"""Objects in one answer of S3."""
LISTINGS = 16
"""Parts of the listing that are asked for at the same time, at most."""
_MASK = 2**64 - 1


class Inventory:
    """Sizes and tags of objects by path; 24 bytes an object."""

    def __init__(self, entries: Sequence[Entry]) -> None:
        """Remember these."""
        names = np.array([hash(entry.path) & _MASK for entry in entries], np.uint64)
        order = np.argsort(names)
        self._names = names[order]
        self._sizes = np.array([entry.size for entry in entries], np.int64)[order]
        self._tags = np.array([hash(entry.tag) & _MASK for entry in entries], np.uint64)[order]

    def __len__(self) -> int:
        """How many objects there are."""
        return len(self._names)

    def size(self, path: str) -> int | None:
        """Bytes of an object; None when it was not listed."""
        at = self._find(path)
        return None if at is None else int(self._sizes[at])

    def same(self, path: str, tag: str) -> bool:
        """Whether an object has the tag that it was listed with."""
        at = self._find(path)
        return at is not None and int(self._tags[at]) == hash(tag) & _MASK

    def _find(self, path: str) -> int | None:
        name = np.uint64(hash(path) & _MASK)
        at = int(self._names.searchsorted(name))
        return at if at < len(self._names) and self._names[at] == name else None


def list_objects(store: Store, prefix: str, marks: Sequence[str] = ()) -> list[Entry]:
    """All objects below a prefix, in the order of their paths, several parts of the listing at the same time.

    Args:
        store: where.
        prefix: a folder.
        marks: paths between which about as many objects lie each time.
    """
    if store.folder is not None or not marks:
        return sorted(store.list(prefix))
    bounds = ["", *sorted(marks), ""]
    with ThreadPoolExecutor(LISTINGS, thread_name_prefix="list") as pool:
        parts = pool.map(lambda i: sorted(store.list(prefix, bounds[i], bounds[i + 1])), range(len(bounds) - 1))
        return [entry for part in parts for entry in part]


def marks(arrays: Iterable[tuple[str, int, int]]) -> list[str]:
    """Paths that cut a listing into parts of about the same length, of a page at least.

    Args:
        arrays: what the keys of an array's chunks start with, its chunks along the first axis, and all its chunks.
    """
    arrays = list(arrays)
    total = sum(chunks for _, _, chunks in arrays)
    wanted = min(LISTINGS, -(-total // PAGE))
    found = []
    for prefix, rows, chunks in arrays:
        parts = round(wanted * chunks / max(1, total))
        names = sorted(map(str, range(rows)))
        found += [prefix + names[rows * i // parts] for i in range(parts)]
    return found


def digest_of(parts: Iterable[bytes], entries: Iterable[Entry]) -> str:
    """SHA-256 (hex) over some documents and over every object's path, size and tag."""
    digest = hashlib.sha256()
    for part in parts:
        digest.update(hashlib.sha256(part).digest())
    for line in _lines(entries):
        digest.update(line)
    return digest.hexdigest()


def _lines(entries: Iterable[Entry]) -> Iterator[bytes]:
    for entry in entries:
        yield f"{entry.path}\0{entry.size}\0{entry.tag}\n".encode()
