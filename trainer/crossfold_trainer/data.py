"""A data set in the darts layout: opened once, checked, and read patch by patch. No torch in here.

Shapes: N patches, C bands, H x W pixels. x float32 (N, C, H, W) in [0, 1]; y uint8 (N, H, W): see `labels`.
"""

import hashlib
import io
import json
import os
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from crossfold_trainer.contract.config import DataSpec
from crossfold_trainer.errors import ConfigError, StoreError
from crossfold_trainer.labels import Labels, labels_from
from crossfold_trainer.splits import Metadata
from crossfold_trainer.store import Store, open_store

if TYPE_CHECKING:
    from zarr import Array

Index = NDArray[np.int64]

ARRAYS = "data.zarr"
CONCURRENT_REQUESTS = 64
MEMORY_SHARE = 0.4
"""Of the pod's memory: what is used of the data is read once and kept when it is no more than this share."""


@dataclass(frozen=True)
class Patches:
    """Some patches in memory: images (n, C, H, W) float32 and labels (n, H, W) uint8."""

    x: NDArray[np.float32]
    y: NDArray[np.uint8]


@dataclass(frozen=True)
class DataSet:
    """An open data set: what was checked, and the arrays to read from."""

    bands: tuple[str, ...]
    """The bands that are read, in the order in which the model gets them."""
    metadata: Metadata
    digest: str
    shape: tuple[int, int]
    """H, W."""
    labels: Labels
    """What the values of y mean."""
    _store: Store
    _x: "Array[Any]"
    _y: "Array[Any]"
    _columns: Index
    """Positions of `bands` in x."""

    def __len__(self) -> int:
        """N."""
        return len(self.metadata.empty)

    @property
    def patch_bytes(self) -> int:
        """Bytes of one patch in memory, its label included."""
        height, width = self.shape
        return height * width * (4 * len(self.bands) + 1)

    def read(self, rows: Index) -> Patches:
        """Read these patches, all their chunks concurrently.

        Raises:
            ConfigError: a label is none of the data set's.
            StoreError: the storage does not answer as it should.
        """
        if len(rows) == 0:
            height, width = self.shape
            return Patches(
                np.empty((0, len(self.bands), height, width), np.float32), np.empty((0, *self.shape), np.uint8)
            )
        try:
            x = self._store.attempt(lambda: np.asarray(self._x.oindex[rows, self._columns]), ARRAYS)
            y = self._store.attempt(lambda: np.asarray(self._y.oindex[rows]), ARRAYS)
        except (ValueError, RuntimeError) as error:
            raise StoreError(f"data: a chunk of {self._store.uri}/{ARRAYS} cannot be decoded: {error}") from error
        self._check_labels(rows, y)
        return Patches(np.ascontiguousarray(x, np.float32), y)

    def _check_labels(self, rows: Index, y: NDArray[np.uint8]) -> None:
        n, ignore = len(self.labels.names), self.labels.ignore
        wrong = (y >= n) & (y != ignore)
        if wrong.any():
            at = tuple(np.argwhere(wrong)[0])
            listed = "0 (no), 1 (yes)" if self.labels.binary else f"0 to {n - 1}"
            raise ConfigError(
                "data.uri",
                f"patch {rows[at[0]]} has the label {y[at]}; labels are {listed} and {ignore} (ignore): correct y",
            )

    def fits_in_memory(self, n: int) -> bool:
        """Whether n patches may be kept in memory."""
        return n * self.patch_bytes <= MEMORY_SHARE * memory_limit()


def open_dataset(spec: DataSpec, bands: Sequence[str] | None) -> DataSet:
    """Open a data set and check that its parts belong together.

    Args:
        spec: where it is.
        bands: names of the bands to read, in this order; None: all.

    Raises:
        ConfigError: it is missing, may not be read, or its parts do not fit each other.
        StoreError: the storage does not answer.
    """
    import zarr  # noqa: PLC0415 - a repeated result needs no zarr

    store = open_store(spec, "data")
    raw_config = _need(store, "config.toml")
    raw_metadata = _need(store, "metadata.parquet")
    section = _section(raw_config)
    known = _bands(section)
    try:
        labels = labels_from(section.get("classes"))
    except ValueError as error:
        raise ConfigError("data.uri", f"config.toml: {error}") from None
    zarr.config.set({"async.concurrency": CONCURRENT_REQUESTS})
    try:
        group = store.attempt(lambda: zarr.open_group(store.zarr(), path=ARRAYS, mode="r"), ARRAYS)
        x: Any = store.attempt(lambda: group["x"], ARRAYS)
        y: Any = store.attempt(lambda: group["y"], ARRAYS)
    except (FileNotFoundError, KeyError, ValueError) as error:
        raise ConfigError("data.uri", f"{store.uri}/{ARRAYS} has no readable arrays x and y: {error}") from None
    metadata = _metadata(raw_metadata)
    _check_arrays(x, y, len(known), len(metadata.empty))
    chosen = tuple(known if bands is None else bands)
    unknown = [band for band in chosen if band not in known]
    if unknown:
        raise ConfigError(
            "hyperparameters.bands", f"the data set has no band {', '.join(unknown)}; it has {', '.join(known)}"
        )
    return DataSet(
        bands=chosen,
        metadata=metadata,
        digest=_digest(store, raw_config, raw_metadata, {"x": x.shape, "y": y.shape}),
        shape=(x.shape[2], x.shape[3]),
        labels=labels,
        _store=store,
        _x=x,
        _y=y,
        _columns=np.array([known.index(band) for band in chosen]),
    )


def memory_limit() -> int:
    """Bytes that this process may use: the cgroup's limit, or what the machine has available."""
    limits = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_AVPHYS_PAGES")]
    for path in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        try:
            limits.append(int(Path(path).read_text()))
        except (OSError, ValueError):
            continue
    return min(limits)


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
        wanted = [name for name in ("sample_id", "region", "empty") if name in schema.names]
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
    return Metadata(empty=flags, region=names("region"), sample_id=names("sample_id"))


def _check_arrays(x: Any, y: Any, n_bands: int, n_rows: int) -> None:
    for name, array, dtype, axes in (("x", x, "float32", "(N, C, H, W)"), ("y", y, "uint8", "(N, H, W)")):
        if not hasattr(array, "shape") or array.ndim != axes.count(",") + 1 or array.dtype != np.dtype(dtype):
            got = f"{array.dtype} {array.shape}" if hasattr(array, "shape") else "a group"
            raise ConfigError("data.uri", f"{ARRAYS}/{name} must be {dtype} {axes}, not {got}")
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


def _digest(store: Store, config: bytes, metadata: bytes, shapes: dict[str, Any]) -> str:
    """SHA-256 over config, metadata, array shapes and every object of the arrays (name, size, tag)."""
    digest = hashlib.sha256()
    for part in (config, metadata, json.dumps(shapes, sort_keys=True).encode()):
        digest.update(hashlib.sha256(part).digest())
    for entry in sorted(store.list(f"{ARRAYS}/")):
        digest.update(f"{entry.path}\0{entry.size}\0{entry.tag}\n".encode())
    return digest.hexdigest()
