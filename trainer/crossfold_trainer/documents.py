"""The documents of a data set, each read and checked by itself: config.toml, metadata.parquet, the arrays' own. Pure.

Each function gives what could be read, and what is wrong with it.
"""

import io
import json
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from crossfold_trainer.chunks import Grid, grid_of
from crossfold_trainer.findings import Finding, error, some, warning
from crossfold_trainer.labels import Labels, labels_from
from crossfold_trainer.row_order import Z_IDX, Numbers, row_order
from crossfold_trainer.splits import Metadata
from crossfold_trainer.values import INTEGERS

CONFIG, METADATA, ARRAYS, LABELS = "config.toml", "metadata.parquet", "data.zarr", "labels.geojson"
ARRAY_DOCUMENTS = ("zarr.json", ".zarray")
"""Of zarr 3 and zarr 2; the first one that is there counts."""
KINDS = {"x": (("float32", *INTEGERS), "NCHW"), "y": (("uint8",), "NHW")}
"""Types and axes of the arrays."""
PANDAS_INDEX = "__index_level_0__"
"""The column in which pandas keeps an index without a name."""


@dataclass(frozen=True)
class Config:
    """What config.toml says; None where it does not, or not rightly."""

    bands: tuple[str, ...] | None = None
    patch_size: int | None = None
    labels: Labels | None = None
    counts: Mapping[str, int] = field(default_factory=dict)
    """n_bands and n_patches, where it has them: darts writes them, nothing needs them."""


class Table(NamedTuple):
    """What metadata.parquet says."""

    rows: int
    metadata: Metadata | None
    """In the order of the patches; None: it cannot be used."""
    order: NDArray[np.int64] | None = None
    """The row of each patch; None: row i describes patch i."""
    ordered_by: str = ""
    """What says which patch a row describes: index, z_idx, or nothing but its position (empty)."""


@dataclass(frozen=True)
class Array:
    """What an array's own metadata document says of it."""

    name: str
    """x or y."""
    document: dict[str, Any]
    """zarr.json or .zarray."""
    shape: tuple[int, ...]
    dtype: "np.dtype[Any] | None"
    """Of its values; None: a kind that numpy has no name for."""
    grid: Grid | None
    """Its chunks; None: their keys are of an unknown kind."""

    @property
    def sound(self) -> bool:
        """Whether values and axes are what they must be."""
        types, axes = KINDS[self.name]
        return len(self.shape) == len(axes) and self.dtype is not None and self.dtype.name in types

    @property
    def path(self) -> str:
        """Where it is below the data set."""
        return f"{ARRAYS}/{self.name}"

    @property
    def fill(self) -> Any:
        """The value of chunks that are not there."""
        return self.document.get("fill_value") or 0


def read_config(raw: bytes) -> tuple[Config, list[Finding]]:
    """Read config.toml."""
    try:
        content = tomllib.loads(raw.decode())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as broken:
        return Config(), [error(CONFIG, f"config.toml cannot be read: {broken}")]
    section = content.get("darts")
    if not isinstance(section, dict):
        return Config(), [error(CONFIG, "config.toml has no table [darts]")]
    found: list[Finding] = []
    missing = [name for name in ("bands", "patch_size") if name not in section]
    if missing:
        found.append(error(CONFIG, f"config.toml has no {' and no '.join(missing)} in [darts]"))
    labels = None
    try:
        labels = labels_from(section.get("classes"))
    except ValueError as wrong:
        found.append(error(CONFIG, f"config.toml: {wrong}"))
    counts = {name: section[name] for name in ("n_bands", "n_patches") if _is_whole(section.get(name))}
    bands = _bands(section["bands"], found) if "bands" in section else None
    patch_size = _patch_size(section["patch_size"], found) if "patch_size" in section else None
    return Config(bands, patch_size, labels, counts), found


def _is_whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _bands(bands: Any, found: list[Finding]) -> tuple[str, ...] | None:
    if not isinstance(bands, list) or not bands or not all(isinstance(band, str) for band in bands):
        found.append(error(CONFIG, f"bands in config.toml must be a list of names, not {bands!r}"))
        return None
    if len(set(bands)) != len(bands):
        found.append(error(CONFIG, f"bands in config.toml must be distinct: {', '.join(bands)}"))
        return None
    return tuple(bands)


def _patch_size(value: Any, found: list[Finding]) -> int | None:
    if _is_whole(value) and value > 0:
        return int(value)
    found.append(error(CONFIG, f"patch_size in config.toml must be a number of pixels above 0, not {value!r}"))
    return None


def read_metadata(raw: bytes) -> tuple[Table | None, list[Finding]]:
    """Read metadata.parquet, and bring its rows into the order of the patches."""
    import pyarrow as pa  # noqa: PLC0415 - a repeated result needs no parquet
    from pyarrow import parquet  # noqa: PLC0415

    try:
        file = parquet.ParquetFile(io.BytesIO(raw))  # read_table would import pyarrow's data sets too
        schema = file.schema_arrow
        levels = _index_levels(schema)
        columns = {"sample_id", "region", "empty", "geometry", Z_IDX, *levels} & set(schema.names)
        table = file.read(columns=sorted(columns))
    except (pa.ArrowException, OSError) as broken:
        return None, [error(METADATA, f"metadata.parquet cannot be read: {broken}")]
    z_idx = None if Z_IDX in levels or Z_IDX not in columns else _numbers(Z_IDX, table[Z_IDX])
    order = row_order(_index(schema, levels, table), z_idx, table.num_rows)
    found = list(order.findings)
    empty = _empty(schema, table, found)
    names = {column: _names(column, table, found) for column in ("region", "sample_id") if column in columns}
    if empty is None:
        return Table(table.num_rows, None, order.rows, order.by), found
    outlines = None
    if "geometry" in columns and (
        pa.types.is_binary(table["geometry"].type) or pa.types.is_large_binary(table["geometry"].type)
    ):
        outlines = tuple(table["geometry"].to_pylist())
    metadata = Metadata(empty=empty, region=names.get("region"), sample_id=names.get("sample_id"), outlines=outlines)
    metadata = metadata if order.rows is None else metadata.take(order.rows)
    return Table(table.num_rows, metadata, order.rows, order.by), found


def _index_levels(schema: Any) -> dict[str, Any]:
    """The levels of the index that pandas stored: its name or its range by the column that holds it.

    Tools that pass pandas' columns on without its metadata leave the column of a nameless index behind.
    """
    try:
        stored = json.loads((schema.metadata or {})[b"pandas"])
        called = {column.get("field_name"): column.get("name") for column in stored["columns"]}
        return {
            level if isinstance(level, str) else f"range {i}": called.get(level) if isinstance(level, str) else level
            for i, level in enumerate(stored["index_columns"])
        }
    except (KeyError, TypeError, ValueError, AttributeError):
        return {PANDAS_INDEX: None} if PANDAS_INDEX in schema.names else {}


def _index(schema: Any, levels: dict[str, Any], table: Any) -> Numbers | None:
    """The stored index; None: there is none."""
    if len(levels) != 1:
        return Numbers(", ".join(map(str, levels)), None, f"of {len(levels)} levels") if levels else None
    ((column, level),) = levels.items()
    if isinstance(level, dict):
        try:
            numbers = np.arange(level["start"], level["stop"], level["step"], dtype=np.int64)
        except (KeyError, TypeError, ValueError, ZeroDivisionError):
            return None
        # As in pandas: rows that were taken out by another tool have no index any more.
        return Numbers(level.get("name"), numbers) if len(numbers) == table.num_rows else None
    return _numbers(level, table[column]) if column in schema.names else None


def _numbers(name: str | None, column: Any) -> Numbers:
    """A column as a numbering of rows."""
    import pyarrow as pa  # noqa: PLC0415 - as above

    kind = f"{column.type}" + (f" with {column.null_count} missing" if column.null_count else "")
    if column.null_count or not (pa.types.is_integer(column.type) or pa.types.is_floating(column.type)):
        return Numbers(name, None, kind)
    values = np.array(column.to_pylist())
    whole = np.isfinite(values).all() and (values == np.floor(values)).all() and (np.abs(values) < 2**53).all()
    return Numbers(name, values.astype(np.int64) if whole else None, kind)


def _empty(schema: Any, table: Any, found: list[Finding]) -> NDArray[np.bool_] | None:
    import pyarrow as pa  # noqa: PLC0415 - as above

    if "empty" not in schema.names:
        names = ", ".join(schema.names)
        found.append(error(METADATA, f"metadata.parquet has no column empty; it has {names}"))
        return None
    empty = table["empty"]
    if empty.null_count or not (pa.types.is_boolean(empty.type) or pa.types.is_integer(empty.type)):
        kind = f"{empty.type} with {empty.null_count} missing"
        found.append(
            error(METADATA, f"column empty of metadata.parquet must be true or false in every row; it is {kind}")
        )
        return None
    values = np.array(empty.to_pylist())
    others = np.unique(values[(values != 0) & (values != 1)]) if len(values) else values
    if len(others):
        kind = f"{empty.type} with values such as {some(others.tolist())}"
        found.append(
            error(METADATA, f"column empty of metadata.parquet must be true or false in every row; it is {kind}")
        )
        return None
    return values.astype(np.bool_)


def _names(column: str, table: Any, found: list[Finding]) -> NDArray[np.str_]:
    """A column of names; empty where a row has none."""
    names = np.array(["" if value is None else str(value) for value in table[column].to_pylist()], dtype=np.str_)
    without = np.flatnonzero(names == "")
    if len(without):
        found.append(
            warning(
                METADATA,
                f"{column} is missing in {len(without)} of {len(names)} rows (rows {some(without.tolist())})",
                f"fill it, since what needs a {column} refuses such a data set",
            )
        )
    return names


def read_array(name: str, document: dict[str, Any]) -> tuple[Array, list[Finding]]:
    """Read the metadata document of x or y."""
    try:
        dtype = np.dtype(document.get("data_type", document.get("dtype")))
    except TypeError:
        dtype = None
    shape = document.get("shape")
    shape = tuple(shape) if isinstance(shape, list) and all(map(_is_whole, shape)) else ()
    array = Array(name, document, shape, dtype, grid_of(f"{ARRAYS}/{name}", document))
    if array.sound:
        return array, []
    types, axes = KINDS[name]
    got = f"{dtype} {shape}" if shape else "a group"
    return array, [error(array.path, f"{array.path} must be {' or '.join(types)} ({', '.join(axes)}), not {got}")]
