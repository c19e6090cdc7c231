"""Runs on values of x that are not what a data set says: how they end, and what ignoring and scaling come to."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from crossfold_trainer.contract.exits import Exit
from crossfold_trainer.contract.result import FailureClass, RunResult
from crossfold_trainer.data import open_dataset
from crossfold_trainer.splits import Splits, make_splits
from crossfold_trainer.training.fit import Fit
from tests.component.trainer.test_resume import Killed, ending
from tests.trainer_data import run_config, write_dataset
from tests.trainer_runs import Attempts, config_for, failure, folder_of, result, same_weights

N = 24
TEST: dict[str, Any] = {"split": {"method": "Random", "testFraction": 0.2}}


@pytest.fixture(scope="module")
def parts(data: Path) -> Splits:
    """Which patches train, validate and test in the runs below."""
    config = run_config(data, "a", data=TEST)
    return make_splits(open_dataset(config.data, None).metadata, config, 4)


def pixels(data: Path) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
    both = open_dataset(run_config(data, "a").data, None).read(np.arange(N))
    return both.x, both.y


@pytest.mark.parametrize("memory", ["Auto", "Never"])
@pytest.mark.parametrize("part", ["train", "val", "test"])
@pytest.mark.parametrize(
    ("value", "says"),
    [
        (np.nan, "data.uri: patch {row} has NaN or infinite values: 1 of 1024 pixels in band green"),
        (-9999, "data.scale: patch {row} has values out of range: band green has -9999 to"),
    ],
)
def test_one_wrong_value_in_any_part_ends_the_run(
    data: Path, tmp_path: Path, attempts: Attempts, parts: Splits, *, part: str, memory: str, value: float, says: str
) -> None:
    x, _ = pixels(data)
    row = int(getattr(parts, part)[-1])
    x[row, 1, 5, 5] = value
    folder = write_dataset(tmp_path / "d", x=x)
    config = config_for(folder, tmp_path / "a", data=TEST, trainer={"maxEpochs": 1, "inMemory": memory})
    text = failure(attempts.here(config), Exit.CONFIG, FailureClass.CONFIG)
    assert says.format(row=row) in text


def numbers(got: RunResult) -> tuple[Any, ...]:
    return got.score, got.stable, got.steps, got.values, got.metrics


def test_ignored_pixels_are_those_of_a_data_set_that_ignores_them(
    data: Path, tmp_path: Path, attempts: Attempts, parts: Splits, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever reads the patches, and however often the run begins anew, it is the run of labels that say so."""
    x, y = pixels(data)
    rows = [int(part[0]) for part in (parts.train, parts.val, parts.test)]
    wrong = np.zeros((N, 3, 32, 32), np.bool_)
    wrong[rows[0], 1, 8:11, 8:11] = wrong[rows[1], :, 20, 20] = wrong[rows[2], 0, 4, 4:6] = True
    zeros = write_dataset(tmp_path / "zeros", x=np.where(wrong, 0, x), y=np.where(wrong.any(axis=1), 2, y))
    raw = np.where(wrong, np.nan, x).astype(np.float32)
    want_config = config_for(zeros, tmp_path / "want", data=TEST)
    want = result(attempts.here(want_config))
    assert want.ignored_pixels == 0
    for name, chunks, memory in (("kept", None, "Auto"), ("chunks", None, "Never"), ("zarr", (4, 3, 32, 32), "Never")):
        folder = write_dataset(tmp_path / name, x=raw, x_chunks=chunks)
        config = config_for(
            folder, tmp_path / "a" / name, data={**TEST, "nonFinite": "Ignore"}, trainer={"inMemory": memory}
        )
        if name == "chunks":
            interrupt = ending(monkeypatch, {5: "term"})
            failure(attempts.here(config, interrupt()), Exit.INTERRUPTED, FailureClass.PREEMPTED)
        ended = attempts.here(config)
        got = result(ended)
        assert numbers(got) == numbers(want)
        assert same_weights(folder_of(config), folder_of(want_config))
        assert got.ignored_pixels == 9 + 1 + 2
        assert "NaN or infinite values: 12 pixels of 3 patches were ignored" in ended.output


def test_what_was_ignored_before_an_end_is_counted_once(
    data: Path, tmp_path: Path, attempts: Attempts, parts: Splits, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The last attempt reads the test part alone."""
    x, _ = pixels(data)
    for part in (parts.train, parts.test):
        x[part[0], 1, 5, 5:7] = np.inf
    config = config_for(
        write_dataset(tmp_path / "d", x=x),
        tmp_path / "a",
        data={**TEST, "nonFinite": "Ignore"},
        trainer={"inMemory": "Never"},
    )

    def killed(self: Fit, *_: Any) -> None:
        assert self._uploader.flush(lambda: None)
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(Fit, "_test", killed)
        with pytest.raises(Killed):
            attempts.here(config)
    ended = attempts.here(config)
    assert "resumed at step 9, epoch 4" in ended.output
    assert result(ended).ignored_pixels == 4


def test_two_processes_count_what_both_have_read(data: Path, tmp_path: Path, attempts: Attempts, parts: Splits) -> None:
    x, _ = pixels(data)
    for row in np.concatenate([parts.val, parts.test]):
        x[row, 2, 6, 6] = np.nan
    config = config_for(
        write_dataset(tmp_path / "d", x=x),
        tmp_path / "a",
        data={**TEST, "nonFinite": "Ignore"},
        trainer={"inMemory": "Never", "devices": 2, "maxEpochs": 1},
    )
    got = result(attempts.ended(attempts.process(config)))
    assert got.ignored_pixels == len(parts.val) + len(parts.test)


@pytest.mark.parametrize("dtype", ["u2", "f4"])
def test_reflectances_with_a_scale_are_the_run_of_reflectances_divided(
    data: Path, tmp_path: Path, attempts: Attempts, dtype: str
) -> None:
    x, _ = pixels(data)
    raw = (x * 10_000).round()
    hyperparameters = {"augment": ["Posterize", "RandomBrightnessContrast"]}
    divided = write_dataset(tmp_path / "divided", x=(raw.astype(np.float64) / 10_000).astype(np.float32))
    want_config = config_for(divided, tmp_path / "want", hyperparameters=hyperparameters)
    want = result(attempts.here(want_config))
    folder = write_dataset(tmp_path / "raw", x=raw.astype(dtype))
    refused = failure(attempts.here(config_for(folder, tmp_path / "a")), Exit.CONFIG, FailureClass.CONFIG)
    assert refused.startswith("data.scale: ")
    assert "{min: 0, max: 10000}" in refused
    config = config_for(
        folder, tmp_path / "a", hyperparameters=hyperparameters, data={"scale": {"min": 0, "max": 10_000}}
    )
    assert numbers(result(attempts.here(config))) == numbers(want)
    assert same_weights(folder_of(config), folder_of(want_config))
    kept = torch.load(folder_of(config) / "checkpoints/best.ckpt", weights_only=True)
    assert kept["hyper_parameters"]["config"]["ranges"] == [[0, 10_000]] * 3


def test_a_range_upside_down_is_refused_without_a_cluster_too(data: Path, tmp_path: Path, attempts: Attempts) -> None:
    config = config_for(data, tmp_path / "a", data={"scale": {"min": 2}})
    text = failure(attempts.here(config), Exit.CONFIG, FailureClass.CONFIG)
    assert text == "data.scale: band red goes from 2 to 1: min must be below max"
