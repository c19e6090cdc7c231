"""A data set in the darts layout: opened once, checked, and read patch by patch. No torch in here.

Shapes: N patches, C bands, H x W pixels. x (N, C, H, W), float32 or integers of 8 or 16 bits: see `values`.
y uint8 (N, H, W): see `labels`.
"""

import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from crossfold_trainer.cache import DiskCache
from crossfold_trainer.contract.config import CACHE_DIR, CACHE_VARIABLE
from crossfold_trainer.contract.data import DataSpec
from crossfold_trainer.documents import ARRAYS, Array
from crossfold_trainer.errors import ConfigError
from crossfold_trainer.facts import check_bands, check_empty, check_labels
from crossfold_trainer.findings import Finding, error, refuse, warnings
from crossfold_trainer.inventory import Inventory
from crossfold_trainer.labels import Labels
from crossfold_trainer.layout import Layout, Raw, Scaling, parse
from crossfold_trainer.reader import ChunkReader, Reader, ZarrReader
from crossfold_trainer.splits import Index, Metadata
from crossfold_trainer.store import Store, open_store
from crossfold_trainer.survey import Survey, survey
from crossfold_trainer.values import PatchCheck, Range, ValueCheck, decode, ranges_of

log = logging.getLogger("crossfold_trainer.data")

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
    ranges: tuple[Range, ...]
    """Of the bands that are read: the values that become 0 and 1."""
    ignored: Mapping[int, int]
    """Row -> pixels that are ignored for a value that is NaN or infinite; of the patches that were read so far."""
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
            ConfigError: a label is none of the data set's, a value is not what it should be, or a chunk cannot be
                decoded.
            StoreError: the storage does not answer as it should.
        """
        x = np.empty((len(rows), len(self.bands), *self.shape), self.reader.dtype)
        y = np.empty((len(rows), *self.shape), np.uint8)
        if len(rows):
            self.reader.submit(rows, x, y).result()
        return Patches(decode(x, self.reader.scaling, self.ranges), y)


def open_dataset(spec: DataSpec, bands: Sequence[str] | None, check: PatchCheck | None = None) -> DataSet:
    """Open a data set and check that its parts belong together.

    What needs the pixels is checked when they are read. `check.check_dataset` checks all of it at once.

    Args:
        spec: where it is.
        bands: names of the bands to read, in this order; None: all.
        check: called with each patch that is read; None: labels and values that are not what they should be are
            refused.

    Raises:
        ConfigError: it is missing, may not be read, or its parts do not fit each other: all that is wrong.
        StoreError: the storage does not answer.
    """
    store = open_store(spec, "data")
    seen = survey(store)
    config, metadata = seen.config, seen.table.metadata if seen.table else None
    known = config.bands or ()
    chosen = tuple(known if bands is None else bands)
    ranges, wrong = read_ranges(spec, seen, known, chosen)
    refuse([*seen.findings, *(check_bands(known, chosen) if known else ()), *wrong])
    if not (config.bands and config.labels and metadata and seen.x and seen.y):
        raise AssertionError("what is not there was refused")
    values = ValueCheck(
        len(metadata.empty),
        chosen,
        stored_as(seen),
        ranges=ranges,
        non_finite=spec.non_finite,
        ignore=config.labels.ignore,
    )
    return DataSet(
        bands=chosen,
        metadata=metadata,
        digest=seen.digest,
        shape=(seen.x.shape[2], seen.x.shape[3]),
        labels=config.labels,
        ranges=ranges,
        ignored=values.ignored,
        reader=reader_of(
            store,
            seen,
            [config.bands.index(band) for band in chosen],
            check or _both(label_check(config.labels, metadata), values),
            _cache(spec, seen.digest),
        ),
        warnings=tuple(map(str, warnings(seen.findings))),
    )


def _cache(spec: DataSpec, digest: str) -> DiskCache | None:
    if spec.cache is None:
        return None
    folder = Path(os.environ.get(CACHE_VARIABLE) or CACHE_DIR)
    return DiskCache(folder, digest, spec.cache.limit_bytes)


def read_ranges(
    spec: DataSpec, seen: Survey, known: Sequence[str], chosen: Sequence[str]
) -> tuple[tuple[Range, ...], list[Finding]]:
    """What the values of each band that is read range over, and what is wrong with what is said of it.

    Args:
        spec: says it.
        seen: what is known of the data set.
        known: its bands.
        chosen: those that are read.

    Returns:
        The ranges; endless ones where they are not rightly said.
    """
    endless = (Range(-np.inf, np.inf),) * len(chosen)
    if not (seen.x and seen.x.sound and seen.x.dtype):
        return endless, []
    try:
        return ranges_of(spec.scale, seen.x.dtype, known, chosen), []
    except ConfigError as wrong:
        return endless, [error(seen.x.path, wrong.problem, field=wrong.field)]


def stored_as(seen: Survey) -> tuple[np.dtype[Any], Scaling | None]:
    """The type in which x is read, and what its numbers mean where that is not what they are."""
    x, y = _layouts(seen)
    if x is not None and y is not None:
        return x.dtype, x.scaling
    return np.dtype(seen.x.dtype if seen.x else None), None


def _layouts(seen: Survey) -> tuple[Layout | None, Layout | None]:
    x, y = (parse(array.path, array.document) if array else None for array in (seen.x, seen.y))
    return x, y


def reader_of(
    store: Store, seen: Survey, columns: Sequence[int], check: PatchCheck, cache: DiskCache | None = None
) -> Reader:
    """The reader of a data set whose arrays are sound.

    Args:
        store: holds it.
        seen: what is known of it.
        columns: the bands to read, in their order, as positions in x.
        check: called with each patch that is read.
        cache: keeps the chunks that are fetched.

    Raises:
        ConfigError: zarr cannot read the arrays.
    """
    if seen.x is None or seen.y is None:
        raise ValueError("there is nothing to read")
    inventory = Inventory(seen.entries)
    x, y = _layouts(seen)
    if x is not None and y is not None:
        return ChunkReader(store, inventory, x, y, columns=columns, check=check, cache=cache)
    return _zarr_reader(store, (seen.x, seen.y), columns, check, (cache, inventory) if cache is not None else None)


def _zarr_reader(
    store: Store,
    arrays: tuple[Array, Array],
    columns: Sequence[int],
    check: PatchCheck,
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
    return ZarrReader(store, x, y, columns=columns, check=check)


def _both(one: PatchCheck, other: PatchCheck) -> PatchCheck:
    def check(row: int, x: Raw, y: NDArray[np.uint8]) -> None:
        one(row, x, y)
        other(row, x, y)

    return check


def label_check(labels: Labels, metadata: Metadata) -> PatchCheck:
    """Refuses labels of a patch that are none of the data set's, or that `empty` contradicts.

    The latter is looked at once a patch. With several classes it is a warning in the log, once.
    """
    known, highest = labels.known(), len(labels.names) - (labels.ignore != len(labels.names))
    looked = np.zeros(len(metadata.empty), np.bool_)
    warned: list[str] = []

    def check(row: int, _: Raw, mask: NDArray[np.uint8]) -> None:
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
