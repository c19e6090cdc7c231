"""Which chunks are there, by the keys of a listing, for every way in which zarr names and groups chunks."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr

from crossfold_trainer.chunks import Grid, Presence, encoding_remedy, grid_of, presence
from crossfold_trainer.contract.data import DataSpec
from crossfold_trainer.documents import ARRAYS
from crossfold_trainer.inventory import list_objects
from crossfold_trainer.store import Entry, open_store
from crossfold_trainer.survey import survey

N, C, SIDE = 6, 3, 8


def seen(folder: Path, **settings: Any) -> Presence:
    """The chunks of x of which patch 2 is empty, and band 1 of patch 4."""
    zarr_format = settings.pop("zarr_format", 3)
    group = zarr.open_group(folder / ARRAYS, mode="w", zarr_format=zarr_format)
    x = np.ones((N, C, SIDE, SIDE), np.float32)
    x[2] = x[4, 1] = 0
    array = group.create_array("x", shape=x.shape, dtype=x.dtype, **settings)
    array[:] = x
    store = open_store(DataSpec(uri=str(folder)), "data")
    found = survey(store)
    assert found.x is not None
    return presence(found.x.grid, list_objects(store, f"{ARRAYS}/"))


BANDS_APART = {"chunks": (1, 1, SIDE, SIDE)}


@pytest.mark.parametrize(
    ("settings", "total", "missing", "incomplete"),
    [
        (BANDS_APART, 18, 4, [2, 4]),
        (BANDS_APART | {"zarr_format": 2}, 18, 4, [2, 4]),
        (BANDS_APART | {"chunk_key_encoding": {"name": "v2", "separator": "."}}, 18, 4, [2, 4]),
        (BANDS_APART | {"chunk_key_encoding": {"name": "default", "separator": "."}}, 18, 4, [2, 4]),
        (BANDS_APART | {"zarr_format": 2, "chunk_key_encoding": {"name": "v2", "separator": "/"}}, 18, 4, [2, 4]),
        ({"chunks": (1, C, SIDE, SIDE)}, 6, 1, [2]),
        ({"chunks": (1, 1, 4, 5)}, 72, 16, [2, 4]),
        ({"chunks": (4, C, SIDE, SIDE)}, 2, 0, []),
        ({"chunks": (1, C, SIDE, SIDE), "shards": (2, C, SIDE, SIDE)}, 3, 0, []),
        ({"chunks": (1, 1, SIDE, SIDE), "shards": (1, C, SIDE, SIDE)}, 6, 1, [2]),
    ],
)
def test_chunks_that_zarr_left_out_are_counted(
    tmp_path: Path, settings: dict[str, Any], total: int, missing: int, incomplete: list[int]
) -> None:
    found = seen(tmp_path, **settings)
    assert (found.total, found.missing) == (total, missing)
    assert found.incomplete().tolist() == incomplete
    assert found.absent().tolist() == ([2] if missing else [])
    assert (found.misnamed, found.leftover, found.outside, found.hollow, found.others) == ((),) * 5


GRID = Grid("a/x", 2, False, ".", (3, 2, 8, 8), (1, 1, 8, 8))


def there(*keys: str, size: int = 9) -> Presence:
    return presence(GRID, [Entry(f"a/x/{key}", size, "t") for key in (".zarray", ".zattrs", *keys)])


def test_keys_of_all_kinds_are_told_apart() -> None:
    found = there(
        "0.0.0.0", "2.1.0.0", "0/0/0/0", "c/1/1/0/0", "3.0.0.0", "0.0.0.1", "1.0.0", "00.0.0.0", "x.tmp", "x/.DS_Store"
    )
    assert (found.there, found.missing) == (2, 4)
    assert found.by_block.tolist() == [1, 0, 1]
    assert found.by_band.tolist() == [1, 1]
    assert found.leftover == ("0/0/0/0",)
    assert found.misnamed == ("c/1/1/0/0",)
    assert found.outside == ("3.0.0.0", "0.0.0.1")
    assert set(found.others) == {"1.0.0", "00.0.0.0", "x.tmp", "x/.DS_Store"}  # fmt: skip


def test_other_arrays_are_passed_over() -> None:
    assert presence(GRID, [Entry("a/xx/0.0.0.0", 1, "t"), Entry("a/x0.0.0.0", 1, "t")]).there == 0


def test_objects_without_a_byte_are_no_chunks() -> None:
    assert there("0.0.0.0", size=0).hollow == ("0.0.0.0",)


V3 = {
    "zarr_format": 3,
    "shape": [3, 8, 8],
    "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": [1, 8, 8]}},
    "chunk_key_encoding": {"name": "default"},
}


@pytest.mark.parametrize(
    ("document", "key", "words"),
    [
        ({"zarr_format": 2, "shape": [3, 8, 8], "chunks": [1, 8, 8]}, "0/0/0", ['"dimension_separator" to "/"', "y/.zarray"]),
        ({"zarr_format": 2, "shape": [3, 8, 8], "chunks": [1, 8, 8]}, "c/0/0/0", ["zarr.json"]),
        (V3, "0.0.0", ['"name": "v2"', '"separator": "."', "y/zarr.json"]),
        (V3, "c.0.0.0", ['"name": "default"', '"separator": "."']),
    ],
)  # fmt: skip
def test_the_remedy_names_what_to_write(document: dict[str, Any], key: str, words: list[str]) -> None:
    grid = grid_of("y", document)
    assert grid is not None
    remedy = encoding_remedy(grid, key)
    assert all(word in remedy for word in words), remedy


@pytest.mark.parametrize(
    "document",
    [
        {},
        {"zarr_format": 2, "shape": [3], "chunks": [1]},
        {"zarr_format": 2, "shape": [3, 8], "chunks": [1]},
        {"zarr_format": 2, "shape": [3, 8], "chunks": [0, 8]},
        {"zarr_format": 2, "shape": [3, 8], "chunks": [1, 8], "dimension_separator": "-"},
        V3 | {"chunk_grid": {"name": "rectilinear"}},
        V3 | {"chunk_key_encoding": {"name": "of-tomorrow"}},
        V3 | {"chunk_key_encoding": None},
    ],
)
def test_chunks_of_an_unknown_kind_are_left_alone(document: dict[str, Any]) -> None:
    assert grid_of("y", document) is None
