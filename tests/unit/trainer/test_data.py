"""Opening and reading a data set: what is refused, and that every way of reading gives the same patches."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import zarr

from crossfold_trainer import loader as loader_module
from crossfold_trainer.contract.data import DataSpec
from crossfold_trainer.contract.trainer import InMemory
from crossfold_trainer.data import DataSet, open_dataset
from crossfold_trainer.errors import ConfigError
from crossfold_trainer.labels import BINARY, Labels
from crossfold_trainer.loader import Loader, epoch_batches, ordered_batches
from tests.trainer_data import BANDS, write_dataset


def opened(folder: Path | str, bands: list[str] | None = None) -> DataSet:
    return open_dataset(DataSpec(uri=str(folder)), bands)


@pytest.mark.parametrize("zarr_format", [2, 3])
def test_reads_what_zarr_reads(tmp_path: Path, zarr_format: int) -> None:
    folder = write_dataset(tmp_path / "d", zarr_format=zarr_format)
    group = zarr.open_group(folder / "data.zarr", mode="r")
    x, y = np.asarray(group["x"]), np.asarray(group["y"])
    rows = np.array([5, 0, 23, 5])
    got = opened(folder).read(rows)
    assert np.array_equal(got.x, x[rows])
    assert np.array_equal(got.y, y[rows])
    chosen = opened(f"file://{folder}", ["nir", "red"])
    assert chosen.bands == ("nir", "red")
    assert np.array_equal(chosen.read(rows).x, x[rows][:, [2, 0]])


def test_memory_and_streaming_give_the_same_batches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write_dataset(tmp_path / "d")
    rows = np.arange(3, 21)
    cpu = torch.device("cpu")
    plan = [*epoch_batches(rows, 4, seed=42, epoch=1), *ordered_batches(rows, 5)]
    loader = Loader(opened(folder), rows, cpu)
    assert loader.in_memory
    with torch.inference_mode():
        assert len(list(loader.batches(plan))) == len(plan)
    kept = [(x.clone(), y.clone()) for x, y in loader.batches(plan)]
    monkeypatch.setattr(loader_module, "memory_limit", lambda: 1)
    for threads in (0, 1, 4):
        loader = Loader(opened(folder), rows, cpu, threads=threads)
        assert not loader.in_memory
        for validating in (True, False):
            with torch.inference_mode(validating):
                assert len(list(loader.batches(plan))) == len(plan)
            for (x, y), (other_x, other_y) in zip(kept, loader.batches(plan), strict=True):
                assert torch.equal(x, other_x)
                assert torch.equal(y, other_y)


def test_what_is_read_ahead_is_bounded_by_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loader_module, "memory_limit", lambda: 1)
    data = opened(write_dataset(tmp_path / "d"))
    plan = ordered_batches(np.arange(24), 2)

    def most_under_way() -> int:
        under_way = [0]
        submit = data.reader.submit

        def counted(*arguments: Any) -> Any:
            under_way[0] += 1
            return submit(*arguments)

        monkeypatch.setattr(data.reader, "submit", counted)
        next(Loader(data, np.arange(24), torch.device("cpu")).batches(plan))
        return under_way[0] - 1  # one was taken

    assert most_under_way() == 8
    monkeypatch.setattr(loader_module, "AHEAD_BYTES", 3 * 2 * data.patch_bytes)
    assert most_under_way() == 3
    monkeypatch.setattr(loader_module, "AHEAD_BYTES", 1)
    assert most_under_way() == 2


@pytest.mark.parametrize(
    ("wanted", "share", "kept"),
    [
        (InMemory.AUTO, 0.39, True),
        (InMemory.AUTO, 0.41, False),
        (InMemory.ALWAYS, 0.99, True),
        (InMemory.NEVER, 0.01, False),
    ],
)
def test_what_is_kept_in_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wanted: InMemory, share: float, kept: bool
) -> None:
    data = opened(write_dataset(tmp_path / "d"))
    monkeypatch.setattr(loader_module, "memory_limit", lambda: 20 * data.patch_bytes / share)
    assert Loader(data, np.arange(20), torch.device("cpu"), in_memory=wanted).in_memory == kept


def test_what_does_not_fit_in_memory_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = opened(write_dataset(tmp_path / "d"))
    monkeypatch.setattr(loader_module, "memory_limit", lambda: 19 * data.patch_bytes)
    with pytest.raises(ConfigError, match=r"trainer.inMemory: the run's patches take .*limits.memory or choose Auto"):
        Loader(data, np.arange(20), torch.device("cpu"), in_memory=InMemory.ALWAYS)


@pytest.mark.parametrize("limit", [2**40, 1])
def test_batches_are_the_callers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: int) -> None:
    monkeypatch.setattr(loader_module, "memory_limit", lambda: limit)
    data = opened(write_dataset(tmp_path / "d"))
    rows = np.arange(24)
    kept = list(Loader(data, rows, torch.device("cpu")).batches(ordered_batches(rows, 2)))
    assert torch.equal(torch.cat([x for x, _ in kept]), torch.from_numpy(data.read(rows).x))
    assert torch.equal(torch.cat([y for _, y in kept]), torch.from_numpy(data.read(rows).y))


def test_a_loader_goes_on_after_batches_that_nobody_took(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loader_module, "memory_limit", lambda: 1)
    data = opened(write_dataset(tmp_path / "d"))
    rows = np.arange(24)
    loader = Loader(data, rows, torch.device("cpu"))
    for _ in range(3):
        begun = loader.batches(ordered_batches(rows, 3))
        next(begun)
        begun.close()
    got = torch.cat([x.clone() for x, _ in loader.batches(ordered_batches(rows, 5))])
    assert torch.equal(got, torch.from_numpy(data.read(rows).x))


def test_epochs_are_shuffled_by_seed_and_epoch_alone() -> None:
    rows = np.arange(10)
    first = np.concatenate(epoch_batches(rows, 4, 42, 0))
    assert len(first) == 8
    assert np.array_equal(first, np.concatenate(epoch_batches(rows, 4, 42, 0)))
    assert not np.array_equal(first, np.concatenate(epoch_batches(rows, 4, 42, 1)))
    assert not np.array_equal(first, np.concatenate(epoch_batches(rows, 4, 21, 0)))


def test_digest_follows_content(tmp_path: Path) -> None:
    folder = write_dataset(tmp_path / "d")
    before = opened(folder).digest
    assert opened(folder).digest == before
    zarr.open_group(folder / "data.zarr", mode="r+")["x"][3] = 0.25
    assert opened(folder).digest != before


META: dict[str, Any] = {"sample_id": ["a"] * 24, "region": ["r"] * 24, "empty": [False] * 24}


@pytest.mark.parametrize(
    ("replace", "message"),
    [
        ({"config": None}, r"config.toml does not exist: data.uri must be the folder"),
        ({"metadata": None}, r"metadata.parquet does not exist"),
        ({"config": {"patch_size": 32}}, r"config.toml has no bands in \[darts\]"),
        ({"config": {"bands": [], "patch_size": 32}}, r"bands in config.toml must be a list of names, not \[\]"),
        ({"config": {"bands": ["a", "a", "b"], "patch_size": 32}}, "must be distinct"),
        ({"config": {"bands": ["a", "b"], "patch_size": 32}}, "x has 3 bands, config.toml names 2"),
        (
            {"config": {"bands": list(BANDS), "patch_size": 32, "classes": ["a", "a"]}},
            "classes must be a number from 2",
        ),
        ({"config": {"bands": list(BANDS), "patch_size": 32, "classes": 1}}, "classes must be a number from 2 to 255"),
        ({"config": {"bands": list(BANDS), "patch_size": 32, "classes": 256}}, "distinct names, not 256"),
        ({"config": {"bands": list(BANDS), "patch_size": 32, "classes": True}}, "distinct names, not True"),
        ({"x": None}, "has no readable arrays x and y"),
        (
            {"x": np.zeros((24, 3, 32, 32), np.float64)},
            r"data.zarr/x must be float32 or uint8 .* \(N, C, H, W\), not float64",
        ),
        ({"x": np.zeros((24, 32, 32), np.float32)}, r"must be float32 .* \(N, C, H, W\), not float32 \(24, 32, 32\)"),
        ({"y": np.zeros((24, 32, 32), np.int64)}, r"data.zarr/y must be uint8 \(N, H, W\), not int64"),
        (
            {"x": np.zeros((23, 3, 32, 32), np.float32)},
            "x has 23 patches, y has 24 and metadata.parquet has 24 rows",
        ),
        ({"metadata": {key: value[:20] for key, value in META.items()}}, "metadata.parquet has 20 rows"),
        ({"y": np.zeros((24, 32, 16), np.uint8)}, r"x has patches of \(32, 32\) pixels, y of \(32, 16\)"),
        ({"metadata": {"region": ["r"] * 24}}, "metadata.parquet has no column empty; it has region"),
        (
            {"metadata": META | {"empty": ["no"] * 24}},
            "column empty .* must be true or false in every row; it is string",
        ),
        ({"metadata": META | {"empty": [None, *[False] * 23]}}, "with 1 missing"),
    ],
)
def test_refused(tmp_path: Path, replace: dict[str, Any], message: str) -> None:
    folder = write_dataset(tmp_path / "d", **replace)
    with pytest.raises(ConfigError, match=message) as caught:
        opened(folder)
    assert caught.value.field == "data.uri"


def test_unreadable_parts_are_refused(tmp_path: Path) -> None:
    folder = write_dataset(tmp_path / "d")
    (folder / "metadata.parquet").write_bytes(b"no parquet")
    with pytest.raises(ConfigError, match=r"metadata.parquet cannot be read"):
        opened(folder)
    (folder / "config.toml").write_text("[darts")
    with pytest.raises(ConfigError, match=r"config.toml cannot be read"):
        opened(folder)


def test_a_missing_folder_and_an_unknown_scheme_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"data.uri: the folder .* does not exist"):
        opened(tmp_path / "nowhere")
    with pytest.raises(ConfigError, match=r"data.uri: the scheme 'ftp://' is unknown: use one of s3, gs, az, file"):
        opened("ftp://host/data")


def test_an_unknown_band_is_refused(tmp_path: Path) -> None:
    with pytest.raises(
        ConfigError, match=r"hyperparameters.bands: the data set has no band swir; it has red, green, nir"
    ):
        opened(write_dataset(tmp_path / "d"), ["red", "swir"])


def test_labels_are_binary_unless_classes_are_named(tmp_path: Path) -> None:
    assert opened(write_dataset(tmp_path / "d")).labels == BINARY
    config = {"bands": list(BANDS), "patch_size": 32}
    named = opened(write_dataset(tmp_path / "n", config=config | {"classes": ["a", "b", "c"]})).labels
    assert named == Labels(("a", "b", "c"), ignore=255, binary=False)
    assert named.outputs == 3
    numbered = opened(write_dataset(tmp_path / "i", config=config | {"classes": 4})).labels
    assert numbered.names == ("class 0", "class 1", "class 2", "class 3")


@pytest.mark.parametrize(("label", "classes", "refused"), [(2, 3, False), (3, 3, True), (255, 3, False), (3, 4, False)])
def test_classes_say_which_labels_there_are(tmp_path: Path, label: int, classes: int, refused: bool) -> None:
    y = np.zeros((24, 32, 32), np.uint8)
    y[17, 3, 3] = label
    config = {"bands": list(BANDS), "patch_size": 32, "classes": classes}
    data = opened(write_dataset(tmp_path / "d", y=y, config=config))
    if not refused:
        assert data.read(np.array([17])).y[0, 3, 3] == label
        return
    with pytest.raises(ConfigError, match=r"patch 17 has the label 3; labels are 0 to 2 and 255 \(ignore\): correct y"):
        data.read(np.array([3, 17]))


def test_an_unknown_label_is_refused_where_it_is_read(tmp_path: Path) -> None:
    y = np.zeros((24, 32, 32), np.uint8)
    y[17, 3, 3] = 7
    data = opened(write_dataset(tmp_path / "d", y=y))
    data.read(np.arange(10))
    with pytest.raises(ConfigError, match="patch 17 has the label 7"):
        data.read(np.arange(10, 20))
