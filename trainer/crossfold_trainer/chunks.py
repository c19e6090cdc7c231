"""Which chunks of an array are there: the keys of its objects against its own metadata document. Pure.

Shapes: N patches along the first axis. A chunk is what one object holds: a shard where the array is sharded.
"""

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from operator import lt
from typing import Any

import numpy as np
from numpy.typing import NDArray

from crossfold_trainer.store import Entry

_NUMBER = r"(0|[1-9]\d*)"
_ANY_KEY = re.compile(rf"(?:c[./])?{_NUMBER}(?:[./]{_NUMBER})*")
_DOCUMENTS = ("zarr.json", ".zarray", ".zattrs", ".zgroup", ".zmetadata")


@dataclass(frozen=True)
class Grid:
    """The chunks that an array has when none is left out."""

    array: str
    """Path of the array in its store, such as ``data.zarr/x``."""
    zarr_format: int
    prefixed: bool
    """Whether keys begin with ``c``, as is the default of zarr 3."""
    separator: str
    shape: tuple[int, ...]
    chunk: tuple[int, ...]
    """Shape of a chunk."""

    @property
    def counts(self) -> tuple[int, ...]:
        """Chunks along each axis."""
        return tuple(-(-size // chunk) for size, chunk in zip(self.shape, self.chunk, strict=True))

    @property
    def prefix(self) -> str:
        """What the keys of all chunks start with."""
        return f"{self.array}/c{self.separator}" if self.prefixed else f"{self.array}/"

    @property
    def example(self) -> str:
        """The key of the first chunk, below the array."""
        return self.prefix.removeprefix(f"{self.array}/") + self.separator.join("0" * len(self.shape))


@dataclass(frozen=True)
class Presence:
    """What is there of an array's chunks. Keys are given below the array."""

    grid: Grid
    """The chunks that there may be."""
    by_block: NDArray[np.int64]
    """Chunks that are there, by their position along the first axis."""
    by_band: NDArray[np.int64]
    """The same along the second axis."""
    misnamed: tuple[str, ...] = ()
    """Keys of chunks that are not there under the array's own keys: another separator, another prefix."""
    leftover: tuple[str, ...] = ()
    """The same of chunks that are there under the array's own keys too."""
    outside: tuple[str, ...] = ()
    """Keys of chunks that lie outside of the array's shape."""
    hollow: tuple[str, ...] = ()
    """Keys of chunks without a byte."""
    others: tuple[str, ...] = ()
    """Keys of objects that are neither chunks nor documents."""

    @property
    def total(self) -> int:
        """Chunks of the grid."""
        return math.prod(self.grid.counts)

    @property
    def there(self) -> int:
        """Chunks that are there."""
        return int(self.by_block.sum())

    @property
    def missing(self) -> int:
        """Chunks that are not there."""
        return self.total - self.there

    def incomplete(self) -> NDArray[np.int64]:
        """The patches that lack a chunk."""
        return self._rows(self.by_block < math.prod(self.grid.counts[1:]))

    def absent(self) -> NDArray[np.int64]:
        """The patches that have no chunk at all."""
        return self._rows(self.by_block == 0)

    def _rows(self, blocks: NDArray[np.bool_]) -> NDArray[np.int64]:
        """The patches in these chunks along the first axis."""
        rows = np.arange(self.grid.shape[0])
        return rows[blocks[rows // self.grid.chunk[0]]]


def grid_of(array: str, document: Mapping[str, Any]) -> Grid | None:
    """The chunks of an array by its metadata document; None where the document names them in an unknown way.

    Args:
        array: path of the array in its store.
        document: zarr.json (version 3) or .zarray (version 2).
    """
    try:
        zarr_format = int(document["zarr_format"])
        if zarr_format == 3:
            keys = document["chunk_key_encoding"]
            if document["chunk_grid"]["name"] != "regular" or keys["name"] not in ("default", "v2"):
                return None
            prefixed = keys["name"] == "default"
            separator = (keys.get("configuration") or {}).get("separator", "/" if prefixed else ".")
            chunk = document["chunk_grid"]["configuration"]["chunk_shape"]
        else:
            prefixed, separator, chunk = False, document.get("dimension_separator", "."), document["chunks"]
        shape, chunk = tuple(map(int, document["shape"])), tuple(map(int, chunk))
    except (KeyError, TypeError, ValueError, AttributeError):
        return None
    if separator not in (".", "/") or len(shape) != len(chunk) or len(shape) < 2 or min(chunk) < 1:
        return None
    return Grid(array, zarr_format, prefixed, separator, shape, chunk)


def presence(grid: Grid, entries: Sequence[Entry]) -> Presence:
    """Which chunks of a grid are there.

    Args:
        grid: the chunks that there may be.
        entries: all objects in the store; those of other arrays are passed over.
    """
    counts, below = grid.counts, f"{grid.array}/"
    by_block, by_band = [0] * counts[0], [0] * counts[1]
    own = re.compile(re.escape(grid.prefix) + re.escape(grid.separator).join([_NUMBER] * len(counts)))
    foreign: dict[str, str] = {}
    outside, hollow, others = [], [], []
    for entry in entries:
        if not entry.path.startswith(below):
            continue
        key = entry.path[len(below) :]
        found = own.fullmatch(entry.path)
        if found:
            at = tuple(map(int, found.groups()))
            if all(map(lt, at, counts)):
                by_block[at[0]] += 1
                by_band[at[1]] += 1
                if not entry.size:
                    hollow.append(key)
            else:
                outside.append(key)
        elif (place := _place(key, counts)) is not None:
            foreign[key] = grid.prefix + grid.separator.join(place)
        elif key.rpartition("/")[2] not in _DOCUMENTS:
            others.append(key)
    there = {entry.path for entry in entries} if foreign else set()
    misnamed = tuple(key for key, rightly in foreign.items() if rightly not in there)
    leftover = tuple(key for key, rightly in foreign.items() if rightly in there)
    there_of = (np.array(by_block, np.int64), np.array(by_band, np.int64))
    return Presence(grid, *there_of, misnamed, leftover, tuple(outside), tuple(hollow), tuple(others))


def _place(key: str, counts: tuple[int, ...]) -> list[str] | None:
    """The place in the grid that a key would mean, were keys written otherwise; None: none."""
    if not _ANY_KEY.fullmatch(key):
        return None
    at = re.findall(r"\d+", key)
    return at if len(at) == len(counts) and all(map(lt, map(int, at), counts)) else None


def encoding_remedy(grid: Grid, key: str) -> str:
    """How to make an array look under such a key, as an instruction."""
    prefixed = key.startswith("c")
    separator = "/" if "/" in key.removeprefix("c/") else "."
    if grid.zarr_format == 3:
        named = {"name": "default" if prefixed else "v2", "configuration": {"separator": separator}}
        return f"set chunk_key_encoding to {json.dumps(named)} in {grid.array}/zarr.json"
    if prefixed:
        return f"these are keys of zarr 3, so restore {grid.array}/zarr.json and delete {grid.array}/.zarray"
    return f'set "dimension_separator" to "{separator}" in {grid.array}/.zarray'
