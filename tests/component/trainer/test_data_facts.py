"""Runs on data sets whose parts contradict each other, or may do so: how they end, and what their log says."""

import shutil
from pathlib import Path

import pandas as pd

from crossfold_trainer.contract.exits import Exit
from crossfold_trainer.contract.result import FailureClass
from tests.trainer_data import BANDS, write_dataset
from tests.trainer_runs import Attempts, config_for, failure, folder_of, result


def test_all_that_is_wrong_is_in_the_termination_message(tmp_path: Path, attempts: Attempts) -> None:
    config = {"bands": [*BANDS, "swir"], "patch_size": 64}
    folder = write_dataset(tmp_path / "d", config=config)
    shutil.rmtree(folder / "data.zarr/x/c")
    text = failure(attempts.here(config_for(folder, tmp_path / "a")), Exit.CONFIG, FailureClass.CONFIG)
    for words in ("data.uri: 3 errors", "config.toml names 4", "patch_size = 64", "none of the 72 chunks"):
        assert words in text, words


def test_labels_that_contradict_their_patch_end_the_run(tmp_path: Path, attempts: Attempts) -> None:
    folder = write_dataset(tmp_path / "d")
    frame = pd.read_parquet(folder / "metadata.parquet")
    frame.assign(empty=[i in (0, 1) for i in range(24)]).to_parquet(folder / "metadata.parquet")
    ended = attempts.here(config_for(folder, tmp_path / "a", foldMethod="KFold"))
    assert "metadata.parquet says empty = " in failure(ended, Exit.CONFIG, FailureClass.CONFIG)


def test_what_may_be_meant_is_in_the_log(tmp_path: Path, attempts: Attempts) -> None:
    folder = write_dataset(tmp_path / "d")
    for i in (3, 7):
        shutil.rmtree(folder / f"data.zarr/x/c/{i}")
    (folder / "data.zarr/zarr.json").unlink()
    ended = attempts.here(config_for(folder, tmp_path / "a", trainer={"maxEpochs": 1}))
    result(ended)
    assert "warning: 6 of 72 chunks of data.zarr/x are not there" in ended.output
    assert "warning: data.zarr has no document of its own" in ended.output


def test_rows_that_were_sorted_train_the_same_run(tmp_path: Path, attempts: Attempts) -> None:
    """An index that says which patch a row is gives the same parts, and the same numbers, as rows in order."""
    folder = write_dataset(tmp_path / "d")
    frame = pd.read_parquet(folder / "metadata.parquet")
    more = {"trainer": {"maxEpochs": 1}, "data": {"subsample": 20, "split": {"method": "Region", "values": ["r1"]}}}
    got, parts = [], []
    for name, rows in (("a", frame), ("b", frame.sort_values("region"))):
        rows.to_parquet(folder / "metadata.parquet")
        config = config_for(folder, tmp_path / name, **more)
        got.append(result(attempts.here(config)))
        parts.append(pd.read_parquet(folder_of(config) / "splits.parquet"))
    assert got[0].splits_digest == got[1].splits_digest
    assert got[0].data_digest != got[1].data_digest
    assert (got[0].score, got[0].metrics) == (got[1].score, got[1].metrics)
    pd.testing.assert_frame_equal(*parts)
