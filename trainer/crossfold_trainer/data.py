"""A data set in the darts layout: opened once, checked, and read patch by patch. No torch in here.

Shapes: N patches, C bands, H x W pixels. x (N, C, H, W), float32 or integers of 8 or 16 bits: see `values`.
y uint8 (N, H, W): see `labels`.
"""

import io
import json
import os
import tomllib
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from crossfold_trainer.cache import DiskCache
from crossfold_trainer.contract.config import CACHE_DIR, CACHE_VARIABLE
from crossfold_trainer.contract.data import DataSpec
from crossfold_trainer.errors import ConfigError
from crossfold_trainer.inventory import Inventory, digest_of, list_objects, marks
from crossfold_trainer.labels import Labels, labels_from
from crossfold_trainer.layout import Raw, parse
from crossfold_trainer.reader import ChunkReader, Reader, ZarrReader
from crossfold_trainer.splits import Index, Metadata
from crossfold_trainer.store import Store, open_store
from crossfold_trainer.values import INTEGERS, PatchCheck, Range, ValueCheck, decode, ranges_of

CONFIG, METADATA, ARRAYS, LABELS = "config.toml", "metadata.parquet", "data.zarr", "labels.geojson"
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


class _Facts(NamedTuple):
    """What an array's metadata say of it."""

    shape: tuple[int, ...]
    dtype: "np.dtype[Any] | None"
    """Of its values; None: a kind that numpy has no name for."""
    chunks: tuple[int, ...]
    """Shape of a chunk (of a shard where there are shards)."""


def open_dataset(spec: DataSpec, bands: Sequence[str] | None, check: PatchCheck | None = None) -> DataSet:
    """Open a data set and check that its parts belong together.

    Args:
        spec: where it is.
        bands: names of the bands to read, in this order; None: all.
        check: called with each patch that is read; None: labels and values that are not what they should be are
            refused.

    Raises:
        ConfigError: it is missing, may not be read, or its parts do not fit each other.
        StoreError: the storage does not answer.
    """
    store = open_store(spec, "data")
    raw_config = _need(store, CONFIG)
    with ThreadPoolExecutor(3, thread_name_prefix="open") as pool:
        reading_metadata = pool.submit(_need, store, METADATA)
        reading_x, reading_y = (pool.submit(_array, store, name) for name in ("x", "y"))
        section = _section(raw_config)
        known = _bands(section)
        raw_metadata, x, y = reading_metadata.result(), reading_x.result(), reading_y.result()
    try:
        labels = labels_from(section.get("classes"))
    except ValueError as error:
        raise ConfigError("data.uri", f"config.toml: {error}") from None
    metadata = _metadata(raw_metadata)
    facts = {"x": _facts(x), "y": _facts(y)}
    dtype = _check_arrays(facts["x"], facts["y"], len(known), len(metadata.empty))
    chosen = tuple(known if bands is None else bands)
    unknown = [band for band in chosen if band not in known]
    if unknown:
        raise ConfigError(
            "hyperparameters.bands", f"the data set has no band {', '.join(unknown)}; it has {', '.join(known)}"
        )
    ranges = ranges_of(spec.scale, dtype, known, chosen)
    columns = [known.index(band) for band in chosen]
    entries = list_objects(store, f"{ARRAYS}/", _marks(facts, {"x": x, "y": y}))
    shapes = json.dumps({name: found.shape for name, found in facts.items()}, sort_keys=True).encode()
    x_layout, y_layout = parse(f"{ARRAYS}/x", x), parse(f"{ARRAYS}/y", y)
    digest = digest_of((raw_config, raw_metadata, shapes), entries)
    inventory, cache = Inventory(entries), _cache(spec, digest)
    chunks = None if x_layout is None or y_layout is None else (x_layout, y_layout)
    values = ValueCheck(
        len(metadata.empty),
        chosen,
        (dtype, None) if chunks is None else (chunks[0].dtype, chunks[0].scaling),
        ranges=ranges,
        non_finite=spec.non_finite,
        ignore=labels.ignore,
    )
    check = check or _both(_label_check(labels), values)
    reader: Reader
    if chunks is not None:
        reader = ChunkReader(store, inventory, *chunks, columns=columns, check=check, cache=cache)
    else:
        reader = _zarr_reader(store, columns, check, (cache, inventory) if cache is not None else None)
    return DataSet(
        bands=chosen,
        metadata=metadata,
        digest=digest,
        shape=(facts["x"].shape[2], facts["x"].shape[3]),
        labels=labels,
        ranges=ranges,
        ignored=values.ignored,
        reader=reader,
    )


def _array(store: Store, name: str) -> dict[str, Any]:
    """The metadata document of an array: zarr.json (zarr 3) or .zarray (zarr 2)."""
    path = f"{ARRAYS}/{name}"
    for document in ("zarr.json", ".zarray"):
        raw = store.read(f"{path}/{document}")
        if raw is None:
            continue
        try:
            content = json.loads(raw)
        except ValueError as error:
            raise ConfigError("data.uri", f"{store.uri}/{path}/{document} cannot be read: {error}") from None
        if isinstance(content, dict):
            return content
    raise ConfigError(
        "data.uri",
        f"{store.uri}/{ARRAYS} has no readable arrays x and y: there is no {name}/zarr.json or {name}/.zarray",
    )


def _facts(document: dict[str, Any]) -> _Facts:
    grid = document.get("chunk_grid")
    chunks = grid.get("configuration", {}).get("chunk_shape") if isinstance(grid, dict) else document.get("chunks")
    try:
        dtype = np.dtype(document.get("data_type", document.get("dtype")))
    except TypeError:
        dtype = None
    return _Facts(tuple(document.get("shape") or ()), dtype, tuple(chunks or ()))


def _marks(facts: dict[str, _Facts], documents: dict[str, dict[str, Any]]) -> list[str]:
    """Where to cut the listing of the arrays' objects."""
    arrays = []
    for name, (shape, _, chunks) in facts.items():
        keys = documents[name].get("chunk_key_encoding", {"name": "v2"})
        inside = f"c{keys.get('configuration', {}).get('separator', '/')}" if keys.get("name") == "default" else ""
        counts = [-(-n // max(1, chunk)) for n, chunk in zip(shape, chunks, strict=False)]
        if counts:
            arrays.append((f"{ARRAYS}/{name}/{inside}", counts[0], int(np.prod(counts))))
    return marks(arrays)


def _cache(spec: DataSpec, digest: str) -> DiskCache | None:
    if spec.cache is None:
        return None
    folder = Path(os.environ.get(CACHE_VARIABLE) or CACHE_DIR)
    return DiskCache(folder, digest, spec.cache.limit_bytes)


def _zarr_reader(
    store: Store, columns: Sequence[int], check: PatchCheck, cached: tuple[DiskCache, Inventory] | None
) -> Reader:
    import zarr  # noqa: PLC0415 - most data sets are read without it

    zarr.config.set({"async.concurrency": ZARR_REQUESTS})
    objects = store.zarr()
    if cached is not None:
        from crossfold_trainer.zarr_cache import CachedStore  # noqa: PLC0415

        objects = CachedStore(objects, *cached)
    try:
        group = store.attempt(lambda: zarr.open_group(objects, path=ARRAYS, mode="r"), ARRAYS)
        x: Any = store.attempt(lambda: group["x"], ARRAYS)
        y: Any = store.attempt(lambda: group["y"], ARRAYS)
    except (FileNotFoundError, KeyError, ValueError) as error:
        raise ConfigError("data.uri", f"{store.uri}/{ARRAYS} has no readable arrays x and y: {error}") from None
    return ZarrReader(store, x, y, columns=columns, check=check)


def _both(one: PatchCheck, other: PatchCheck) -> PatchCheck:
    def check(row: int, x: Raw, y: NDArray[np.uint8]) -> None:
        one(row, x, y)
        other(row, x, y)

    return check


def _label_check(labels: Labels) -> PatchCheck:
    """Refuses labels that are none of the data set's."""
    n, ignore = len(labels.names), labels.ignore
    allowed = np.zeros(256, np.bool_)
    allowed[:n] = allowed[ignore] = True
    highest = n if ignore == n else n - 1

    def check(row: int, _: Raw, mask: NDArray[np.uint8]) -> None:
        if mask.max(initial=0) <= highest:
            return
        wrong = mask[~allowed[mask]]
        if len(wrong):
            listed = "0 (no), 1 (yes)" if labels.binary else f"0 to {n - 1}"
            raise ConfigError(
                "data.uri",
                f"patch {row} has the label {wrong[0]}; labels are {listed} and {ignore} (ignore): correct y",
            )

    return check


def _need(store: Store, path: str) -> bytes:
    content = store.read(path)
    if content is None:
        raise ConfigError(
            "data.uri",
            f"{store.uri}/{path} does not exist: data.uri must be the folder that holds config.toml, metadata.parquet"
            f" and {ARRAYS}",
        )
    return content


def _section(raw: bytes) -> dict[str, Any]:
    try:
        content = tomllib.loads(raw.decode())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError("data.uri", f"config.toml cannot be read: {error}") from None
    section = content.get("darts")
    if not isinstance(section, dict):
        raise ConfigError("data.uri", "config.toml has no table [darts]")
    missing = [name for name in ("bands", "patch_size") if name not in section]
    if missing:
        raise ConfigError("data.uri", f"config.toml has no {' and no '.join(missing)} in [darts]")
    return section


def _bands(section: dict[str, Any]) -> list[str]:
    bands = section["bands"]
    if not isinstance(bands, list) or not bands or not all(isinstance(band, str) for band in bands):
        raise ConfigError("data.uri", f"bands in config.toml must be a list of names, not {bands!r}")
    if len(set(bands)) != len(bands):
        raise ConfigError("data.uri", f"bands in config.toml must be distinct: {', '.join(bands)}")
    return bands


def _metadata(raw: bytes) -> Metadata:
    import pyarrow as pa  # noqa: PLC0415 - a repeated result needs no parquet
    from pyarrow import parquet  # noqa: PLC0415

    try:
        file = parquet.ParquetFile(io.BytesIO(raw))  # read_table would import pyarrow's data sets too
        schema = file.schema_arrow
        wanted = [name for name in ("sample_id", "region", "empty", "geometry") if name in schema.names]
        table = file.read(columns=wanted)
    except (pa.ArrowException, OSError) as error:
        raise ConfigError("data.uri", f"metadata.parquet cannot be read: {error}") from None
    if "empty" not in wanted:
        raise ConfigError("data.uri", f"metadata.parquet has no column empty; it has {', '.join(schema.names)}")
    empty = table["empty"]
    if empty.null_count or not (pa.types.is_boolean(empty.type) or pa.types.is_integer(empty.type)):
        raise ConfigError(
            "data.uri",
            f"column empty of metadata.parquet must be true or false in every row; it is {empty.type} with"
            f" {empty.null_count} missing",
        )

    def names(column: str) -> NDArray[np.str_] | None:
        if column not in wanted:
            return None
        return np.array(["" if value is None else str(value) for value in table[column].to_pylist()], dtype=np.str_)

    flags = np.array(empty.to_pylist(), dtype=np.bool_)
    outlines = None
    if "geometry" in wanted and (
        pa.types.is_binary(table["geometry"].type) or pa.types.is_large_binary(table["geometry"].type)
    ):
        outlines = tuple(table["geometry"].to_pylist())
    return Metadata(empty=flags, region=names("region"), sample_id=names("sample_id"), outlines=outlines)


def _check_arrays(x: _Facts, y: _Facts, n_bands: int, n_rows: int) -> "np.dtype[Any]":
    """The type of x, once both arrays are what they must be."""
    for name, array, dtypes, axes in (
        ("x", x, ("float32", *INTEGERS), "(N, C, H, W)"),
        ("y", y, ("uint8",), "(N, H, W)"),
    ):
        if len(array.shape) != axes.count(",") + 1 or array.dtype is None or array.dtype.name not in dtypes:
            got = f"{array.dtype} {array.shape}" if array.shape else "a group"
            raise ConfigError("data.uri", f"{ARRAYS}/{name} must be {' or '.join(dtypes)} {axes}, not {got}")
    if not x.shape[0] == y.shape[0] == n_rows:
        raise ConfigError(
            "data.uri",
            f"x has {x.shape[0]} patches, y has {y.shape[0]} and metadata.parquet has {n_rows} rows: they must be the"
            " same patches, so write the data set again",
        )
    if n_rows == 0:
        raise ConfigError("data.uri", "the data set has no patches")
    if x.shape[1] != n_bands:
        raise ConfigError("data.uri", f"x has {x.shape[1]} bands, config.toml names {n_bands}")
    if x.shape[2:] != y.shape[1:]:
        raise ConfigError("data.uri", f"x has patches of {x.shape[2:]} pixels, y of {y.shape[1:]}")
    return np.dtype(x.dtype)
