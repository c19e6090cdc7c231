"""Several processes train one run: what comes out is what one process makes of the same batches."""

import csv
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from crossfold_trainer.contract.exits import Exit
from crossfold_trainer.contract.result import FailureClass
from tests.s3server import free_port
from tests.trainer_data import write_dataset
from tests.trainer_runs import Attempts, config_for, failure, folder_of, result


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_dataset(tmp_path_factory.mktemp("data"))


@pytest.fixture
def attempts(tmp_path: Path) -> Attempts:
    return Attempts(tmp_path)


def test_steps_in_shares_are_the_steps_of_the_whole_batch() -> None:
    place = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
    worker = [sys.executable, str(Path(__file__).with_name("rank_worker.py"))]
    both = [
        subprocess.Popen(worker, env=os.environ | place | {"RANK": str(rank)}, stdout=subprocess.PIPE, text=True)
        for rank in range(2)
    ]
    told: list[dict[str, Any]] = [json.loads(process.communicate(timeout=120)[0]) for process in both]
    for one in told:
        assert one["loss"] < 1e-5
        assert one["weights"] < 1e-5
        assert one["metrics"] < 1e-6
        assert one["any"] == [True, False]
        assert one["leader"] == 0
    assert [one["gathered"] for one in told] == [[0, 1], []]


def column(folder: Path, name: str) -> list[float]:
    with (folder / "metrics.csv").open() as file:
        return [float(row[name]) for row in csv.DictReader(file)]


def test_two_processes_make_the_run_of_one_and_go_on_after_sigterm(
    data: Path, tmp_path: Path, attempts: Attempts
) -> None:
    """Batches of 5 in shares of 3 and 2."""
    # A small learning rate: AdamW turns gradients that are 0 but for rounding into steps of full size.
    settings: dict[str, Any] = {"hyperparameters": {"batch_size": 5, "learning_rate": 1e-4}}
    alone = config_for(data, tmp_path / "alone", **settings, trainer={"maxEpochs": 3})
    expected = result(attempts.here(alone))
    both = config_for(data, tmp_path / "both", **settings, trainer={"maxEpochs": 3, "devices": 2})
    assert both.digest == alone.digest

    process = attempts.process(both)
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith("epoch 1/"):
            break
    process.send_signal(signal.SIGTERM)
    ended = attempts.ended(process)
    assert failure(ended, Exit.INTERRUPTED, FailureClass.PREEMPTED).endswith("checkpoint saved")

    ended = attempts.ended(attempts.process(both))
    got = result(ended)
    assert "resumed at step " in ended.output
    assert "training on 2 x cpu" in ended.output
    assert (got.steps, got.epochs) == (expected.steps, expected.epochs)
    for name in ("train/loss", "val/loss"):
        assert column(folder_of(both), name) == pytest.approx(column(folder_of(alone), name), rel=1e-2), name
    one, other = (torch.load(folder_of(c) / "checkpoints/last.ckpt", weights_only=True)["model"] for c in (alone, both))
    assert one.keys() == other.keys()
    assert all(torch.allclose(one[name].float(), other[name].float(), atol=2e-2) for name in one)
    assert (folder_of(both) / "figures" / "samples-best.png").is_file()


def test_one_that_fails_ends_all(data: Path, tmp_path: Path, attempts: Attempts) -> None:
    few = config_for(data, tmp_path / "a", hyperparameters={"batch_size": 1}, trainer={"devices": 2})
    text = failure(attempts.ended(attempts.process(few)), Exit.CONFIG, FailureClass.CONFIG)
    assert text.startswith("hyperparameters.batch_size: 2 devices cannot share a batch of 1")
