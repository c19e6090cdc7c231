"""A data set's documents and the list of its objects: read once, at the same time, and compared."""

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from crossfold_trainer.chunks import Presence, presence
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
from crossfold_trainer.facts import check_chunks, check_group, check_labels_left_out, check_shapes
from crossfold_trainer.findings import Finding, error
from crossfold_trainer.inventory import digest_of, list_objects, marks
from crossfold_trainer.store import Entry, Store

GROUP_DOCUMENTS = ("zarr.json", ".zmetadata")
"""Of data.zarr: they may repeat the metadata of the arrays."""


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
        others = [*files[1:], *([f"arrays in {ARRAYS}"] if len(arrays) == 2 else [])]
        text = f"{store.uri}/{files[0]} does not exist" + (f", nor do {' and '.join(others)}" if others else "")
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
