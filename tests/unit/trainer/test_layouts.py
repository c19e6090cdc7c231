"""Every layout is read as plain zarr reads it, whether chunk by chunk or through zarr, to the last bit."""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numcodecs
import numpy as np
import pytest
import torch
import zarr
from zarr import codecs
from zarr.codecs.numcodecs import FixedScaleOffset

from crossfold_trainer import loader as loader_module
from crossfold_trainer.contract.data import DataSpec
from crossfold_trainer.data import open_dataset
from crossfold_trainer.errors import ConfigError
from crossfold_trainer.layout import Layout, Scaling, parse
from crossfold_trainer.loader import Loader, Scale
from crossfold_trainer.reader import ChunkReader, ZarrReader
from crossfold_trainer.values import UNIT
from tests.trainer_data import BANDS, write_dataset

pytestmark = pytest.mark.filterwarnings("ignore:Numcodecs codecs are not in the Zarr version 3")

N, C, SIDE = 24, len(BANDS), 32
U16 = {"offset": 0, "scale": 65535, "dtype": "<f4", "astype": "<u2"}
BLOSC = codecs.BloscCodec(cname="lz4", clevel=5, shuffle="bitshuffle")


@dataclass(frozen=True)
class Case:
    """How x is written; y as darts writes it unless said otherwise."""

    name: str
    by_chunk: bool
    x: dict[str, Any]
    y: dict[str, Any] = field(default_factory=dict)
    zarr_format: int = 3


CASES = [
    Case("darts", True, {"chunks": (1, 1, SIDE, SIDE), "compressors": BLOSC}, {"compressors": BLOSC}),
    Case("one chunk a patch", True, {"chunks": (1, C, SIDE, SIDE), "compressors": BLOSC}),
    Case("two bands a chunk", True, {"chunks": (1, 2, SIDE, SIDE), "compressors": BLOSC}),
    Case("zstd", True, {"chunks": (1, C, SIDE, SIDE), "compressors": codecs.ZstdCodec()}),
    Case("not compressed", True, {"chunks": (1, 1, SIDE, SIDE), "compressors": None}, {"compressors": None}),
    Case("uint16", True, {"chunks": (1, C, SIDE, SIDE), "filters": [FixedScaleOffset(**U16)], "compressors": BLOSC}),
    Case("uint8", True, {"chunks": (1, C, SIDE, SIDE), "filters": [FixedScaleOffset(**U16 | {"scale": 255, "astype": "|u1"})]}),
    Case("int16 with an offset", True, {"chunks": (1, 1, SIDE, SIDE), "filters": [FixedScaleOffset(**U16 | {"offset": 0.5, "scale": 30000.3, "astype": "<i2"})], "fill_value": 0.5}),
    Case("keys as in zarr 2", True, {"chunks": (1, 1, SIDE, SIDE), "chunk_key_encoding": {"name": "v2", "separator": "."}}),
    Case("zarr 2", True, {"chunks": (1, 1, SIDE, SIDE), "compressors": numcodecs.Blosc("lz4")}, {"compressors": numcodecs.Blosc("zstd")}, 2),
    Case("zarr 2, uint16", True, {"chunks": (1, C, SIDE, SIDE), "filters": [numcodecs.FixedScaleOffset(**U16)]}, zarr_format=2),
    Case("zarr 2, keys with slashes", True, {"chunks": (1, C, SIDE, SIDE), "chunk_key_encoding": {"name": "v2", "separator": "/"}}, zarr_format=2),
    Case("big-endian", False, {"chunks": (1, 1, SIDE, SIDE), "serializer": codecs.BytesCodec(endian="big")}),
    Case("gzip", False, {"chunks": (1, 1, SIDE, SIDE), "compressors": codecs.GzipCodec()}),
    Case("several patches a chunk", False, {"chunks": (5, C, SIDE, SIDE)}),
    Case("parts of patches", False, {"chunks": (1, C, 16, 20)}),
    Case("shards", False, {"chunks": (1, 1, SIDE, SIDE), "shards": (4, C, SIDE, SIDE)}),
    Case("checksums", False, {"chunks": (1, 1, SIDE, SIDE), "compressors": [BLOSC, codecs.Crc32cCodec()]}),
    Case("labels in one chunk", False, {"chunks": (1, 1, SIDE, SIDE)}, {"chunks": (N, SIDE, SIDE)}),
    Case("zarr 2, Fortran order", False, {"chunks": (1, C, SIDE, SIDE), "order": "F"}, zarr_format=2),
]  # fmt: skip


def written(folder: Path, case: Case) -> zarr.Group:
    write_dataset(folder)
    group = zarr.open_group(folder / "data.zarr", mode="r")
    parts = {name: np.asarray(group[name]) for name in ("x", "y")}
    parts["x"][7] = parts["x"][11, 1] = 0  # a patch and a band that leave no chunk behind
    parts["y"][8] = 0  # an empty one
    group = zarr.open_group(folder / "data.zarr", mode="w", zarr_format=case.zarr_format)
    for name, settings in (("x", case.x), ("y", {"chunks": (1, SIDE, SIDE)} | case.y)):
        array = parts[name]
        group.create_array(name, shape=array.shape, dtype=array.dtype, **{"fill_value": 0} | settings)[:] = array
    return group


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name.replace(" ", "-"))
def test_reads_what_zarr_reads(case: Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    group = written(tmp_path / "d", case)
    x, y = np.asarray(group["x"]), np.asarray(group["y"])
    rows = np.array([5, 0, 23, 7, 11, 8, 5])
    for bands in (None, ["nir", "red"], ["green"]):
        columns = [BANDS.index(band) for band in bands or BANDS]
        data = open_dataset(DataSpec(uri=str(tmp_path / "d")), bands)
        assert isinstance(data.reader, ChunkReader if case.by_chunk else ZarrReader)
        got = data.read(rows)
        assert got.x.dtype == np.float32
        assert np.array_equal(got.x, x[rows][:, columns])
        assert np.array_equal(got.y, y[rows])
    for limit in (2**40, 1):
        monkeypatch.setattr(loader_module, "memory_limit", lambda limit=limit: limit)
        loader = Loader(data, np.unique(rows), torch.device("cpu"))
        assert loader.in_memory == (limit > 1)
        for batch, (got_x, got_y) in zip([rows[:4], rows[4:]], loader.batches([rows[:4], rows[4:]]), strict=True):
            assert got_x.dtype == torch.float32
            assert np.array_equal(got_x.numpy(), x[batch][:, columns])
            assert np.array_equal(got_y.numpy(), y[batch])


def test_a_band_subset_reads_only_its_chunks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written(tmp_path / "d", CASES[0])
    read: list[str] = []
    read_bytes = Path.read_bytes
    monkeypatch.setattr(Path, "read_bytes", lambda path: (read.append(str(path)), read_bytes(path))[1])
    open_dataset(DataSpec(uri=str(tmp_path / "d")), ["green"]).read(np.array([3]))
    assert sorted(Path(path).relative_to(tmp_path / "d/data.zarr").as_posix() for path in read) == [
        "x/c/3/1/0/0",
        "y/c/3/0/0",
    ]


@pytest.mark.parametrize("scale", [65535.0, 255.0, 10000.0, 0.1, 3.3])
@pytest.mark.parametrize("offset", [0.0, 0.25])
def test_every_stored_number_means_what_zarr_says(scale: float, offset: float) -> None:
    stored = np.arange(2**16, dtype="<u2")
    want = numcodecs.FixedScaleOffset(offset=offset, scale=scale, dtype="<f4", astype="<u2").decode(stored)
    scaling = Scaling(scale, offset)
    assert np.array_equal(scaling.decode(stored), want)
    assert np.array_equal(
        Scale(stored.dtype, scaling, [UNIT], torch.device("cpu"))(torch.from_numpy(stored)).numpy(), want
    )
    assert scaling.plain == (offset == 0 and scale in (65535.0, 255.0, 10000.0))


LAYOUT = Layout("a/c/", "/", (4, 2, 8, 8), 1, np.dtype("<f4"), None, "blosc", 0)


@pytest.mark.parametrize(
    ("compression", "damage", "says"),
    [
        ("blosc", lambda raw: raw[:-3], "bytes that hold 256"),
        ("blosc", lambda raw: raw + b"more", "bytes that hold 256"),
        ("blosc", lambda raw: raw[:9], "fewer than blosc's header"),
        ("blosc", lambda raw: numcodecs.Blosc().encode(np.zeros(65, "<f4")), "256 must come out"),
        ("blosc", lambda raw: raw[:16] + bytes([255]) * (len(raw) - 16), "error during blosc decompression"),
        ("zstd", lambda raw: b"no zstd at all", "Zstd decompression error"),
        ("zstd", lambda raw: numcodecs.Zstd().encode(np.zeros(3, "<f4")), "it holds 12 bytes instead of 256"),
        ("", lambda raw: raw[:5], "it holds 5 bytes instead of 256"),
    ],
)
def test_what_is_no_chunk_is_refused(compression: Any, damage: Any, says: str) -> None:
    values = np.arange(64, dtype=np.float32).reshape(8, 8)
    layout = Layout(**vars(LAYOUT) | {"compression": compression})
    with pytest.raises(ValueError, match=says):
        layout.decode(damage(numcodecs.Blosc().encode(values)), np.empty((8, 8), "<f4"))


def test_a_document_that_makes_no_sense_is_left_to_zarr() -> None:
    for document in ({}, {"zarr_format": 3}, {"zarr_format": 2, "shape": []}, {"zarr_format": 3, "codecs": "x"}):
        assert parse("data.zarr/x", document) is None


def test_a_damaged_chunk_is_named(tmp_path: Path) -> None:
    written(tmp_path / "d", CASES[0])
    chunk = tmp_path / "d/data.zarr/x/c/3/1/0/0"
    chunk.write_bytes(chunk.read_bytes()[:-1])
    data = open_dataset(DataSpec(uri=str(tmp_path / "d")), None)
    data.read(np.arange(3))
    with pytest.raises(ConfigError, match=r"data.uri: .*/d/data.zarr/x/c/3/1/0/0 cannot be decoded \(it has .* again"):
        data.read(np.arange(6))


def test_a_chunk_that_goes_is_no_gap(tmp_path: Path) -> None:
    written(tmp_path / "d", CASES[0])
    data = open_dataset(DataSpec(uri=str(tmp_path / "d")), None)
    (tmp_path / "d/data.zarr/y/c/3/0/0").unlink()
    with pytest.raises(ConfigError, match=r"data.zarr/y/c/3/0/0 was there when the data set was opened and is gone"):
        data.read(np.arange(6))


def test_through_zarr_a_damaged_chunk_is_refused_too(tmp_path: Path) -> None:
    written(tmp_path / "d", next(case for case in CASES if case.name == "gzip"))
    (tmp_path / "d/data.zarr/x/c/3/1/0/0").write_bytes(b"no gzip")
    data = open_dataset(DataSpec(uri=str(tmp_path / "d")), None)
    with pytest.raises(ConfigError, match=r"a chunk of patches 2, 3 cannot be decoded"):
        data.read(np.array([2, 3]))


def test_metadata_that_zarr_cannot_read_is_refused(tmp_path: Path) -> None:
    write_dataset(tmp_path / "d")
    path = tmp_path / "d/data.zarr/x/zarr.json"
    document = json.loads(path.read_text())
    document["codecs"].append({"name": "of-tomorrow", "configuration": {}})
    path.write_text(json.dumps(document))
    with pytest.raises(ConfigError, match=r"has no readable arrays x and y: .*of-tomorrow"):
        open_dataset(DataSpec(uri=str(tmp_path / "d")), None)
    path.write_text("{")
    with pytest.raises(ConfigError, match=r"data.zarr/x/zarr.json cannot be read"):
        open_dataset(DataSpec(uri=str(tmp_path / "d")), None)
