"""The rate of training steps in a run, beside plain PyTorch steps on a batch that lies on the device already.

On a CPU a small model shows what the trainer adds to a step. On a GPU (Unet-resnet34, 256 x 256 x 6, batches of 8 and
32) runs read from memory, from a folder and, where an S3 server can be had, through a cache that is cold at first; the
loop of darts is measured beside them: float32, each patch read through zarr in the training thread.
"""

import logging
import os
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from benchmarks.trainer import data_path
from benchmarks.trainer.darts_calls import Patches
from benchmarks.trainer.latency import late
from crossfold_trainer import environment
from crossfold_trainer.__main__ import run
from crossfold_trainer.contract import hyperparameters as hp
from crossfold_trainer.contract.config import CACHE_VARIABLE, CONFIG_VARIABLE, RunConfig, with_digest
from crossfold_trainer.contract.data import ArtifactsSpec, DataSpec
from crossfold_trainer.contract.result import Performance
from crossfold_trainer.data import open_dataset
from crossfold_trainer.dataset.rewrite import rewrite
from crossfold_trainer.interrupt import Interrupt
from crossfold_trainer.losses import make_criterion
from crossfold_trainer.meter import Meter
from crossfold_trainer.metrics import PixelMetrics
from crossfold_trainer.model import build_model
from crossfold_trainer.precision import numerics, set_backends
from crossfold_trainer.splits import make_splits
from crossfold_trainer.step import TrainStep
from crossfold_trainer.task import Task
from crossfold_trainer.tracking import LogText
from crossfold_trainer.training import fit
from tests.s3server import s3_server
from tests.trainer_data import run_config

LATENCY_MS = 30
DARTS_S = 8.0
"""So long the loop of darts is looked at, at most an epoch."""
PURE_S = 2.0
"""So long plain steps are repeated, on a GPU; on a CPU for as many steps as two epochs have."""

Found = dict[str, Any]
Keep = Callable[[Found], None]


@dataclass(frozen=True)
class Case:
    """What is trained."""

    encoder: str
    side: int
    bands: int
    patches: int
    batch: int
    epochs: int

    def __str__(self) -> str:
        return f"Unet {self.encoder}, {self.side} x {self.side} x {self.bands}, batch {self.batch}"


ON_CPU = (Case("resnet18", 64, 3, patches=72, batch=8, epochs=4),)
ON_GPU = tuple(
    Case("resnet34", 256, 6, patches=1024, batch=batch, epochs=epochs) for batch, epochs in ((32, 9), (8, 5))
)


def measure(
    rounds: int,
    folder: Path,
    *,
    cases: tuple[Case, ...] | None = None,
    everything: bool | None = None,
    budget_s: float = 120.0,
    say: Callable[[str], None] = print,
    keep: Keep = lambda _: None,
) -> Found:
    """Rates, waits and memory of each case. What fails is said under `error` and takes nothing else with it.

    Args:
        rounds: of runs and plain steps in turns; on a GPU one is enough.
        folder: for data sets and runs.
        cases: None: those for the device at hand.
        everything: the variants for a GPU too; None: where there is one.
        budget_s: after so many seconds no further round or variant begins.
        say: told of what comes out.
        keep: called with all that is known so far, each time something is.
    """
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    cases = cases or (ON_GPU if device.type == "cuda" else ON_CPU)
    everything = device.type == "cuda" if everything is None else everything
    rounds = min(rounds, 1) if device.type == "cuda" else rounds  # nobody else uses it
    environment.use_cpus()
    set_backends(
        precision=_config(cases[0], "pure", DataSpec(uri="unused"), folder).trainer.precision, deterministic=False
    )
    end = time.monotonic() + budget_s
    result: Found = {"device": device.type, "cases": {}}
    first = cases[0]
    for layout in data_path.LAYOUTS:
        if layout == "darts_layout":
            say(f"writing {first.patches} patches of {first.side} x {first.side} x {first.bands}")
            data_path.write(folder / data_path.BUCKET / layout, first.patches, bands=first.bands, side=first.side)
        else:
            there = folder / data_path.BUCKET
            rewrite(DataSpec(uri=str(there / "darts_layout")), ArtifactsSpec(uri=str(there / layout)))
    for case in cases:
        found: Found = {"model": str(case)}
        result["cases"][f"batch_{case.batch}"] = found
        for part in _parts(case, folder, device, rounds, end)[: None if everything else 2]:
            began = time.monotonic()
            if began > end:
                found.setdefault("errors", []).append(f"{part.__name__}: no time was left")
                continue
            try:
                part(found)
            except Exception as error:  # noqa: BLE001 - the others are worth as much
                found.setdefault("errors", []).append(f"{part.__name__}: {type(error).__name__}: {error}"[:500])
                say(found["errors"][-1])
            keep(result)
            say(f"{case}: {part.__name__.strip('_')} took {time.monotonic() - began:.0f} s")
    ratios = [found["ratio_to_pure"] for found in result["cases"].values() if "ratio_to_pure" in found]
    result["ratio_to_pure"] = min(ratios, default=None)
    keep(result)
    return result


Part = Callable[[Found], None]


def _parts(case: Case, folder: Path, device: torch.device, rounds: int, end: float) -> list[Part]:
    """What there is to do for a case, in its order; each adds to what was found."""
    own = DataSpec(uri=str(folder / data_path.BUCKET / "own_layout"))

    def in_turns(found: Found) -> None:
        """Runs that keep their data in memory, and plain steps, one after the other."""
        pure: list[float] = []
        ours: list[_Run] = []
        for i in range(rounds + 1):
            if i > 1 and time.monotonic() > end:
                break
            rate = _pure(case, own, folder, device)
            # A first round warms up: kernels are chosen, memory is taken.
            tried = case if i else replace(case, epochs=1)
            ran = _run(tried, f"b{case.batch}-memory-{i}", own, folder, "Always")
            if i:
                pure.append(rate)
                ours.append(ran)
        rates = [ran.rate for ran in ours]
        found["pure_patches_per_s"] = round(statistics.median(pure), 1)
        found["memory"] = _shown(ours[-1]) | {"patches_per_s": round(statistics.median(rates), 1)}
        found["ratio_to_pure"] = round(statistics.median(a / b for a, b in zip(rates, pure, strict=True)), 3)

    def resident(found: Found) -> None:
        """The trainer's own step, metrics and all, on a batch that lies there."""
        rate = _pure(case, own, folder, device, ours=True)
        found["step_patches_per_s"] = round(rate, 1)
        found["step_ratio_to_pure"] = round(rate / found["pure_patches_per_s"], 3)

    def from_folder(found: Found) -> None:
        found["folder"] = _shown(_run(case, f"b{case.batch}-folder", own, folder, "Never"), found)

    def from_s3(found: Found) -> None:
        """Through a cache that fills in the first epoch."""
        with (
            s3_server(folder, data_path.KEY, data_path.SECRET, "us-east-1") as endpoint,
            late(endpoint, LATENCY_MS) as there,
            mock.patch.dict(os.environ, {CACHE_VARIABLE: str(folder / f"cache-{case.batch}")}),
        ):
            data = DataSpec.model_validate(
                {"uri": f"s3://{data_path.BUCKET}/own_layout", "endpoint": there, "cache": {}}
            )
            ran = _run(case, f"b{case.batch}-s3", data, folder, "Never")
        cold = _Run(ran.epochs[:1], ran.speed, ran.seconds, ran.checkpoint_bytes)
        found[f"s3_{LATENCY_MS}ms_cold"] = _shown(cold, found)
        found[f"s3_{LATENCY_MS}ms_warm_cache"] = _shown(ran, found)

    def darts_loop(found: Found) -> None:
        rate = _darts_loop(case, folder, device)
        found["darts_loop_patches_per_s"] = round(rate, 1)
        found["vs_darts_loop"] = round(found["memory"]["patches_per_s"] / rate, 1)

    return [in_turns, resident, from_s3, darts_loop, from_folder]


class _Epoch(NamedTuple):
    """What one epoch took."""

    patches: int
    seconds: float
    data_wait: float


@dataclass
class _EveryEpoch(Meter):
    """Keeps what each epoch took."""

    each: list[_Epoch] = field(default_factory=list)

    _before: tuple[int, float, float] = (0, 0.0, 0.0)

    def start(self) -> None:
        if self._since is None:
            self._before = self.patches, self.training, self.data_wait
        super().start()

    def stop(self) -> None:
        training = self._since is not None
        super().stop()
        if training:
            patches, seconds, wait = self._before
            self.each.append(_Epoch(self.patches - patches, self.training - seconds, self.data_wait - wait))


class _Run(NamedTuple):
    """A run that has ended."""

    epochs: list[_Epoch]
    speed: Performance
    seconds: float
    checkpoint_bytes: int

    @property
    def steady(self) -> list[_Epoch]:
        """All but the first epoch, in which kernels are chosen, where there are others."""
        return self.epochs[1:] or self.epochs

    @property
    def rate(self) -> float:
        """Patches per second."""
        return sum(one.patches for one in self.steady) / sum(one.seconds for one in self.steady)


def _shown(ran: _Run, beside: Found | None = None) -> Found:
    """What is reported of a run; `beside` has the plain rate that it is compared with."""
    speed = ran.speed
    shown: Found = {
        "patches_per_s": round(ran.rate, 1),
        "data_wait_share": round(sum(e.data_wait for e in ran.steady) / sum(e.seconds for e in ran.steady), 4),
        "device_utilisation": speed.device_utilisation,
        "peak_memory_mb": None if speed.peak_memory_bytes is None else round(speed.peak_memory_bytes / 1e6),
        "checkpoint_wait_share": speed.checkpoint_wait_share,
        "checkpoint_wait_s": round((speed.checkpoint_wait_share or 0.0) * ran.seconds, 3),
        "checkpoint_mb": round(ran.checkpoint_bytes / 1e6, 1),
    }
    if beside is not None and "pure_patches_per_s" in beside:
        shown["ratio_to_pure"] = round(ran.rate / beside["pure_patches_per_s"], 3)
    return shown


def _config(case: Case, name: str, data: DataSpec, folder: Path, in_memory: str = "Auto") -> RunConfig:
    config = run_config(
        data.uri, folder / "a", run=name, data=data.model_dump(by_alias=True),
        hyperparameters={"model_encoder": case.encoder, "batch_size": case.batch},
        trainer={"maxEpochs": case.epochs, "checkValEveryNEpoch": case.epochs, "inMemory": in_memory},
    )  # fmt: skip
    return with_digest(config, "bench")


def _run(case: Case, name: str, data: DataSpec, folder: Path, in_memory: str) -> _Run:
    """A whole run, from opening the data to its result."""
    config = _config(case, name, data, folder, in_memory)
    meters: list[_EveryEpoch] = []

    def meter() -> _EveryEpoch:
        meters.append(_EveryEpoch())
        return meters[-1]

    log = LogText()
    logging.getLogger("crossfold_trainer").handlers.clear()
    with (
        mock.patch.dict(os.environ, {CONFIG_VARIABLE: config.model_dump_json()}),
        mock.patch.object(fit, "Meter", meter),
    ):
        result = run(Interrupt(), log, [])
    if result.performance is None:
        raise RuntimeError("the run says nothing of its speed")
    sizes = [path.stat().st_size for path in Path(config.artifact_uri).rglob("*.ckpt")]
    return _Run(meters[0].each, result.performance, result.duration_seconds, max(sizes, default=0))


def _pure(case: Case, data: DataSpec, folder: Path, device: torch.device, *, ours: bool = False) -> float:
    """Patches per second of steps on one batch that is there already.

    Plain PyTorch with the same model, loss, precision and optimiser; or the trainer's own step.
    """
    task = _task(_config(case, "pure", data, folder), case)
    torch.manual_seed(0)
    model = build_model(task.hyperparameters, len(task.data.bands), task.data.labels.outputs)
    model = model.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimiser = torch.optim.AdamW(model.parameters(), lr=1e-3, fused=True)
    criterion = make_criterion(task.config.trainer, task.hyperparameters, task.data.labels)
    computed = numerics(task.config.trainer.precision, device)
    x = torch.rand(case.batch, case.bands, case.side, case.side, device=device)
    x = x.contiguous(memory_format=torch.channels_last)
    y = torch.randint(0, 2, (case.batch, case.side, case.side), device=device, dtype=torch.uint8)
    step = TrainStep(model, optimiser, criterion, computed, None, record=device.type == "cuda")
    step.metrics = PixelMetrics(device, task.data.labels, curves=False)
    model.train()

    def plain() -> None:
        optimiser.zero_grad(set_to_none=True)
        with computed.autocast():
            logits: Tensor = model(x)
        criterion(logits, y).mean.backward()
        optimiser.step()

    def one() -> None:
        if ours:
            step([(x, y)])
        else:
            plain()

    for _ in range(5 if device.type == "cuda" else 1):
        one()
    steps = max(1, 2 * (len(task.splits.train) // case.batch))
    if device.type == "cuda":
        steps = max(steps, int(PURE_S / _seconds(one, 10) * 10))
    return steps * case.batch / _seconds(one, steps)


def _seconds(one: Callable[[], None], steps: int) -> float:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    began = time.perf_counter()
    for _ in range(steps):
        one()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - began


def _task(config: RunConfig, case: Case) -> Task:
    data = open_dataset(config.data, None)
    return Task(config, hp.resolve(config.hyperparameters), data, make_splits(data.metadata, config, case.batch))


def _darts_loop(case: Case, folder: Path, device: torch.device) -> float:
    """Patches per second of a loop as darts has it: float32, patches read one by one in the training thread.

    No augmentation, no metrics but the loss: less than darts does.
    """
    place = folder / data_path.BUCKET / "darts_layout"
    task = _task(_config(case, "darts", DataSpec(uri=str(place)), folder), case)
    torch.manual_seed(0)
    model = build_model(task.hyperparameters, len(task.data.bands), task.data.labels.outputs).to(device)
    optimiser = torch.optim.AdamW(model.parameters(), lr=1e-3)
    criterion = make_criterion(task.config.trainer, task.hyperparameters, task.data.labels)
    patches = Patches(str(place), {}, case.patches)
    loaded = iter(DataLoader(patches, batch_size=case.batch, shuffle=True, pin_memory=device.type == "cuda"))
    model.train()

    def one() -> int:
        x, y = next(loaded)
        optimiser.zero_grad()
        loss = criterion(model(x.to(device)), y.to(device)).mean
        loss.backward()
        optimiser.step()
        loss.item()  # for the progress bar
        return len(x)

    one()
    began, got = time.perf_counter(), 0
    while time.perf_counter() - began < DARTS_S and got < case.patches - 2 * case.batch:
        got += one()
    return got / (time.perf_counter() - began)
