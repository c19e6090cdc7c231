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

from crossfold_trainer.contract.config import RunConfig
from crossfold_trainer.contract.exits import Exit
from crossfold_trainer.contract.progress import FILE_VARIABLE, ProgressReport
from crossfold_trainer.contract.result import FailureClass, RunResult
from tests.ports import own_port
from tests.trainer_runs import Attempts, Ended, config_for, failure, folder_of, result

HERE = Path(__file__).parent
SETTINGS: dict[str, Any] = {
    # A small learning rate: AdamW turns gradients that are 0 but for rounding into steps of full size.
    "hyperparameters": {"batch_size": 5, "learning_rate": 1e-4},
    "objective": {"metrics": [{"name": "val/loss"}]},
    "data": {"split": {"method": "Random", "testFraction": 0.2}},
    "tracking": {"tensorboard": True},
}
"""Batches of 5, in shares of 3 and 2."""


@pytest.fixture(scope="module")
def alone(data: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[RunConfig, RunResult]:
    """The run of one process."""
    folder = tmp_path_factory.mktemp("alone")
    config = config_for(data, folder / "artifacts", **SETTINGS)
    return config, result(Attempts(folder).here(config))


@pytest.mark.parametrize(("strategy", "held"), [("DDP", [1.0, 1.0]), ("FSDP", [0.62, 0.38])])
def test_steps_in_shares_are_the_steps_of_the_whole_batch(strategy: str, held: list[float]) -> None:
    place = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(own_port())}
    worker = [sys.executable, str(HERE / "rank_worker.py"), strategy]
    both = [
        subprocess.Popen(worker, env=os.environ | place | {"RANK": str(rank)}, stdout=subprocess.PIPE, text=True)
        for rank in range(2)
    ]
    told: list[dict[str, Any]] = [json.loads(process.communicate(timeout=120)[0]) for process in both]
    for one in told:
        assert one["loss"] < 1e-5
        assert one["weights"] < 1e-5
        assert one["metrics"] < 1e-6
        assert one["loaded"] == 0
        assert one["any"] == [True, False]
        assert one["leader"] == 0
    assert [one["held"] for one in told] == pytest.approx(held, abs=0.01), "the share of the weights on each"
    assert [one["gathered"] for one in told] == [[0, 1], []]


def column(folder: Path, name: str) -> list[float]:
    with (folder / "metrics.csv").open() as file:
        return [float(row[name]) for row in csv.DictReader(file)]


def same(one: tuple[RunConfig, RunResult], other: tuple[RunConfig, RunResult]) -> None:
    """Two runs of the same batches have the same losses within 1 %, and weights within 0.02 (see docs/trainer.md)."""
    (a, a_result), (b, b_result) = one, other
    assert a.digest == b.digest
    assert (a_result.steps, a_result.epochs) == (b_result.steps, b_result.epochs)
    for name in ("train/loss", "val/loss"):
        assert column(folder_of(a), name) == pytest.approx(column(folder_of(b), name), rel=1e-2), name
    assert a_result.metrics["test/loss"] == pytest.approx(b_result.metrics["test/loss"], rel=1e-2)
    assert a_result.metrics.keys() == b_result.metrics.keys()
    kept = [torch.load(folder_of(c) / "checkpoints/last.ckpt", weights_only=True) for c in (a, b)]
    first, second = (content["state_dict"] for content in kept)
    assert first.keys() == second.keys()
    assert all(torch.allclose(first[name].float(), second[name].float(), atol=2e-2) for name in first)
    states = [content["optimizer_states"][0]["state"] for content in kept]
    shapes = [[(i, k, v.shape) for i, values in state.items() for k, v in values.items()] for state in states]
    assert shapes[0] == shapes[1], "a checkpoint is whole, whoever wrote it"


@pytest.mark.parametrize("strategies", [("DDP", "FSDP"), ("FSDP", "DDP")])
def test_two_processes_make_the_run_of_one_and_go_on_after_sigterm_in_another_way(
    data: Path, tmp_path: Path, attempts: Attempts, alone: tuple[RunConfig, RunResult], strategies: tuple[str, str]
) -> None:
    first, second = (
        config_for(data, tmp_path / "both", **SETTINGS, trainer={"devices": 2, "strategy": strategy})
        for strategy in strategies
    )
    process = attempts.held(first, "epoch 1/")
    process.send_signal(signal.SIGTERM)
    attempts.go_on()
    ended = attempts.ended(process)
    assert failure(ended, Exit.INTERRUPTED, FailureClass.PREEMPTED).endswith("checkpoint saved")

    report = tmp_path / "report"
    ended = attempts.ended(attempts.process(second, **{FILE_VARIABLE: str(report)}))
    got = result(ended)
    assert "resumed at step " in ended.output
    assert ended.output.count("training on 2 x cpu") == 1
    same(alone, (second, got))
    folder = folder_of(second)
    assert {path.name for path in (folder / "figures").iterdir()} >= {"samples-best.png", "samples-test.png"}
    # Trackers and live progress hear of the first process alone: one file of events for each attempt.
    assert len(list(folder.rglob("events.out.tfevents.*"))) == 2
    said = ProgressReport.model_validate_json(report.read_bytes())
    assert said.digest == second.digest
    assert said.epochs == 3
    assert got.performance is not None
    assert got.performance.patches_per_second


def test_memory_that_does_not_suffice_on_one_halves_the_micro_batches_of_all(
    data: Path, tmp_path: Path, attempts: Attempts
) -> None:
    config = config_for(data, tmp_path / "a", **SETTINGS, trainer={"devices": 2}, outOfMemory="HalveBatch")
    little = {"PYTHONPATH": os.pathsep.join([str(HERE / "little_memory"), os.environ.get("PYTHONPATH", "")])}
    text = failure(attempts.ended(attempts.process(config, **little)), Exit.INTERRUPTED, FailureClass.PREEMPTED)
    assert text == "out of accelerator memory: all processes begin again with half as many patches at a time"
    got = result(attempts.ended(attempts.process(config, **little)))
    assert got.halvings == 1
    assert got.reason.endswith("3 instead of 5 patches at a time, for want of accelerator memory")


def nodes(config: RunConfig, folder: Path) -> "list[tuple[Attempts, subprocess.Popen[str]]]":
    """Two nodes on one machine, as an Indexed Job starts them."""
    place = {"MASTER_ADDR": "localhost", "MASTER_PORT": str(own_port())}
    started = []
    for number in range(2):
        (folder / f"node{number}").mkdir()
        own = Attempts(folder / f"node{number}")
        started.append((own, own.process(config, **place, JOB_COMPLETION_INDEX=str(number))))
    return started


def test_two_nodes_make_the_run_of_one(data: Path, tmp_path: Path, alone: tuple[RunConfig, RunResult]) -> None:
    config = config_for(data, tmp_path / "a", **SETTINGS, trainer={"nodes": 2, "strategy": "FSDP"})
    first, second = (own.ended(process) for own, process in nodes(config, tmp_path))
    same(alone, (config, result(first)))
    assert second == Ended(Exit.OK, None, second.output), "the first node alone tells the result"
    assert "training on" not in second.output


def test_a_node_that_is_lost_ends_the_other_which_says_so(data: Path, tmp_path: Path) -> None:
    config = config_for(data, tmp_path / "a", **SETTINGS, trainer={"nodes": 2, "maxEpochs": 1000})
    (first, leader), (_, other) = nodes(config, tmp_path)
    assert leader.stdout is not None
    for line in leader.stdout:
        if line.startswith("epoch 1/"):
            break
    # The node with all that is on it.
    for worker in Path(f"/proc/{other.pid}/task/{other.pid}/children").read_text().split():
        os.kill(int(worker), signal.SIGKILL)
    assert other.wait(timeout=60) == 128 + signal.SIGKILL
    ended = first.ended(leader)
    assert (ended.code, ended.message) == (Exit.PEERS_LOST, None)
    assert "another process is gone" in ended.output


def test_one_that_fails_ends_all(data: Path, tmp_path: Path, attempts: Attempts) -> None:
    few = config_for(data, tmp_path / "a", hyperparameters={"batch_size": 1}, trainer={"devices": 2})
    text = failure(attempts.ended(attempts.process(few)), Exit.CONFIG, FailureClass.CONFIG)
    assert text.startswith("hyperparameters.batch_size: 2 devices cannot share a batch of 1")
