"""A data set in the darts layout: opened once, checked, and read patch by patch. No torch in here.

Shapes: N patches, C bands, H x W pixels. x float32 (N, C, H, W) in [0, 1]; y uint8 (N, H, W): see `labels`.
"""

import json
import logging
import math
import os
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from crossfold_trainer.cache import DiskCache
from crossfold_trainer.chunks import Presence, presence
from crossfold_trainer.contract.config import CACHE_DIR, CACHE_VARIABLE
from crossfold_trainer.contract.data import DataSpec
from crossfold_trainer.documents import (
    ARRAY_DOCUMENTS,
    ARRAYS,
    CONFIG,
    METADATA,
    Array,
    Config,
    Table,
    read_array,
    read_config,
    read_metadata,
)
from crossfold_trainer.errors import ConfigError
from crossfold_trainer.facts import (
    check_bands,
    check_chunks,
    check_empty,
    check_group,
    check_labels,
    check_labels_left_out,
    check_shapes,
)
from crossfold_trainer.findings import Finding, error, refuse, warnings
from crossfold_trainer.inventory import Inventory, digest_of, list_objects, marks
from crossfold_trainer.labels import Labels
from crossfold_trainer.layout import parse
from crossfold_trainer.reader import ChunkReader, LabelCheck, Reader, ZarrReader
from crossfold_trainer.splits import Index, Metadata
from crossfold_trainer.store import Entry, Store, open_store

log = logging.getLogger("crossfold_trainer.data")

GROUP_DOCUMENTS = ("zarr.json", ".zmetadata")
"""Of data.zarr: they may repeat the metadata of the arrays."""
ZARR_REQUESTS = 64
"""Requests in flight of one read through zarr."""


@dataclass(frozen=True)
class Patches:
    """Some patches in memory: images (n, C, H, W) float32 and labels (n, H, W) uint8."""

    x: NDArray[np.float32]
    y: NDArray[np.uint8]


@dataclass(frozen=True)
class DataSet:
    """An open data set: what was checked, and the reader of its patches."""

    bands: tuple[str, ...]
    """The bands that are read, in the order in which the model gets them."""
    metadata: Metadata
    digest: str
    shape: tuple[int, int]
    """H, W."""
    labels: Labels
    """What the values of y mean."""
    reader: Reader
    warnings: tuple[str, ...] = ()
    """What may be wrong with it."""

    def __len__(self) -> int:
        """N."""
        return len(self.metadata.empty)

    @property
    def patch_bytes(self) -> int:
        """Bytes of one patch as it is stored but not compressed, its label included."""
        height, width = self.shape
        return height * width * (self.reader.dtype.itemsize * len(self.bands) + 1)

    def read(self, rows: Index) -> Patches:
        """Read these patches and wait for them.

        Raises:
            ConfigError: a label is none of the data set's, or a chunk cannot be decoded.
            StoreError: the storage does not answer as it should.
        """
        x = np.empty((len(rows), len(self.bands), *self.shape), self.reader.dtype)
        y = np.empty((len(rows), *self.shape), np.uint8)
        if len(rows):
            self.reader.submit(rows, x, y).result()
        scaling = self.reader.scaling
        return Patches(x if scaling is None else scaling.decode(x), y)


@dataclass(frozen=True)
class Survey:
    """What is known of a data set before any pixel is read; None: what is not there or cannot be read."""

    config: Config
    table: Table | None
    x: Array | None
    y: Array | None
    entries: list[Entry]
    """Objects of the arrays, in the order of their paths."""
    presence: dict[str, Presence]
    """Which chunks of x and y are there, where their keys are of a known kind."""
    digest: str
    findings: tuple[Finding, ...]


def open_dataset(spec: DataSpec, bands: Sequence[str] | None) -> DataSet:
    """Open a data set and check that its parts belong together.

    What needs the pixels is checked when they are read. `check.check_dataset` checks all of it at once.

    Args:
        spec: where it is.
        bands: names of the bands to read, in this order; None: all.

    Raises:
        ConfigError: it is missing, may not be read, or its parts do not fit each other: all that is wrong.
        StoreError: the storage does not answer.
    """
    store = open_store(spec, "data")
    seen = survey(store)
    config, table = seen.config, seen.table
    wrong = check_bands(config.bands, bands or ()) if config.bands else []
    refuse([*seen.findings, *wrong])
    metadata = table.metadata if table else None
    if not (config.bands and config.labels and metadata and seen.x and seen.y):
        raise AssertionError("what is not there was refused")
    chosen = tuple(config.bands if bands is None else bands)
    columns = [config.bands.index(band) for band in chosen]
    check = label_check(config.labels, metadata)
    return DataSet(
        bands=chosen,
        metadata=metadata,
        digest=seen.digest,
        shape=(seen.x.shape[2], seen.x.shape[3]),
        labels=config.labels,
        reader=reader_of(store, seen, columns, check, _cache(spec, seen.digest)),
        warnings=tuple(map(str, warnings(seen.findings))),
    )


def survey(store: Store) -> Survey:
    """Read the documents of a data set and list its objects, and compare them.

    The digest is over config.toml, metadata.parquet, shapes and every object's path, size and tag. Where rows of the
    metadata are not in the order of the patches, it is over that order too: the same bytes, taken by position, were
    another data set.

    Raises:
        ConfigError: it may not be read.
        StoreError: the storage does not answer.
    """
    with ThreadPoolExecutor(6, thread_name_prefix="open") as pool:
        reading = {name: pool.submit(store.read, name) for name in (CONFIG, METADATA)}
        reading_group = {name: pool.submit(store.read, f"{ARRAYS}/{name}") for name in GROUP_DOCUMENTS}
        reading_arrays = {name: pool.submit(_array, store, name) for name in ("x", "y")}
        raw = {name: future.result() for name, future in reading.items()}
        group = {name: content for name, future in reading_group.items() if (content := future.result()) is not None}
        read = {name: future.result() for name, future in reading_arrays.items()}
    found = _missing(store, raw, [name for name, (array, wrong) in read.items() if not array and not wrong])
    config, table = Config(), None
    if (content := raw[CONFIG]) is not None:
        config, wrong = read_config(content)
        found += wrong
    if (content := raw[METADATA]) is not None:
        table, wrong = read_metadata(content)
        found += wrong
    found += [finding for _, wrong in read.values() for finding in wrong]
    arrays = {name: array for name, (array, _) in read.items() if array}
    x, y = arrays.get("x"), arrays.get("y")
    found += check_shapes(config, table, x if x and x.sound else None, y if y and y.sound else None)
    entries = list_objects(store, f"{ARRAYS}/", _marks(arrays.values())) if arrays else []
    found += check_group(entries, x, y, group) if arrays else []
    there = {name: presence(array.grid, entries) for name, array in arrays.items() if array.grid and array.sound}
    for name, seen in there.items():
        found += check_chunks(arrays[name], seen, config.bands if name == "x" else None)
    metadata = table.metadata if table else None
    if metadata and config.labels and y and "y" in there and len(metadata.empty) == y.shape[0] and there["y"].there:
        found += check_labels_left_out(config.labels, metadata, y, there["y"])
    shapes = json.dumps({name: array.shape for name, array in arrays.items()}, sort_keys=True).encode()
    order = [] if table is None or table.order is None else [table.order.tobytes()]
    digest = digest_of((raw[CONFIG] or b"", raw[METADATA] or b"", shapes, *order), entries)
    return Survey(config, table, x, y, entries, there, digest, tuple(found))


def _array(store: Store, name: str) -> tuple[Array | None, list[Finding]]:
    """An array by its metadata document, zarr.json (zarr 3) or .zarray (zarr 2); None: no readable one is there."""
    path = f"{ARRAYS}/{name}"
    for document in ARRAY_DOCUMENTS:
        raw = store.read(f"{path}/{document}")
        if raw is None:
            continue
        try:
            content = json.loads(raw)
            if isinstance(content, dict):
                return read_array(name, content)
            reason = "it is no JSON object"
        except ValueError as broken:
            reason = str(broken)
        return None, [error(path, f"{store.uri}/{path}/{document} cannot be read: {reason}")]
    return None, []


def _missing(store: Store, raw: Mapping[str, bytes | None], arrays: Sequence[str]) -> list[Finding]:
    """What is not there at all, in as few words as say it.

    Args:
        store: where it was looked for.
        raw: the files.
        arrays: names of the arrays without a document.
    """
    files = [name for name, content in raw.items() if content is None]
    found = []
    if files:
        others = [*files[1:], *([ARRAYS] if len(arrays) == 2 else [])]
        text = f"{store.uri}/{files[0]} does not exist" + (f", nor {' and '.join(others)}" if others else "")
        remedy = f"data.uri must be the folder that holds config.toml, metadata.parquet and {ARRAYS}"
        found.append(error(files[0], text, remedy))
    if arrays and not (files and len(arrays) == 2):
        names = " and no ".join(f"{name}/zarr.json or {name}/.zarray" for name in arrays)
        text = f"{store.uri}/{ARRAYS} has no readable arrays x and y: there is no {names}"
        found.append(error(ARRAYS, text))
    return found


def _marks(arrays: Iterable[Array]) -> list[str]:
    """Where to cut the listing of the arrays' objects."""
    grids = [array.grid for array in arrays if array.grid]
    return marks((grid.prefix, grid.counts[0], math.prod(grid.counts)) for grid in grids)


def _cache(spec: DataSpec, digest: str) -> DiskCache | None:
    if spec.cache is None:
        return None
    folder = Path(os.environ.get(CACHE_VARIABLE) or CACHE_DIR)
    return DiskCache(folder, digest, spec.cache.limit_bytes)


def reader_of(
    store: Store, seen: Survey, columns: Sequence[int], check: LabelCheck, cache: DiskCache | None = None
) -> Reader:
    """The reader of a data set whose arrays are sound.

    Args:
        store: holds it.
        seen: what is known of it.
        columns: the bands to read, in their order, as positions in x.
        check: called with the labels of each patch that is read.
        cache: keeps the chunks that are fetched.

    Raises:
        ConfigError: zarr cannot read the arrays.
    """
    if seen.x is None or seen.y is None:
        raise ValueError("there is nothing to read")
    inventory = Inventory(seen.entries)
    x, y = parse(seen.x.path, seen.x.document), parse(seen.y.path, seen.y.document)
    if x is not None and y is not None:
        return ChunkReader(store, inventory, x, y, columns=columns, check_labels=check, cache=cache)
    return _zarr_reader(store, (seen.x, seen.y), columns, check, (cache, inventory) if cache is not None else None)


def _zarr_reader(
    store: Store,
    arrays: tuple[Array, Array],
    columns: Sequence[int],
    check_labels: LabelCheck,
    cached: tuple[DiskCache, Inventory] | None,
) -> Reader:
    import zarr  # noqa: PLC0415 - most data sets are read without it

    zarr.config.set({"async.concurrency": ZARR_REQUESTS})
    objects = store.zarr()
    if cached is not None:
        from crossfold_trainer.zarr_cache import CachedStore  # noqa: PLC0415

        objects = CachedStore(objects, *cached)

    def opened(array: Array) -> Any:
        # Not through their group, whose consolidated metadata may be older than the arrays.
        version = array.document.get("zarr_format")
        return store.attempt(
            lambda: zarr.open_array(objects, path=array.path, mode="r", zarr_format=version), array.path
        )

    try:
        x, y = map(opened, arrays)
    except (FileNotFoundError, KeyError, TypeError, ValueError) as broken:
        raise ConfigError("data.uri", f"{store.uri}/{ARRAYS} has no readable arrays x and y: {broken}") from None
    return ZarrReader(store, x, y, columns=columns, check_labels=check_labels)


def label_check(labels: Labels, metadata: Metadata) -> LabelCheck:
    """Refuses the labels (H, W) of a patch that are none of the data set's, or that `empty` contradicts.

    The latter is looked at once a patch. With several classes it is a warning in the log, once.
    """
    known, highest = labels.known(), len(labels.names) - (labels.ignore != len(labels.names))
    looked = np.zeros(len(metadata.empty), np.bool_)
    warned: list[str] = []

    def check(row: int, mask: NDArray[np.uint8]) -> None:
        if mask.max(initial=0) > highest:
            wrong = mask[~known[mask]]
            if len(wrong):
                refuse(check_labels(labels, {int(wrong[0]): [row]}))
        if not looked[row]:
            looked[row] = True
            positive = np.array([labels.positive(mask).any()])
            found = check_empty(labels, metadata.empty, np.array([row]), positive)
            refuse(found)
            if found and not warned:
                warned.append(str(found[0]))
                log.warning("warning: %s (said once; `crossfold data check` counts such patches)", found[0])

    return check
