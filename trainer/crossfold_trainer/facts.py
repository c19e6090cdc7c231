"""Whether the parts of a data set belong together: documents and listing compared, before any pixel is read. Pure.

Shapes: N patches, C bands, H x W pixels.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from crossfold_trainer.chunks import Presence, encoding_remedy
from crossfold_trainer.documents import ARRAYS, CONFIG, METADATA, Array, Config, Table
from crossfold_trainer.findings import Finding, count, error, some, warning
from crossfold_trainer.labels import Labels
from crossfold_trainer.splits import Metadata
from crossfold_trainer.store import Entry

Y = f"{ARRAYS}/y"


def check_shapes(config: Config, table: Table | None, x: Array | None, y: Array | None) -> list[Finding]:
    """Compare numbers of patches, bands and pixels.

    Args:
        config: config.toml.
        table: metadata.parquet; None: it cannot be read.
        x: the images' document; None: it is not there, or no (N, C, H, W).
        y: the labels' document; None: it is not there, or no (N, H, W).
    """
    found = []
    counts = {
        "x has {} patches": x and x.shape[0],
        "y has {}": y and y.shape[0],
        "metadata.parquet has {} rows": table and table.rows,
    }
    known = {text: n for text, n in counts.items() if n is not None}
    if len(set(known.values())) > 1:
        told = [text.format(n) for text, n in known.items()]
        text = f"{', '.join(told[:-1])} and {told[-1]}"
        found.append(error(ARRAYS, text, "they must be the same patches, so write the data set again"))
    elif known and not next(iter(known.values())):
        found.append(error(ARRAYS, "the data set has no patches"))
    if x and config.bands and x.shape[1] != len(config.bands):
        found.append(
            error(
                CONFIG,
                f"x has {x.shape[1]} bands, config.toml names {len(config.bands)} ({', '.join(config.bands)})",
                "name the bands of x in their order",
            )
        )
    if x and y and x.shape[2:] != y.shape[1:]:
        found.append(error(ARRAYS, f"x has patches of {x.shape[2:]} pixels, y of {y.shape[1:]}", "write them again"))
    pixels = x.shape[2:] if x else y.shape[1:] if y else None
    if pixels and config.patch_size and pixels != (config.patch_size, config.patch_size):
        found.append(
            error(
                CONFIG,
                f"config.toml says patch_size = {config.patch_size}, and {'x' if x else 'y'} has patches of"
                f" {pixels[0]} x {pixels[1]} pixels",
                "correct patch_size, or cut the patches again",
            )
        )
    stated = {"n_patches": x and x.shape[0], "n_bands": x and x.shape[1]}
    for name, n in stated.items():
        if n and name in config.counts and config.counts[name] != n:
            found.append(
                warning(CONFIG, f"config.toml says {name} = {config.counts[name]}, and x has {n}", f"correct {name}")
            )
    return found


def check_bands(known: Sequence[str], wanted: Sequence[str]) -> list[Finding]:
    """Compare the bands that are to be read with those that there are."""
    unknown = [band for band in wanted if band not in known]
    if not unknown:
        return []
    text = f"the data set has no band {', '.join(unknown)}; it has {', '.join(known)}"
    return [error(CONFIG, text, field="hyperparameters.bands")]


def check_chunks(array: Array, there: Presence, bands: Sequence[str] | None) -> list[Finding]:
    """Compare the keys of an array's objects with the keys that its document says.

    Args:
        array: its document.
        there: what is there of them.
        bands: names of the bands along the second axis; None: unknown, or the array has none.
    """
    of = f"{there.total} chunks of {array.path}"
    if there.total and not there.there:
        return [_nothing_fits(array, there, of)]
    found = []
    if there.misnamed:
        found.append(
            error(
                array.path,
                f"{there.missing} of {of} are not there under the keys that its document says (such as"
                f" {there.grid.example}), while {len(there.misnamed)} are there under other keys"
                f" ({some(there.misnamed, 2)})",
                "write the array again, with keys of one kind",
            )
        )
    elif there.missing and array.name == "x":
        found.append(_gaps(array, there, of, bands))
    if there.hollow:
        found.append(
            error(
                array.path,
                f"{len(there.hollow)} of {of} are objects of 0 bytes ({some(there.hollow, 2)})",
                "upload the array again",
            )
        )
    stray = {
        "lies outside of its shape " + str(array.shape): there.outside,
        "has a key of another kind": there.leftover,
    }
    for why, keys in stray.items():
        if keys:
            read = count(len(keys), f"chunk in {array.path} is", f"chunks in {array.path} are")
            text = f"{read} not read, since each {why} ({some(keys, 2)})"
            found.append(warning(array.path, text, "delete them, or correct its metadata document"))
    return found


def _nothing_fits(array: Array, there: Presence, of: str) -> Finding:
    """Not one chunk is there: all of the array would be its fill value."""
    text = f"none of the {of} is there under the keys that its document says (such as {there.grid.example})"
    if there.misnamed:
        text += f", and {len(there.misnamed)} are there under other keys ({some(there.misnamed, 2)})"
        return error(array.path, text, encoding_remedy(there.grid, there.misnamed[0]))
    if others := (*there.outside, *there.others):
        text += f"; there are {len(others)} other objects ({some(others, 2)})"
    return error(array.path, text, "upload or write the array again")


def _gaps(array: Array, there: Presence, of: str, bands: Sequence[str] | None) -> Finding:
    """Some chunks are left out, as zarr does with those that hold nothing but the fill value."""
    incomplete, absent = there.incomplete(), there.absent()
    text = f"{there.missing} of {of} are not there, in {len(incomplete)} of {array.shape[0]} patches"
    text += f"; {count(len(absent), 'patch has', 'patches have')} none ({some(absent.tolist())})" if len(absent) else ""
    bare = np.flatnonzero(there.by_band == 0).tolist()
    if len(bare) and bands is not None and there.grid.chunk[1] == 1 and len(bands) == len(there.by_band):
        text += f"; nor has band {some([bands[i] for i in bare])} any"
    text += f"; they are read as the fill value {array.fill}"
    return warning(array.path, text, "upload or write the array again unless that is what they hold")


def check_labels_left_out(labels: Labels, metadata: Metadata, y: Array, there: Presence) -> list[Finding]:
    """Compare `empty` with labels that are not there, and are therefore the fill value.

    Args:
        labels: what the values of y mean.
        metadata: metadata.parquet, a row for each patch.
        y: the document of y.
        there: what is there of them.
    """
    absent = there.absent()
    positive = bool(labels.positive(np.array([y.fill], np.uint8))[0]) if _is_label(y.fill) else False
    wrong = absent[metadata.empty[absent] == positive]
    if not len(wrong) or there.misnamed:
        return []
    text = f"y has no chunk for {count(len(wrong), 'patch', 'patches')}, which {y.fill} therefore fills"
    return [_against_empty(labels, wrong, text, positive=positive)]


def check_labels(labels: Labels, wrong: Mapping[int, Sequence[int]]) -> list[Finding]:
    """What to say of labels that there are not.

    Args:
        labels: what the values of y mean.
        wrong: patches by the value that they have and that is no label.
    """
    rule = f"labels are {labels.listed} and {labels.ignore} (ignore)"
    return [
        error(
            Y,
            f"patch {rows[0]} has the label {value}"
            + (f", and so have {len(rows) - 1} more" if len(rows) > 1 else "")
            + f"; {rule}",
            "correct y",
        )
        for value, rows in sorted(wrong.items())
    ]


def _is_label(value: Any) -> bool:
    return isinstance(value, int | float) and 0 <= value < 256


def check_empty(
    labels: Labels, empty: NDArray[np.bool_], rows: NDArray[np.int64], positive: NDArray[np.bool_]
) -> list[Finding]:
    """Compare `empty` with the labels of patches.

    Args:
        labels: what the values of y mean.
        empty: what metadata.parquet says of all patches (N,).
        rows: the patches that were looked at (n,).
        positive: whether they have a positive pixel (n,).

    Returns:
        Errors for binary labels. With several classes `empty` is the user's own, so that a patch that is not
        empty and has class 0 alone is only a warning.
    """
    found = []
    for has in (False, True):
        wrong = rows[(positive == has) & (empty[rows] == has)]
        if len(wrong) and (labels.binary or not has):
            name = "1" if labels.binary else "a class above 0"
            text = f"y has {'a' if has else 'no'} pixel of {name} in {count(len(wrong), 'patch', 'patches')}"
            found.append(_against_empty(labels, wrong, text, positive=has))
    return found


def _against_empty(labels: Labels, rows: NDArray[np.int64], text: str, *, positive: bool) -> Finding:
    text += f", and metadata.parquet says empty = {str(positive).lower()} of them ({some(rows.tolist())})"
    if labels.binary:
        return error(METADATA, text, "correct empty (true where no pixel is 1), or write y again")
    return warning(METADATA, text, "see whether empty is meant so: folds are stratified by it")


def check_group(
    entries: Sequence[Entry], x: Array | None, y: Array | None, stored: Mapping[str, bytes]
) -> list[Finding]:
    """Compare what stands above the arrays with the arrays.

    Args:
        entries: all objects below data.zarr.
        x: the images' document.
        y: the labels' document.
        stored: the group's own documents by their names, as far as they are there: zarr.json and .zmetadata.
    """
    paths = {entry.path for entry in entries}
    found = []
    if not paths & {f"{ARRAYS}/zarr.json", f"{ARRAYS}/.zgroup"}:
        text = f"{ARRAYS} has no document of its own (zarr.json or .zgroup), so that other tools may not open it"
        found.append(warning(ARRAYS, text, "create the group anew without overwriting its arrays"))
    arrays = [array for array in (x, y) if array is not None]
    for array in arrays:
        if {f"{array.path}/zarr.json", f"{array.path}/.zarray"} <= paths:
            text = f"{array.path} has zarr.json and .zarray: zarr.json counts"
            found.append(warning(array.path, text, "delete the one that is not meant"))
    for name, raw in stored.items():
        kept = _consolidated(name, raw)
        for array in arrays if kept is not None else ():
            found += _check_consolidated(name, array, (kept or {}).get(array.name))
    return found


def _consolidated(name: str, raw: bytes) -> dict[str, Any] | None:
    """The metadata of arrays by their names that a group's document repeats; None: it repeats none."""
    try:
        content = json.loads(raw)
        if name == ".zmetadata":
            return {key.removesuffix("/.zarray"): value for key, value in content["metadata"].items()}
        kept = content.get("consolidated_metadata")
        return None if kept is None else dict(kept["metadata"])
    except (ValueError, KeyError, TypeError, AttributeError):
        return None


def _check_consolidated(name: str, array: Array, kept: Any) -> list[Finding]:
    place, remedy = f"{ARRAYS}/{name}", "consolidate the metadata again (zarr.consolidate_metadata)"
    if not isinstance(kept, dict):
        text = f"the consolidated metadata in {place} do not know {array.name}, which is there"
        return [warning(place, text, remedy)]
    fields = sorted(
        key
        for key in ("shape", "chunks", "chunk_grid", "dtype", "data_type")
        if kept.get(key) != array.document.get(key)
    )
    if not fields:
        return []
    key = "shape" if "shape" in fields else fields[0]
    text = (
        f"the consolidated metadata in {place} say {key} {json.dumps(kept.get(key))} of {array.name}, and its own"
        f" document says {json.dumps(array.document.get(key))}, which counts"
    )
    return [warning(place, text, remedy)]
