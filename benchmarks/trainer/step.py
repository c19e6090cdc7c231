"""The rate of training steps in a run, beside the same steps on batches that lie on the device already."""

import logging
import os
import statistics
import time
from pathlib import Path
from typing import Any

import torch

from crossfold_trainer import environment
from crossfold_trainer.__main__ import run
from crossfold_trainer.contract import hyperparameters as hp
from crossfold_trainer.contract.config import CONFIG_VARIABLE, RunConfig, with_digest
from crossfold_trainer.contract.result import Performance
from crossfold_trainer.data import open_dataset
from crossfold_trainer.interrupt import Interrupt
from crossfold_trainer.losses import make_criterion
from crossfold_trainer.metrics import PixelMetrics
from crossfold_trainer.model import build_model
from crossfold_trainer.precision import numerics
from crossfold_trainer.splits import make_splits
from crossfold_trainer.step import TrainStep
from crossfold_trainer.task import Task
from crossfold_trainer.tracking import LogText
from tests.trainer_data import run_config, write_dataset

ENCODER = "resnet18"
EPOCHS = 2


def measure(rounds: int, folder: Path) -> dict[str, Any]:
    """Rates in turns, the share of waiting, and what checkpoints cost the training thread."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    side, n, batch = (256, 256, 32) if device.type == "cuda" else (64, 48, 8)
    environment.use_cpus()
    write_dataset(folder / "d", n=n, side=side)
    runs: list[tuple[Performance, float, int]] = []
    pure: list[float] = []
    for i in range(rounds + 1):
        measured = _run(folder, f"r{i}", batch)
        rate = _pure(folder, device, batch, side)
        if i:
            runs.append(measured)
            pure.append(rate)
    rates = [speed.patches_per_second or 0.0 for speed, _, _ in runs]
    waits = [(speed.checkpoint_wait_share or 0.0) * seconds / EPOCHS for speed, seconds, _ in runs]
    return {
        "device": device.type,
        "model": f"Unet {ENCODER}, {side} x {side} x 3, batch {batch}",
        "patches_per_s": round(statistics.median(rates), 1),
        "pure_patches_per_s": round(statistics.median(pure), 1),
        "ratio_to_pure": round(statistics.median(a / b for a, b in zip(rates, pure, strict=True)), 3),
        "data_wait_share": round(statistics.median(speed.data_wait_share or 0.0 for speed, _, _ in runs), 4),
        "checkpoint_wait_s": round(statistics.median(waits), 3),
        "checkpoint_mb": round(runs[-1][2] / 1e6, 1),
    }


def _config(folder: Path, name: str, batch: int) -> RunConfig:
    config = run_config(
        folder / "d", folder / "a", run=name, hyperparameters={"model_encoder": ENCODER, "batch_size": batch},
        trainer={"maxEpochs": EPOCHS, "checkValEveryNEpoch": 1, "inMemory": "Never"},
    )  # fmt: skip
    return with_digest(config, "bench")


def _task(folder: Path, name: str, batch: int) -> Task:
    config = _config(folder, name, batch)
    data = open_dataset(config.data, None)
    return Task(config, hp.resolve(config.hyperparameters), data, make_splits(data.metadata, config, batch))


def _run(folder: Path, name: str, batch: int) -> tuple[Performance, float, int]:
    """A run of two epochs: its speed, its seconds, and the bytes of its largest checkpoint."""
    config = _config(folder, name, batch)
    os.environ[CONFIG_VARIABLE] = config.model_dump_json()
    log = LogText()
    logging.getLogger("crossfold_trainer").handlers.clear()
    result = run(Interrupt(), log, [])
    if result.performance is None:
        raise RuntimeError("the run says nothing of its speed")
    sizes = [path.stat().st_size for path in (folder / "a").rglob("*.ckpt")]
    return result.performance, result.duration_seconds, max(sizes, default=0)


def _pure(folder: Path, device: torch.device, batch: int, side: int) -> float:
    """Patches per second of the same steps on one batch that is there already."""
    task = _task(folder, "pure", batch)
    torch.manual_seed(0)
    model = build_model(task.hyperparameters, len(task.data.bands), task.data.labels.outputs)
    model = model.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimiser = torch.optim.AdamW(model.parameters(), lr=1e-3, fused=True)
    criterion = make_criterion(task.config.trainer, task.hyperparameters, task.data.labels)
    step = TrainStep(model, optimiser, criterion, numerics(task.config.trainer.precision, device), None)
    step.metrics = PixelMetrics(device, task.data.labels, curves=False)
    x = torch.rand(batch, len(task.data.bands), side, side, device=device)
    y = torch.randint(0, 2, (batch, side, side), device=device, dtype=torch.uint8)
    model.train()
    steps = 2 * (len(task.splits.train) // batch)
    step([(x, y)])
    if device.type == "cuda":
        torch.cuda.synchronize()
    began = time.perf_counter()
    for _ in range(steps):
        step([(x, y)])
    if device.type == "cuda":
        torch.cuda.synchronize()
    return steps * batch / (time.perf_counter() - began)
