"""What only a GPU can show: skipped where there is none (`python -m benchmarks.trainer.gpu` runs them where there is)."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from crossfold_trainer.contract import hyperparameters as hp
from crossfold_trainer.contract.config import OutOfMemoryPolicy
from crossfold_trainer.contract.data import ArtifactsSpec, DataSpec, ScaleSpec
from crossfold_trainer.contract.exits import Exit
from crossfold_trainer.contract.result import FailureClass, Outcome
from crossfold_trainer.contract.trainer import InMemory, Precision, TrainerSpec
from crossfold_trainer.data import open_dataset
from crossfold_trainer.dataset.rewrite import rewrite
from crossfold_trainer.devicewatch import DeviceWatch
from crossfold_trainer.interrupt import Interrupt
from crossfold_trainer.labels import BINARY, Labels
from crossfold_trainer.loader import Loader, Scale
from crossfold_trainer.losses import LossSum, make_criterion
from crossfold_trainer.metrics import PixelMetrics
from crossfold_trainer.model import compile_model
from crossfold_trainer.precision import numerics, set_backends
from crossfold_trainer.step import LossReader, MicroBatch, TrainStep
from crossfold_trainer.training.loop import Loop
from crossfold_trainer.transforms import compose
from crossfold_trainer.values import decode, ranges_of
from tests.trainer_data import write_dataset
from tests.trainer_runs import Attempts, config_for, failure, folder_of, result, same_weights

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU here")

GPU, CPU = torch.device("cuda"), torch.device("cpu")
CLASSES = Labels(("a", "b", "c"), ignore=255, binary=False)
SLOW = 20_000_000
"""Cycles in which the device does nothing else: about 10 ms."""


@pytest.fixture(autouse=True)
def as_it_was() -> Iterator[None]:
    """No test leaves its switches, its memory or its limit to the next."""
    yield
    set_backends(precision=Precision.AUTO, deterministic=False)
    torch.cuda.set_per_process_memory_fraction(1.0)
    torch.cuda.empty_cache()


class Pointwise(nn.Module):
    """A small model without batch statistics: what one sample gives depends on no other."""

    def __init__(self, outputs: int = 1, width: int = 4) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layers = nn.Sequential(nn.Conv2d(3, width, 3, padding=1), nn.ReLU(), nn.Conv2d(width, outputs, 1))

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.layers(x)
        return logits[:, 0] if logits.shape[1] == 1 else logits


def batch_of(n: int, side: int = 64, device: torch.device = GPU) -> MicroBatch:
    generator = torch.Generator().manual_seed(1)
    y = torch.randint(2, (n, side, side), generator=generator).to(torch.uint8)
    y[n // 2 :, :, 1 : side // 2] = 2
    return torch.rand(n, 3, side, side, generator=generator).to(device), y.to(device)


def make_step(
    device: torch.device = GPU,
    precision: Precision = Precision.FP32,
    *,
    halve: bool = False,
    record: bool = False,
    **settings: Any,
) -> tuple[TrainStep, Pointwise]:
    set_backends(precision=precision, deterministic=False)
    model = Pointwise().to(device, memory_format=torch.channels_last)
    optimiser = torch.optim.AdamW(model.parameters(), lr=1e-2, fused=True)
    trainer = TrainerSpec.model_validate(settings)
    criterion = make_criterion(trainer, hp.resolve({}), BINARY)
    step = TrainStep(
        model, optimiser, criterion, numerics(precision, device), trainer.gradient_clip, halve=halve, record=record
    )
    step.metrics = PixelMetrics(device, BINARY, curves=False)
    return step, model


def test_a_run_trains_in_bfloat16_and_leaves_everything(data: Path, tmp_path: Path, attempts: Attempts) -> None:
    config = config_for(
        data,
        tmp_path / "a",
        tracking={"tensorboard": True},
        trainer={"maxEpochs": 8, "plotEveryNValEpochs": 4},
        hyperparameters={"augment": ["D4", "Blur", "RandomBrightnessContrast", "MultiplicativeNoise", "Posterize"]},
    )
    ended = attempts.ended(attempts.process(config))
    got = result(ended)
    assert "training on cuda in BF16Mixed" in ended.output
    assert "steps are replayed as one CUDA graph" in ended.output
    assert got.outcome is Outcome.TRAINED
    assert (got.epochs, got.steps) == (8, 32)
    assert got.score is not None
    assert got.score > 0.3, "bright squares on a dark ground are learnt"
    folder = folder_of(config)
    for name in (
        "metrics.csv", "splits.parquet", "log.txt", "checkpoints/best.ckpt", "checkpoints/last.ckpt",
        "figures/samples-best.png", "figures/augmented.png", "figures/roc-best.png", "figures/confusion-best.png",
    ):  # fmt: skip
        assert (folder / name).stat().st_size > 0
    speed = got.performance
    assert speed is not None
    assert speed.device == torch.cuda.get_device_name()
    assert speed.peak_memory_bytes is not None
    assert speed.peak_memory_bytes > 2**20
    machine = json.loads((folder / "environment.json").read_text())
    assert machine["device"] == "cuda"
    assert machine["gpus"][0]["name"] == speed.device
    kept = torch.load(folder / "checkpoints/best.ckpt", weights_only=True, map_location="cpu")
    assert {value.dtype for value in kept["state_dict"].values() if value.is_floating_point()} == {torch.float32}


def test_an_interrupted_deterministic_run_ends_with_the_same_weights(
    data: Path, tmp_path: Path, attempts: Attempts, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = {"trainer": {"deterministic": True}, "hyperparameters": {"augment": ["D4", "MultiplicativeNoise"]}}
    whole, broken = (config_for(data, tmp_path / name, **settings) for name in ("whole", "broken"))
    result(attempts.here(whole))
    ends, watch = {5}, Loop._watch

    def watched(self: Loop, *arguments: Any) -> None:
        if self._progress.step in ends:
            ends.remove(self._progress.step)
            self._interrupt.request()
        watch(self, *arguments)

    monkeypatch.setattr(Loop, "_watch", watched)
    failure(attempts.here(broken, Interrupt()), Exit.INTERRUPTED, FailureClass.PREEMPTED)
    ended = attempts.here(broken, Interrupt())
    result(ended)
    assert "resumed at step 5" in ended.output
    assert same_weights(folder_of(whole), folder_of(broken))


@pytest.mark.parametrize("precision", ["FP32", "FP16Mixed"])
def test_other_precisions_train(data: Path, tmp_path: Path, attempts: Attempts, precision: str) -> None:
    ended = attempts.here(config_for(data, tmp_path / "a", trainer={"precision": precision, "gradientClip": 1}))
    assert result(ended).outcome is Outcome.TRAINED
    assert f"training on cuda in {precision}" in ended.output


def test_auto_is_bfloat16_where_the_device_has_it() -> None:
    wanted = Precision.BF16_MIXED if torch.cuda.get_device_capability() >= (8, 0) else Precision.FP32
    assert numerics(Precision.AUTO, GPU).name is wanted


def test_steps_are_those_of_the_cpu() -> None:
    (there, _), (here, _) = make_step(GPU), make_step(CPU)
    for _ in range(5):
        assert there([batch_of(8)]).item() == pytest.approx(here([batch_of(8, device=CPU)]).item(), rel=1e-3)
    assert there.metrics.compute() == pytest.approx(here.metrics.compute(), rel=1e-2)


@pytest.mark.parametrize("precision", [Precision.FP32, Precision.BF16_MIXED, Precision.FP16_MIXED])
def test_nothing_of_a_step_waits_for_the_device(precision: Precision) -> None:
    step, _ = make_step(precision=precision, gradientClip=1)
    augment = compose(hp.AUGMENTATIONS, BINARY.ignore)
    losses, batch = LossReader(GPU), batch_of(8)
    for at in range(3):  # kernels are loaded, the optimiser's state is made, memory is taken
        torch.manual_seed(at)
        losses.watch(at, step([augment(*batch)]))
        losses.send(at, torch.zeros((), device=GPU))
    assert [reading.step for reading in losses.finish()] == [0, 1, 2]
    for at in range(3):
        torch.cuda.synchronize()
        before = torch.cuda.Event()
        torch.cuda._sleep(100 * SLOW)
        before.record()
        torch.cuda.set_sync_debug_mode("error")
        try:
            torch.manual_seed(at)
            seen = augment(*batch)
            assert not before.query(), "augmentation waited"
            loss = step([seen])
            assert not before.query(), "the step waited"
            losses.watch(at, loss)
            losses.send(at, loss)
            assert not list(losses.arrived()), "the device has other work before it"
            with pytest.raises(RuntimeError, match="synchroniz"):
                loss.item()
        finally:
            torch.cuda.set_sync_debug_mode("default")
        assert [reading.step for reading in losses.finish()] == [at]


class Noisy(Pointwise):
    """With batch statistics and dropout, as real models have them."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.Dropout(0.2), nn.Conv2d(8, 1, 1)
        )


@pytest.mark.parametrize("precision", [Precision.FP32, Precision.BF16_MIXED])
@pytest.mark.parametrize("micro", [1, 2])
def test_a_replayed_step_is_the_same_step(
    precision: Precision, micro: int, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Learning rate, batch and draws change from step to step; in the middle comes a batch of another shape."""
    monkeypatch.setitem(globals(), "Pointwise", Noisy)
    caplog.set_level("INFO", "crossfold_trainer.graphs")
    (plain, model), (replayed, other) = (
        make_step(precision=precision, record=record, gradientClip=1) for record in (False, True)
    )
    set_backends(precision=precision, deterministic=True)
    other.load_state_dict(model.state_dict())
    losses: list[list[float]] = []
    for step in (plain, replayed):
        found = []
        for at in range(10):
            torch.manual_seed(at)
            generator = torch.Generator().manual_seed(at)
            sizes = [6] if at == 6 else [8] * micro
            batch = [
                (
                    torch.rand(n, 3, 32, 32, generator=generator).to(GPU),
                    torch.randint(3, (n, 32, 32), generator=generator).to(torch.uint8).to(GPU),
                )
                for n in sizes
            ]
            for group in step._optimiser.param_groups:
                group["lr"] = 1e-2 * 0.9**at
            found.append(step(batch))
        losses.append(torch.stack(found).tolist())
    assert losses[0] == losses[1]
    assert all(torch.equal(a, b) for a, b in zip(model.state_dict().values(), other.state_dict().values(), strict=True))
    assert plain.metrics.compute() == replayed.metrics.compute()
    assert caplog.messages.count("steps are replayed as one CUDA graph from here on") == 1
    state = replayed._optimiser.state_dict()
    assert state["param_groups"] == plain._optimiser.state_dict()["param_groups"], (
        "nothing of it is left in a checkpoint"
    )


def test_a_replayed_step_waits_for_nothing() -> None:
    step, _ = make_step(record=True)
    batch = batch_of(8)
    for _ in range(5):
        step([batch])
    torch.cuda.synchronize()
    end = torch.cuda.Event()
    torch.cuda._sleep(20 * SLOW)
    torch.cuda.set_sync_debug_mode("error")
    try:
        for _ in range(3):
            step([batch])
        end.record()
        assert not end.query(), "the device has other work before it"
    finally:
        torch.cuda.set_sync_debug_mode("default")


def test_what_cannot_be_recorded_is_done_step_by_step(caplog: pytest.LogCaptureFixture) -> None:
    step, model = make_step(record=True)
    waits = model.layers[0].register_forward_hook(lambda _module, _given, out: out * out.sum().isfinite().item())
    found = [step([batch_of(8)]).item() for _ in range(6)]
    assert all(np.isfinite(found))
    assert found[-1] < found[0]
    assert [record.getMessage() for record in caplog.records if "cannot be recorded" in record.getMessage()]
    waits.remove()
    assert step([batch_of(8)]).item() < found[0], "the device is none the worse for it"


@pytest.mark.parametrize("labels", [BINARY, CLASSES], ids=["binary", "classes"])
@pytest.mark.parametrize("deterministic", [False, True])
def test_metrics_count_as_on_the_cpu(labels: Labels, deterministic: bool) -> None:
    set_backends(precision=Precision.FP32, deterministic=deterministic)
    generator = torch.Generator().manual_seed(3)
    counted = [PixelMetrics(device, labels, curves=True) for device in (GPU, CPU)]
    for n in (1, 7, 16):
        shape = (n, 96, 80) if labels.binary else (n, 3, 96, 80)
        probability = torch.rand(shape, generator=generator)
        y = torch.randint(len(labels.names), (n, 96, 80), generator=generator).to(torch.uint8)
        y[:, ::7] = labels.ignore
        loss = LossSum(torch.tensor(12.5), torch.tensor(100.0))
        for metrics, device in zip(counted, (GPU, CPU), strict=True):
            moved = LossSum(loss.total.to(device), loss.pixels.to(device))
            metrics.update(probability.to(device), y.to(device), moved)
    there, here = counted
    assert there.confusion == here.confusion
    assert there.histograms == here.histograms
    assert there.compute() == here.compute()


@pytest.mark.parametrize("layout", ["darts", "own"])
@pytest.mark.parametrize("in_memory", [InMemory.NEVER, InMemory.ALWAYS])
def test_batches_arrive_whole_however_far_the_device_is_behind(
    data: Path, tmp_path: Path, layout: str, in_memory: InMemory
) -> None:
    place = data
    if layout == "own":
        place = tmp_path / "own"
        rewrite(DataSpec(uri=str(data)), ArtifactsSpec(uri=str(place)))
    opened = open_dataset(DataSpec(uri=str(place)), None)
    rows = np.arange(len(opened))
    rng = np.random.default_rng(0)
    plan = [rng.permutation(rows)[: 1 + i % 4] for i in range(40)]
    got = []
    for x, y in Loader(opened, rows, GPU, in_memory=in_memory).batches(plan):
        got.append((x, y))
        torch.cuda._sleep(SLOW)
        x.mul_(1)  # queued behind; batches are the caller's
    assert all(x.is_cuda and x.dtype == torch.float32 for x, _ in got)
    for wanted, (x, y) in zip(plan, got, strict=True):
        patches = opened.read(wanted)
        assert np.array_equal(x.cpu().numpy(), patches.x)
        assert np.array_equal(y.cpu().numpy(), patches.y)


@pytest.mark.parametrize("scale", [{"max": 10_000}, {"min": 1, "max": 10_000}, {"min": 0.1, "max": 0.7}])
@pytest.mark.parametrize("dtype", ["<u2", "<i2", "<f4"])
def test_values_are_scaled_there_as_on_the_host(scale: dict[str, float], dtype: str) -> None:
    bits = np.arange(2**16, dtype="<u2")
    stored = (bits.view(dtype) if dtype != "<f4" else bits.astype("<f4") / 7).reshape(1, 1, 256, 256)
    ranges = ranges_of(ScaleSpec.model_validate(scale), stored.dtype, ["a"], ["a"])
    got = Scale(stored.dtype, None, ranges, GPU)(torch.from_numpy(stored).to(GPU))
    assert got.is_cuda
    assert np.array_equal(got.cpu().numpy(), decode(stored, None, ranges))


def test_batches_that_are_dropped_do_not_mix(data: Path) -> None:
    opened = open_dataset(DataSpec(uri=str(data)), None)
    rows = np.arange(len(opened))
    plan = [np.roll(rows, i)[:6] for i in range(60)]
    sums = []
    for x, _ in Loader(opened, rows, GPU, in_memory=InMemory.NEVER).batches(plan):
        torch.cuda._sleep(SLOW // 4)
        sums.append(x.double().sum((1, 2, 3)))
        del x  # its memory is free for the copy of a later batch
    wanted = opened.read(rows).x.astype(np.float64).sum((1, 2, 3))
    for of_batch, found in zip(plan, sums, strict=True):
        assert np.allclose(found.cpu().numpy(), wanted[of_batch], rtol=1e-9)


@pytest.mark.parametrize("name", hp.AUGMENTATIONS)
def test_augmentation_happens_on_the_device(name: str) -> None:
    augment = compose([name], BINARY.ignore)
    x, y = batch_of(64)
    y = torch.where(y == 2, 2, (x[:, 0] > 0.5).to(torch.uint8))
    torch.manual_seed(5)
    new_x, new_y = augment(x, y)
    torch.manual_seed(5)
    again_x, again_y = augment(x, y)
    assert new_x.is_cuda
    assert new_y.is_cuda
    assert torch.equal(new_x, again_x)
    assert torch.equal(new_y, again_y)
    assert not torch.equal(new_x, x)
    assert 0 <= new_x.min() <= new_x.max() <= 1
    if torch.equal(new_y, y):
        ignored = (y == 2).unsqueeze(1).expand_as(x)
        assert torch.equal(new_x[ignored], x[ignored])
    else:
        seen = new_y != 2
        assert torch.equal((new_x[:, 0] > 0.5)[seen], new_y[seen] == 1), "masks move with images"


def test_halved_micro_batches_make_the_same_step() -> None:
    batch = batch_of(16, side=1024)
    plenty, model = make_step()
    wanted = [plenty([batch]).item() for _ in range(2)]
    halved, other = make_step(halve=True)
    torch.cuda.empty_cache()
    room = torch.cuda.memory_allocated() + 300 * 2**20
    torch.cuda.set_per_process_memory_fraction(room / torch.cuda.get_device_properties(0).total_memory)
    got = [halved([batch]).item() for _ in range(2)]
    assert halved.halvings >= 1
    assert got == pytest.approx(wanted, rel=1e-4)
    for a, b in zip(model.parameters(), other.parameters(), strict=True):
        assert torch.allclose(a, b, atol=1e-3)
    mine, theirs = plenty.metrics.confusion, halved.metrics.confusion
    assert sum(map(sum, mine)) == sum(map(sum, theirs)), "no pixel is counted twice"


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Patches of which a batch takes gigabytes of a model."""
    return write_dataset(tmp_path_factory.mktemp("large"), n=48, side=256)


def test_a_run_that_does_not_fit_is_out_of_memory(large: Path, tmp_path: Path, attempts: Attempts) -> None:
    model = {"model_encoder": "resnet18", "batch_size": 32}
    limit = 2**30 / torch.cuda.get_device_properties(0).total_memory
    torch.cuda.set_per_process_memory_fraction(limit)
    config = config_for(large, tmp_path / "a", hyperparameters=model, trainer={"maxEpochs": 1})
    text = failure(attempts.here(config), Exit.OUT_OF_MEMORY, FailureClass.OUT_OF_MEMORY)
    assert int(Exit.OUT_OF_MEMORY) == 71
    assert "lower batch_size" in text
    torch.cuda.empty_cache()
    halving = config_for(large, tmp_path / "b", hyperparameters=model, trainer={"maxEpochs": 1}).model_copy(
        update={"out_of_memory": OutOfMemoryPolicy.HALVE_BATCH}
    )
    got = result(attempts.here(halving))
    assert got.halvings >= 1
    assert got.steps == 1, "the effective batch stays"
    assert "for want of accelerator memory" in got.reason
    assert got.performance is not None
    assert (got.performance.peak_memory_bytes or 0) <= 2**30


def test_a_compiled_step_is_the_same_step() -> None:
    (plain, model), (compiled, other) = make_step(), make_step()
    try:
        compile_model(other, GPU)
    except Exception as error:  # noqa: BLE001 - the trainer's own refusal: tested on the CPU
        pytest.skip(str(error))
    losses = [[step([batch_of(8)]).item() for _ in range(3)] for step in (plain, compiled)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)
    assert losses[1][-1] < losses[1][0], "it learns"
    assert compiled.halvings == 0
    assert other.state_dict().keys() == model.state_dict().keys()
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] >= 1


def test_the_device_s_use_is_seen() -> None:
    watch = DeviceWatch(GPU, every=0.2)
    end = torch.cuda.Event()
    x = torch.rand(4096, 4096, device=GPU)
    for _ in range(20):
        for _ in range(40):
            x = (x @ x).softmax(0)
        end.record()
        end.synchronize()
    watch.close()
    if watch.utilisation is not None:  # a container may not be told
        assert 0 <= watch.utilisation <= 1
    assert watch.name == torch.cuda.get_device_name()
    assert (watch.peak_memory_bytes or 0) >= 2 * x.numel() * 4
