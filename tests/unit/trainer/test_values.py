"""What the values of x may be: what is refused, what is ignored, and that a data set is looked at once."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import zarr
from numpy.typing import NDArray
from zarr import codecs
from zarr.codecs.numcodecs import FixedScaleOffset

from crossfold_trainer import loader as loader_module
from crossfold_trainer import values
from crossfold_trainer.contract.data import DataSpec, ScaleSpec
from crossfold_trainer.data import DataSet, open_dataset
from crossfold_trainer.errors import ConfigError
from crossfold_trainer.layout import Scaling
from crossfold_trainer.loader import Loader, Scale, ordered_batches
from crossfold_trainer.reader import ChunkReader, ZarrReader
from crossfold_trainer.transforms import compose
from crossfold_trainer.values import UNIT, BandValues, Range, look
from tests.trainer_data import BANDS, write_dataset

pytestmark = pytest.mark.filterwarnings("ignore:Numcodecs codecs are not in the Zarr version 3")

N, SIDE = 8, 16
CPU = torch.device("cpu")
ROWS = np.arange(N)
LAYOUTS: dict[str, dict[str, Any]] = {
    "chunks": {"chunks": (1, 1, SIDE, SIDE)},
    "zarr": {"chunks": (1, 1, SIDE, SIDE), "compressors": codecs.GzipCodec()},
}
READERS = {"chunks": ChunkReader, "zarr": ZarrReader}


def image() -> NDArray[np.float32]:
    return np.random.default_rng(1).uniform(0.1, 0.9, (N, len(BANDS), SIDE, SIDE)).astype(np.float32)


def written(folder: Path, x: NDArray[Any], layout: str = "chunks", **settings: Any) -> Path:
    write_dataset(folder, N, SIDE)
    group = zarr.open_group(folder / "data.zarr", mode="a")
    del group["x"]
    group.create_array("x", shape=x.shape, dtype=x.dtype, **LAYOUTS[layout] | settings)[:] = x
    return folder


def opened(folder: Path, bands: list[str] | None = None, **data: Any) -> DataSet:
    return open_dataset(DataSpec.model_validate({"uri": str(folder), **data}), bands)


def batches(data: DataSet, *, times: int = 1) -> tuple[torch.Tensor, torch.Tensor]:
    """All patches through a loader, as the last of so many epochs gets them."""
    loader = Loader(data, ROWS, CPU)
    for _ in range(times):
        got = list(loader.batches(ordered_batches(ROWS, 3)))
    return torch.cat([x for x, _ in got]), torch.cat([y for _, y in got])


@pytest.fixture(params=["memory", "ahead"])
def kept(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Loaders that keep all patches in memory, and loaders that read ahead."""
    monkeypatch.setattr(loader_module, "memory_limit", lambda: 2**40 if request.param == "memory" else 1)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_what_is_no_number_is_refused_with_patch_band_and_count(tmp_path: Path, layout: str, bad: float) -> None:
    x = image()
    x[5, 1, 3, 3:5] = x[5, 2, 0, 0] = bad
    data = opened(written(tmp_path / "d", x, layout))
    assert isinstance(data.reader, READERS[layout])
    data.read(np.arange(5))
    for _ in range(2):
        with pytest.raises(ConfigError, match=r"data.uri: patch 5 has NaN or infinite values: 2 of 256 pixels in band green, 1 of 256 pixels in band nir: .*data.nonFinite"):  # fmt: skip
            data.read(ROWS)


def test_bands_that_are_not_read_are_not_looked_at(tmp_path: Path) -> None:
    x = image()
    x[:, 1] = np.nan
    folder = written(tmp_path / "d", x)
    assert np.array_equal(opened(folder, ["nir", "red"]).read(ROWS).x, x[:, [2, 0]])
    with pytest.raises(ConfigError, match="256 of 256 pixels in band green:"):
        opened(folder, ["nir", "green"]).read(ROWS)


def test_a_fill_value_that_is_no_number_counts_too(tmp_path: Path) -> None:
    folder = written(tmp_path / "d", image(), fill_value=np.nan)
    (folder / "data.zarr/x/c/3/2/0/0").unlink()
    with pytest.raises(ConfigError, match="patch 3 has NaN or infinite values: 256 of 256 pixels in band nir:"):
        opened(folder).read(ROWS)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.usefixtures("kept")
def test_ignored_values_are_zero_and_their_pixels_count_nowhere(tmp_path: Path, layout: str) -> None:
    clean, x = image(), image()
    x[5, 1, 3, 3:5] = x[5, 2, 3, 4] = np.nan
    x[7, 0, 9, 9] = np.inf
    folder = written(tmp_path / "d", x, layout)
    y = np.asarray(zarr.open_group(folder / "data.zarr", mode="r")["y"])
    wrong = ~np.isfinite(x)
    want_x, want_y = np.where(wrong, 0, clean), np.where(wrong.any(axis=1), 2, y)
    data = opened(folder, nonFinite="Ignore")
    for _ in range(2):
        got = data.read(ROWS)
        assert np.array_equal(got.x, want_x)
        assert np.array_equal(got.y, want_y)
    got_x, got_y = batches(data, times=3)
    assert np.array_equal(got_x.numpy(), want_x)
    assert np.array_equal(got_y.numpy(), want_y)
    assert data.ignored == {5: 2, 7: 1}


def test_what_is_ignored_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    x = image()
    x[5, 1, 3, 3:5] = np.nan
    opened(written(tmp_path / "d", x), nonFinite="Ignore").read(ROWS)
    assert "patch 5 has NaN or infinite values: 2 of 256 pixels in band green" in caplog.text


def test_ignoring_what_is_no_number_leaves_the_range_to_be_kept(tmp_path: Path) -> None:
    x = image()
    x[5, 1, 3, 3], x[5, 1, 4, 4] = np.nan, 7
    data = opened(written(tmp_path / "d", x), nonFinite="Ignore")
    with pytest.raises(ConfigError, match=r"data.scale: patch 5 has values out of range: band green has 0.1"):
        data.read(ROWS)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda x: x * 10_000, r"has 1\d+\.?\d* to \d+\.?\d*, 100.00% of its pixels outside \[0, 1\].*such as \{min: 0, max: 10000\}"),
        (lambda x: (x * 255).round(), r"has 2\d to 2\d\d, 100.00% of its pixels outside \[0, 1\].*such as \{min: 0, max: 255\}"),
        (lambda x: np.where(x > 0.88, -9999, x), r"has -9999 to 0.8\d+, \d\.\d\d% .*no data.* 2 \(ignore\)"),
        (lambda x: x - 0.12, r"has -0.0\d+ to 0.7\d+, \d\.\d\d% .*such as \{min: -0.0\d+, max: 1\}"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("layout", LAYOUTS)
def test_values_out_of_range_are_refused_with_their_share(tmp_path: Path, layout: str, change: Any, says: str) -> None:
    data = opened(written(tmp_path / "d", change(image()).astype(np.float32), layout))
    with pytest.raises(ConfigError, match=rf"data.scale: patch \d has values out of range: band red {says}"):
        data.read(ROWS)


def test_rounding_is_no_error(tmp_path: Path) -> None:
    x = image()
    x[3, 0, 0, :3] = -0.0009, -0.0, 1.0009
    folder = written(tmp_path / "d", x)
    assert np.array_equal(opened(folder).read(ROWS).x, x)
    x[3, 0, 0, 0] = -0.0011
    with pytest.raises(ConfigError, match=r"patch 3 .* has -0.0011 to 1.0009, 0.39% of its pixels outside \[0, 1\]"):
        opened(written(tmp_path / "d", x)).read(ROWS)


SCALES: dict[str, tuple[dict[str, Any], Any]] = {
    "uint16": ({"max": 10_000}, lambda x: (x * 10_000).round().astype("u2")),
    "uint8": ({"max": 255}, lambda x: (x * 255).round().astype("u1")),
    "int8": ({"min": -128, "max": 127}, lambda x: (x * 255 - 128).round().astype("i1")),
    "int16 with an own band": (
        {"max": 10_000, "bands": [{"name": "nir", "min": -100, "max": 5000.5}]},
        lambda x: np.stack([*(x[:, i] * 10_000 for i in (0, 1)), x[:, 2] * 5100 - 100], 1).round().astype("i2"),
    ),
    "float32": ({"max": 10_000}, lambda x: x * 10_000),
    "float32 from below": ({"min": -30.3, "max": 0.7}, lambda x: (x * 31 - 30.3).astype("f4")),
    "one band of three": ({"bands": [{"name": "green", "min": 2, "max": 4}]}, lambda x: x + x * [[[0]], [[1]], [[0]]] + [[[0]], [[2]], [[0]]]),
}  # fmt: skip


@pytest.mark.parametrize("name", SCALES)
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.usefixtures("kept")
def test_values_are_mapped_to_0_and_1(tmp_path: Path, layout: str, name: str) -> None:
    scale, change = SCALES[name]
    x = change(image())
    x = x.astype(np.float32) if x.dtype == np.float64 else x
    data = opened(written(tmp_path / "d", x, layout), ["nir", "green"], scale=scale)
    assert isinstance(data.reader, READERS[layout])
    assert data.reader.dtype == x.dtype
    own = {band["name"]: band for band in scale.get("bands", [])}
    pairs = [{"min": 0, "max": 1} | scale | own.get(band, {}) for band in data.bands]
    lows, highs = (np.array([pair[end] for pair in pairs]).reshape(-1, 1, 1) for end in ("min", "max"))
    lows = lows.astype(np.float32).astype(np.float64)
    want = ((x[:, [2, 1]].astype(np.float64) - lows) / (highs - lows)).astype(np.float32)
    got = data.read(ROWS).x
    assert got.dtype == np.float32
    assert np.array_equal(got, want)
    batch, _ = batches(data, times=2)
    assert batch.dtype == torch.float32
    assert np.array_equal(batch.numpy(), want)


@pytest.mark.parametrize("dtype", ["u1", "u2", "i2"])
def test_integers_without_a_scale_are_refused_at_once(tmp_path: Path, dtype: str) -> None:
    folder = written(tmp_path / "d", (image() > 0.5).astype(dtype))
    with pytest.raises(ConfigError, match=rf"data.scale: x is {np.dtype(dtype).name}: .*\{{min: 0, max: 10000\}}"):
        opened(folder)
    assert opened(folder, scale={}).read(ROWS).x.max() == 1


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", ["u2", "i2", "f4"])
def test_what_is_outside_its_scale_is_refused(tmp_path: Path, layout: str, dtype: str) -> None:
    x = (image() * 10_000).astype(dtype)
    x[6, 2, 4, 4] = 10_011
    data = opened(written(tmp_path / "d", x, layout), scale={"max": 10_000})
    data.read(np.arange(6))
    with pytest.raises(ConfigError, match=r"data.scale: patch 6 .*: band nir has 1\d+\.?\d* to 10011, 0.39% of its pixels outside \[0, 10000\]: let data.scale hold"):  # fmt: skip
        data.read(ROWS)
    x[6, 2, 4, 4] = 10_010
    opened(written(tmp_path / "d", x, layout), scale={"max": 10_000}).read(ROWS)


def test_no_data_below_a_scale_is_refused(tmp_path: Path) -> None:
    x = (image() * 10_000).astype("i2")
    x[2, 0, 0, 0] = -9999
    with pytest.raises(ConfigError, match=r"patch 2 .* band red has -9999 to \d+.* no data"):
        opened(written(tmp_path / "d", x), scale={"max": 10_000}).read(ROWS)


def test_a_scale_of_an_unknown_band_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"data.scale.bands: the data set has no band swir; it has red, green, nir"):
        opened(written(tmp_path / "d", image()), scale={"bands": [{"name": "swir", "max": 2}]})


def test_ignored_values_are_zero_after_scaling(tmp_path: Path) -> None:
    x = 280 + 20 * image()
    x[1, 1, 1, 1] = np.nan
    got = opened(written(tmp_path / "d", x), scale={"min": 273.15, "max": 310}, nonFinite="Ignore").read(ROWS)
    assert got.x[1, 1, 1, 1] == 0
    assert got.x.max() <= 1
    assert got.y[1, 1, 1] == 2


def test_a_filter_comes_before_the_scale(tmp_path: Path) -> None:
    """Reflectances that are stored as integers of half a unit, by zarr's own filter."""
    x = np.round(image() * 10_000 * 2).astype(np.float32) / 2
    halves = [FixedScaleOffset(offset=0, scale=2, dtype="<f4", astype="<u2")]
    for filters, reader in ((halves, ChunkReader), (halves * 2, ZarrReader)):
        folder = written(tmp_path / reader.__name__, x, filters=filters[:1], **({} if reader is ChunkReader else LAYOUTS["zarr"]))  # fmt: skip
        data = opened(folder, scale={"max": 10_000})
        assert isinstance(data.reader, reader)
        want = (x.astype(np.float64) / 10_000).astype(np.float32)
        assert np.array_equal(data.read(ROWS).x, want)
        assert np.array_equal(batches(data)[0].numpy(), want)
        with pytest.raises(ConfigError, match=r"band red has \d+\.?\d* to \d+\.?\d*, 100.00% of its pixels outside"):
            opened(folder).read(ROWS)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_patch_is_looked_at_once(tmp_path: Path, layout: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loader_module, "memory_limit", lambda: 1)
    data = opened(written(tmp_path / "d", image(), layout))
    seen: list[int] = []
    hold = values._Limits.hold
    monkeypatch.setattr(values._Limits, "hold", lambda limits, x: (seen.append(1), hold(limits, x))[1])
    batches(data, times=3)
    data.read(ROWS)
    assert len(seen) == N


def test_a_check_of_ones_own_sees_every_patch_and_refuses_nothing(tmp_path: Path) -> None:
    x = image()
    x[5, 1, 3, 3:5], x[2, 0, 0, 0] = np.nan, 3
    folder = written(tmp_path / "d", x)
    found: dict[int, tuple[BandValues, ...]] = {}

    def check(row: int, patch: NDArray[Any], _: NDArray[np.uint8]) -> None:
        found[row] = look(patch, data.reader.scaling, data.ranges)

    data = open_dataset(DataSpec(uri=str(folder)), ["green", "red"], check)
    data.read(ROWS)
    assert sorted(found) == list(range(N))
    assert found[5][0][:3] == (256, 2, 0)
    assert found[2][1] == BandValues(256, 0, 1, x[2, 0].min(), 3)
    both = found[5][0].merged(found[2][0])
    assert both == BandValues(512, 2, 0, np.nanmin(x[[2, 5], 1]), np.nanmax(x[[2, 5], 1]))


def test_a_band_without_any_number() -> None:
    (found,) = look(np.full((1, 4, 4), np.nan, np.float32), None, [UNIT])
    assert found == BandValues(16, 16, 0, np.inf, -np.inf)


@pytest.mark.parametrize("dtype", ["<f4", "<u2", "<i2", "|u1", "|i1"])
@pytest.mark.parametrize("scaling", [None, Scaling(65535, 0), Scaling(-100, 0.5), Scaling(30, -0.5)])
@pytest.mark.parametrize(
    "each", [UNIT, Range(0, 200), Range(-50, 50), Range(20, 120), Range(0, 65535), Range(900_000, 1e6)]
)
def test_one_pass_says_what_a_count_says(dtype: str, scaling: Scaling | None, each: Range) -> None:  # fmt: skip
    if dtype == "<f4" and scaling is not None:
        return
    stored = np.dtype(dtype)
    limits = values._Limits(stored, scaling, [each])
    if stored.kind == "f":
        numbers: list[Any] = [-np.inf, np.nan, np.inf, -0.0, -1e-9, *each.allowed]
        numbers += [np.nextafter(np.float32(end), np.float32(way)) for end in each.allowed for way in (-np.inf, np.inf)]
        numbers += list(np.linspace(-200, 70_000, 300))
    else:
        whole = np.iinfo(stored)
        near = {int(end) + by for end in (*limits._low, *limits._high) for by in (-1, 0, 1)}
        numbers = sorted({whole.min, whole.max, *range(whole.min, whole.max, max(1, whole.max // 99)), *near})
        numbers = [number for number in numbers if whole.min <= number <= whole.max]
    for number in numbers:
        patch = np.full((1, 2, 2), number, stored)
        (found,) = look(patch, scaling, [each])
        assert limits.hold(patch) == (found.non_finite == found.outside == 0), number


@pytest.mark.parametrize(
    "scale",
    [{"max": 255}, {"max": 10_000}, {"min": 1, "max": 10_000}, {"min": 0.1, "max": 0.7}, {"min": -7, "max": 1e5}],
)
@pytest.mark.parametrize("dtype", ["<u2", "<i2", "<f4"])
def test_devices_scale_as_numpy_does(scale: dict[str, float], dtype: str) -> None:
    bits = np.arange(2**16, dtype="<u2")
    stored = (bits.view(dtype) if dtype != "<f4" else bits.astype("<f4") / 7).reshape(1, 1, 256, 256)
    ranges = values.ranges_of(ScaleSpec.model_validate(scale), stored.dtype, ["a"], ["a"])
    want = values.decode(stored, None, ranges)
    before = stored.copy()
    got = Scale(stored.dtype, None, ranges, CPU)(torch.from_numpy(stored))
    assert np.array_equal(got.numpy(), want)
    assert np.array_equal(stored, before)


@pytest.mark.parametrize("name", ["Posterize", "RandomBrightnessContrast", "MultiplicativeNoise", "Blur"])
def test_augmentations_do_with_raw_values_what_they_do_with_scaled_ones(tmp_path: Path, name: str) -> None:
    raw = (image() * 10_000).round().astype("u2")
    scaled = (raw / 10_000).astype(np.float32)
    found = []
    for folder, x, data in (("raw", raw, {"scale": {"max": 10_000}}), ("scaled", scaled, {})):
        batch, labels = batches(opened(written(tmp_path / folder, x), **data))
        torch.manual_seed(0)
        found.append(compose([name], ignore=2)(batch, labels)[0])
    assert torch.equal(*found)
    assert not torch.equal(found[0], batch)
    assert len(found[0].unique()) > 10
    assert 0 <= found[0].min() < found[0].max() <= 1
