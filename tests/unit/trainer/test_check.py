"""What a check of a data set finds: each fault by itself, all of them in one call, and what a sound one holds."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import zarr

from crossfold_trainer.check import Checked, check_dataset
from crossfold_trainer.contract.data import DataSpec
from crossfold_trainer.data import open_dataset
from crossfold_trainer.errors import ConfigError
from crossfold_trainer.findings import Severity, error, refuse, warning
from crossfold_trainer.inventory import digest_of, list_objects
from crossfold_trainer.reader import ChunkReader
from crossfold_trainer.store import open_store
from tests.trainer_data import BANDS, classes_dataset, run_config, write_dataset

N, SIDE = 24, 32


def check(folder: Path, bands: list[str] | None = None, **spec: Any) -> Checked:
    return check_dataset(DataSpec.model_validate({"uri": str(folder), **spec}), bands, folds=3)


def told(checked: Checked, severity: Severity) -> str:
    return "\n".join(str(finding) for finding in checked.findings if finding.severity is severity)


def only(checked: Checked, severity: Severity) -> str:
    """The one thing that was found."""
    assert len(checked.findings) == 1, checked.findings
    assert checked.good == (severity is Severity.WARNING)
    return told(checked, severity)


ERROR, WARNING = Severity.ERROR, Severity.WARNING


def labels() -> np.ndarray[Any, np.dtype[np.uint8]]:
    """A square in every second patch."""
    y = np.zeros((N, SIDE, SIDE), np.uint8)
    y[::2, 8:24, 8:24] = 1
    return y


def images() -> np.ndarray[Any, np.dtype[np.float32]]:
    return np.repeat(0.2 + 0.5 * labels()[:, None], len(BANDS), axis=1).astype(np.float32)


def plain(folder: Path, **more: Any) -> Path:
    """Values and labels of every patch are written down; patch i is empty where i is odd."""
    metadata = {"empty": [i % 2 == 1 for i in range(N)]}
    return write_dataset(folder, **{"x": images(), "y": labels(), "metadata": metadata, **more})


def test_values_that_are_scaled_twice(tmp_path: Path) -> None:
    folder = plain(tmp_path / "d")
    text = only(check(folder, scale={"min": 0, "max": 10_000}), WARNING)
    assert "0.01%" in text
    assert "data.scale" in text
    assert check(folder, scale={"min": 0, "max": 50}).findings == (), "dark images are nothing to warn of"


def test_a_sound_data_set_is_counted(tmp_path: Path) -> None:
    folder = write_dataset(tmp_path / "d")
    told_of: list[tuple[int, int]] = []
    checked = check_dataset(DataSpec(uri=str(folder)), folds=3, progress=lambda *at: told_of.append(at))
    group = zarr.open_group(folder / "data.zarr", mode="r")
    x, y = np.asarray(group["x"]), np.asarray(group["y"])
    assert checked.good
    assert checked.findings == ()
    assert checked.pixels_read == N
    assert told_of[-1] == (N, N)
    summary = checked.summary
    assert summary is not None
    assert (summary.patches, summary.height, summary.width, summary.positive) == (N, SIDE, SIDE, 18)
    assert [(band.name, band.least, band.greatest) for band in summary.bands] == [
        (name, x[:, i].min(), x[:, i].max()) for i, name in enumerate(BANDS)
    ]
    assert [(one.name, one.label, one.pixels) for one in summary.classes] == [
        (name, label, (y == label).sum()) for name, label in (("no", 0), ("yes", 1), ("ignored", 2))
    ]
    assert [(one.name, one.patches, one.positive) for one in summary.regions] == [
        (f"r{i}", 4, 2 if i % 2 == 0 else 4) for i in range(6)
    ]
    assert summary.digest == open_dataset(DataSpec(uri=str(folder)), None).digest
    assert [cut.method.value for cut in summary.folds] == [
        "KFold",
        "Shuffle",
        "Stratified",
        "Region",
        "RegionStratified",
    ]
    for cut in summary.folds:
        assert not cut.refused
        assert len(cut.folds) == 3
        for fold in cut.folds:
            assert fold.train.patches + fold.val.patches == N
            assert fold.train.positive + fold.val.positive == 18


def test_without_pixels_nothing_is_read(tmp_path: Path) -> None:
    folder = write_dataset(tmp_path / "d")
    for chunk in (folder / "data.zarr/x/c").rglob("0"):
        if chunk.is_file():
            chunk.write_bytes(b"no chunk")
    checked = check_dataset(DataSpec(uri=str(folder)), pixels=False)
    assert checked.good
    assert checked.pixels_read == 0
    assert checked.summary is not None
    assert checked.summary.classes == ()


def test_only_the_bands_that_are_asked_for_are_read(tmp_path: Path) -> None:
    x = images()
    x[:, 1] = np.nan
    folder = plain(tmp_path / "d", x=x)
    checked = check(folder, ["nir"])
    assert checked.good
    assert checked.summary is not None
    assert [band.name for band in checked.summary.bands] == ["nir"]
    text = told(check(folder, ["nir", "swir"]), ERROR)
    assert "no band swir; it has red, green, nir" in text


# The cases that went wrong


def test_an_index_that_says_which_patch_a_row_is(tmp_path: Path) -> None:
    """Rows sorted by region whose index still numbers the patches: regions stay with their patches."""
    region = np.array(["A", "B", "C"])[np.arange(N) % 3]
    meta = pd.DataFrame({"z_idx": range(N), "region": region, "empty": [i % 2 == 1 for i in range(N)]})
    folder = plain(tmp_path / "d")
    meta.sort_values("region").to_parquet(folder / "metadata.parquet")
    checked = check(folder)
    assert checked.good, checked.findings
    assert checked.summary is not None
    assert checked.summary.ordered_by == "index"
    data = open_dataset(DataSpec(uri=str(folder)), None)
    assert data.metadata.region is not None
    assert data.metadata.region.tolist() == region.tolist()
    # By position, the labels contradict what is written of them, and a check says so.
    meta.sort_values("region").drop(columns="z_idx").to_parquet(folder / "metadata.parquet", index=False)
    assert "and metadata.parquet says empty = false of them" in told(check(folder), ERROR)


@pytest.mark.parametrize("sorted_by", ["", "empty"])
def test_the_digest_is_over_the_order_of_rows_where_it_is_not_that_of_patches(tmp_path: Path, sorted_by: str) -> None:
    folder = plain(tmp_path / "d")
    frame = pd.read_parquet(folder / "metadata.parquet")
    (frame.sort_values(sorted_by) if sorted_by else frame).to_parquet(folder / "metadata.parquet")
    data = open_dataset(DataSpec(uri=str(folder)), None)
    assert data.metadata.empty.tolist() == [i % 2 == 1 for i in range(N)]
    parts = [(folder / name).read_bytes() for name in ("config.toml", "metadata.parquet")]
    shapes = json.dumps({"x": (N, 3, SIDE, SIDE), "y": (N, SIDE, SIDE)}).encode()
    entries = list_objects(open_store(DataSpec(uri=str(folder)), "data"), "data.zarr/")
    assert (digest_of((*parts, shapes), entries) == data.digest) == (not sorted_by)


def nested(folder: Path) -> Path:
    plain(folder)
    group = zarr.open_group(folder / "data.zarr", mode="w", zarr_format=2)
    keys = {"name": "v2", "separator": "/"}
    for name, array in (("x", images()), ("y", labels())):
        chunks = (1, *([1] if name == "x" else []), SIDE, SIDE)
        group.create_array(name, shape=array.shape, dtype=array.dtype, chunks=chunks, chunk_key_encoding=keys)[:] = (
            array
        )
    return folder


def edit(path: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    document = json.loads(path.read_text())
    change(document)
    path.write_text(json.dumps(document))


def test_keys_under_another_separator(tmp_path: Path) -> None:
    folder = nested(tmp_path / "d")
    assert check(folder).good
    for name in ("x", "y"):
        edit(folder / f"data.zarr/{name}/.zarray", lambda document: document.pop("dimension_separator"))
    checked = check(folder)
    text = told(checked, ERROR)
    assert (
        "none of the 72 chunks of data.zarr/x is there under the keys that its document says (such as 0.0.0.0)" in text
    )
    assert "72 are there under other keys (0/0/0/0" in text
    assert 'set "dimension_separator" to "/" in data.zarr/x/.zarray' in text
    assert "none of the 24 chunks of data.zarr/y" in text
    with pytest.raises(ConfigError, match=r"data.uri: 2 errors: \(1\) none of the 72 .* \(2\) none of the 24 chunks"):
        open_dataset(DataSpec(uri=str(folder)), None)


def test_images_of_half_the_patches(tmp_path: Path) -> None:
    folder = nested(tmp_path / "d")
    for i in range(12, N):
        shutil.rmtree(folder / f"data.zarr/x/{i}")
    text = only(check(folder), WARNING)
    assert "36 of 72 chunks of data.zarr/x are not there, in 12 of 24 patches; 12 patches have none (12, 13" in text
    assert "fill value 0" in text
    assert open_dataset(DataSpec(uri=str(folder)), None).warnings == (text,)


def test_a_band_that_was_not_uploaded_is_named(tmp_path: Path) -> None:
    folder = plain(tmp_path / "d")
    for i in range(N):
        shutil.rmtree(folder / f"data.zarr/x/c/{i}/1")
    assert "nor has band green any" in only(check(folder), WARNING)


def test_labels_that_were_not_uploaded(tmp_path: Path) -> None:
    folder = nested(tmp_path / "d")
    for path in (folder / "data.zarr/y").iterdir():
        if path.is_dir():
            shutil.rmtree(path)
    text = only(check(folder), ERROR)
    assert "none of the 24 chunks of data.zarr/y" in text
    assert "other keys" not in text


def test_some_labels_that_were_not_uploaded(tmp_path: Path) -> None:
    folder = nested(tmp_path / "d")
    for i in range(13, N):
        shutil.rmtree(folder / f"data.zarr/y/{i}", ignore_errors=True)
    text = only(check(folder), ERROR)
    assert "y has no chunk for 5 patches" in text
    assert "empty = false of them (14, 16, 18, 20, 22)" in text
    with pytest.raises(ConfigError, match="y has no chunk for 5 patches"):
        open_dataset(DataSpec(uri=str(folder)), None)


def test_labels_left_out_of_a_shard(tmp_path: Path) -> None:
    """Which chunks a shard holds is in the shard: the listing tells nothing, the labels do."""
    y = labels()
    y[4] = 0
    folder = plain(tmp_path / "d", y=labels())
    group = zarr.open_group(folder / "data.zarr", mode="r+")
    del group["y"]
    group.create_array("y", shape=y.shape, dtype=y.dtype, chunks=(1, SIDE, SIDE), shards=(4, SIDE, SIDE))[:] = y
    assert "y has no pixel of 1 in 1 patch, and metadata.parquet says empty = false of them (4)" in only(
        check(folder), ERROR
    )
    shutil.rmtree(folder / "data.zarr/y/c/2")
    assert "y has no chunk for 2 patches" in told(check(folder), ERROR)


def test_consolidated_metadata_that_are_older_than_the_arrays(tmp_path: Path) -> None:
    for version, document in ((2, ".zmetadata"), (3, "zarr.json")):
        folder = plain(tmp_path / f"v{version}", x=images()[:, :1], config={"bands": ["a"], "patch_size": SIDE})
        group = zarr.open_group(folder / "data.zarr", mode="w", zarr_format=version)
        group.create_array("x", data=images()[:8, :1], chunks=(4, 1, SIDE, SIDE))
        group.create_array("y", data=labels()[:8], chunks=(4, SIDE, SIDE))
        with pytest.warns(UserWarning, match="onsolidated") if version == 3 else pytest.MonkeyPatch.context():
            zarr.consolidate_metadata(folder / "data.zarr")
        group = zarr.open_group(folder / "data.zarr", mode="a", use_consolidated=False)
        group["x"].append(images()[8:, :1])
        group["y"].append(labels()[8:])
        checked = check(folder)
        assert checked.good
        text = told(checked, WARNING)
        assert f"data.zarr/{document} say shape [8, 1, 32, 32] of x, and its own document says [24, 1, 32, 32]" in text
        assert len(checked.findings) == 2
        data = open_dataset(DataSpec(uri=str(folder)), None)
        assert np.array_equal(data.read(np.arange(N)).x, images()[:, :1])


def test_a_group_without_its_document(tmp_path: Path) -> None:
    folder = plain(tmp_path / "d")
    group = zarr.open_group(folder / "data.zarr", mode="r+")
    del group["x"]
    group.create_array("x", data=images(), chunks=(5, 1, SIDE, SIDE))  # read through zarr
    (folder / "data.zarr/zarr.json").unlink()
    assert "data.zarr has no document of its own" in only(check(folder), WARNING)
    assert np.array_equal(open_dataset(DataSpec(uri=str(folder)), None).read(np.arange(N)).x, images())


def test_values_that_are_none(tmp_path: Path) -> None:
    x = images()
    x[20, 1, 3, 3] = np.nan
    x[0:6:2, :, 0, 0] = np.inf
    folder = plain(tmp_path / "d", x=x)
    text = only(check(folder), ERROR)
    assert "3 of 24576 pixels in band red, 4 of 24576 pixels in band green" in text
    assert "in 4 of 24 patches (0, 2, 4, 20)" in text
    assert "4 of 24576 pixels in band green" in only(check(folder, nonFinite="Ignore"), WARNING)


def test_raw_values(tmp_path: Path) -> None:
    folder = plain(tmp_path / "d", x=images() * 10_000)
    checked = check(folder)
    text = only(checked, ERROR)
    assert checked.findings[0].field == "data.scale"
    assert "band red has 2000 to 7000" in text
    assert "in 24 of 24 patches" in text
    assert "{min: 0, max: 10000}" in text
    checked = check(folder, scale={"min": 0, "max": 10_000})
    assert checked.good
    assert checked.summary is not None
    assert [(band.least, band.greatest) for band in checked.summary.bands] == [(2000, 7000)] * 3


# Their twins


@pytest.mark.parametrize(
    ("replace", "words"),
    [
        ({"config": {"bands": list(BANDS), "patch_size": 64}}, ["patch_size = 64", "32 x 32 pixels"]),
        ({"config": {"bands": list(BANDS), "patch_size": "32"}}, ["must be a number of pixels above 0, not '32'"]),
        ({"metadata": {"empty": [False] * N}}, ["y has no chunk for 12 patches", "(1, 3, 5, 7, 9 and 7 more)"]),
        ({"metadata": {"empty": [True] * N}}, ["a pixel of 1 in 12 patches", "none of the 24 patches has a positive"]),
        ({"metadata": {"empty": [i % 2 for i in range(N - 1)]}}, ["metadata.parquet has 23 rows"]),
        ({"metadata": {"region": ["r"] * N}}, ["no column empty"]),
        ({"x": images().astype(np.float64)}, ["data.zarr/x must be float32"]),
        ({"x": images().astype(np.uint8)}, ["x is uint8: say what its values range over"]),
    ],
)
def test_what_is_wrong_is_told(tmp_path: Path, replace: dict[str, Any], words: list[str]) -> None:
    checked = check(plain(tmp_path / "d", **replace))
    assert not checked.good
    text = told(checked, ERROR)
    assert all(word in text for word in words), text


def test_a_label_that_is_none_is_counted(tmp_path: Path) -> None:
    y = labels()
    y[3, 0, 0] = y[17, 0, 0] = 7
    y[5, 0, 0] = 255
    text = told(check(plain(tmp_path / "d", y=y)), ERROR)
    assert "patch 3 has the label 7, and so have 1 more" in text
    assert "patch 5 has the label 255" in text


def test_chunks_that_cannot_be_read_are_named(tmp_path: Path) -> None:
    folder = plain(tmp_path / "d")
    for i in (3, 9):
        (folder / f"data.zarr/x/c/{i}/1/0/0").write_bytes(b"no chunk")
    (folder / "data.zarr/y/c/4/0/0").write_bytes(b"")
    checked = check(folder)
    text = told(checked, ERROR)
    assert "3 patches cannot be read (3, 4, 9), the first because" in text
    assert "1 of 24 chunks of data.zarr/y are objects of 0 bytes (c/4/0/0)" in text
    assert checked.pixels_read == N - 3


def test_a_storage_that_refuses_is_no_fault_of_the_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def denied(*_: Any) -> None:
        raise ConfigError("data.secretRef", "may not read")

    folder = plain(tmp_path / "d")
    monkeypatch.setattr(ChunkReader, "_read_and_decode", denied)
    with pytest.raises(ConfigError, match=r"data.secretRef: may not read"):
        check(folder)


def test_stray_objects_are_told(tmp_path: Path) -> None:
    folder = plain(tmp_path / "d")
    shutil.copytree(folder / "data.zarr/y/c/0", folder / "data.zarr/y/c/24")
    (folder / "data.zarr/y/2.0.0").write_bytes(b"old")
    (folder / "data.zarr/y/.zarray").write_text("{}")
    checked = check(folder)
    assert checked.good
    text = told(checked, WARNING)
    assert text.count("1 chunk in data.zarr/y is not read") == 2
    assert "c/24/0/0" in text
    assert "2.0.0" in text
    assert "data.zarr/y has zarr.json and .zarray" in text


def test_numbers_that_config_toml_repeats(tmp_path: Path) -> None:
    config = {"bands": list(BANDS), "patch_size": SIDE, "n_patches": 20, "n_bands": 3}
    assert "n_patches = 20, and x has 24" in only(check(plain(tmp_path / "d", config=config)), WARNING)


def test_regions_that_are_missing(tmp_path: Path) -> None:
    metadata = {"empty": [i % 2 == 1 for i in range(N)], "region": ["a", "b", "c", None] * 6}
    folder = plain(tmp_path / "d", metadata=metadata)
    checked = check(folder)
    assert "region is missing in 6 of 24 rows (rows 3, 7" in only(checked, WARNING)
    assert checked.summary is not None
    cut = {folds.method.value: folds.refused for folds in checked.summary.folds}
    assert "none for 6 of 24" in cut["Region"]
    assert "none for 6 of 24" in cut["RegionStratified"]
    assert not cut["Stratified"]


def test_with_several_classes_empty_is_the_users_own(tmp_path: Path) -> None:
    folder = classes_dataset(tmp_path / "d")
    assert check(folder).findings == ()
    frame = pd.read_parquet(folder / "metadata.parquet")
    frame.assign(empty=False).to_parquet(folder / "metadata.parquet")
    text = only(check(folder), WARNING)
    assert "y has no pixel of a class above 0 in 6 patches" in text
    frame.assign(empty=[i % 3 == 0 for i in range(N)]).to_parquet(folder / "metadata.parquet")
    assert "no pixel of a class above 0 in 4 patches" in only(check(folder), WARNING)


def test_all_faults_at_once(tmp_path: Path) -> None:
    x, y = images() * 255, labels()
    x[7, 1, 3, 3] = np.nan
    y[4, 0, 0], y[6] = 9, 0
    folder = plain(
        tmp_path / "d",
        x=x,
        y=y,
        metadata={"empty": labels().max(axis=(1, 2)) == 0, "region": ["a", None] * 12, "z_idx": range(1, N + 1)},
        config={"bands": [*BANDS, "swir"], "patch_size": 64, "n_patches": 20},
    )
    shutil.rmtree(folder / "data.zarr/x/c/3")
    (folder / "data.zarr/x/c/5/0/0/0").write_bytes(b"no chunk")
    (folder / "data.zarr/zarr.json").unlink()
    checked = check(folder, ["0", "1"])
    text = told(checked, ERROR)
    for words in (
        "column z_idx of metadata.parquet must hold 0 to 23",
        "x has 3 bands, config.toml names 4",
        "patch_size = 64",
        "y has no chunk for 1 patch",
        "1 patch cannot be read (5)",
        "patch 4 has the label 9",
        "1 of 23552 pixels in band 1",
        "out of range: band 0 has 0 to 178.5",
    ):
        assert words in text, words
    text = told(checked, WARNING)
    for words in (
        "region is missing in 12",
        "3 of 72 chunks of data.zarr/x",
        "n_patches = 20",
        "no document of its own",
    ):
        assert words in text, words


def test_what_is_not_there_is_told_in_one_sentence(tmp_path: Path) -> None:
    text = only(check(tmp_path), ERROR)
    assert "config.toml does not exist, nor do metadata.parquet and arrays in data.zarr" in text
    folder = plain(tmp_path / "d")
    shutil.rmtree(folder / "data.zarr/y")
    (folder / "metadata.parquet").unlink()
    text = told(check(folder), ERROR)
    assert "metadata.parquet does not exist: data.uri must be" in text
    assert "no readable arrays x and y: there is no y/zarr.json or y/.zarray" in text


def test_what_is_not_there_to_be_checked_is_no_finding(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"data.uri: the folder .* does not exist"):
        check(tmp_path / "nowhere")


# What a run does about it


def test_a_run_refuses_what_the_labels_contradict_where_it_reads_them(tmp_path: Path) -> None:
    y = labels()
    y[4, 8:24, 8:24], y[4, 0, 0] = 0, 2
    y[9, 0, 0] = 1
    data = open_dataset(DataSpec(uri=str(plain(tmp_path / "d", y=y))), None)
    data.read(np.array([0, 1, 2, 3, 5]))
    with pytest.raises(ConfigError, match=r"no pixel of 1 in 1 patch, .* empty = false of them \(4\)"):
        data.read(np.array([4]))
    with pytest.raises(ConfigError, match=r"a pixel of 1 in 1 patch, .* empty = true of them \(9\)"):
        data.read(np.array([9]))


def test_with_several_classes_a_run_only_warns_and_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = classes_dataset(tmp_path / "d")
    frame = pd.read_parquet(folder / "metadata.parquet")
    frame.assign(empty=False).to_parquet(folder / "metadata.parquet")
    data = open_dataset(DataSpec(uri=str(folder)), None)
    for _ in range(2):
        data.read(np.arange(N))
    assert len([record for record in caplog.records if "a class above 0" in record.message]) == 1


def test_methods_that_need_a_region_refuse_patches_without_one(tmp_path: Path) -> None:
    from crossfold_trainer.splits import make_splits

    metadata = {"empty": [i % 2 == 1 for i in range(N)], "region": ["a", "b", "c", None] * 6}
    data = open_dataset(DataSpec(uri=str(plain(tmp_path / "d", metadata=metadata))), None)
    with pytest.raises(ConfigError, match=r"data.uri: foldMethod RegionStratified needs a region .* none for 6 of 24"):
        make_splits(data.metadata, run_config("d", "a"), 1)
    split = {"split": {"method": "Region", "values": ["a"]}}
    with pytest.raises(ConfigError, match=r"split method Region needs a region"):
        make_splits(data.metadata, run_config("d", "a", foldMethod="Stratified", data=split), 1)
    make_splits(data.metadata, run_config("d", "a", foldMethod="Stratified"), 1)


def test_errors_fit_into_a_termination_message() -> None:
    refuse([warning("a", "may be meant")])
    with pytest.raises(ConfigError) as caught:
        refuse([error("a", "one is wrong", "correct it"), warning("b", "may be meant")])
    assert str(caught.value) == "data.uri: one is wrong: correct it"
    with pytest.raises(ConfigError) as caught:
        refuse([error("a", "one is wrong"), error("b", "another", "correct it", "data.scale")])
    assert str(caught.value) == "data.uri: 2 errors: (1) one is wrong; (2) data.scale: another: correct it"
    many = [error("a", f"{i} is wrong {'x' * 200}") for i in range(20)]
    with pytest.raises(ConfigError) as caught:
        refuse(many)
    text = str(caught.value)
    assert len(text) <= 1500
    assert text.startswith("data.uri: 20 errors: (1) 0 is wrong")
    shown = text.count("is wrong")
    assert f"and {20 - shown} more, which `crossfold data check` lists" in text
