"""One optimiser step: what cutting a batch changes (nothing), what it reads back from the device (nothing)."""

import math
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from crossfold_trainer.contract import hyperparameters as hp
from crossfold_trainer.contract.trainer import Loss, Precision, TrainerSpec
from crossfold_trainer.labels import BINARY, Labels
from crossfold_trainer.losses import make_criterion
from crossfold_trainer.metrics import PixelMetrics
from crossfold_trainer.precision import numerics
from crossfold_trainer.step import LossReader, MicroBatch, TrainStep

CPU = torch.device("cpu")


class Pointwise(nn.Module):
    """A model without batch statistics: what one sample gives depends on no other."""

    def __init__(self, outputs: int = 1) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layers = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, outputs, 1))

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.layers(x)
        return logits[:, 0] if logits.shape[1] == 1 else logits


def batch_of(n: int) -> MicroBatch:
    """Patches whose shares of ignored pixels differ much: the second half has a tenth of the others' valid pixels."""
    generator = torch.Generator().manual_seed(1)
    x = torch.rand(n, 3, 8, 8, generator=generator)
    y = torch.randint(2, (n, 8, 8), generator=generator).to(torch.uint8)
    y[n // 2 :, :, 1:] = 2
    return x, y


def make_step(
    precision: Precision = Precision.FP32, labels: Labels = BINARY, **settings: Any
) -> tuple[TrainStep, Pointwise]:
    model = Pointwise(labels.outputs)
    optimiser = torch.optim.AdamW(model.parameters(), lr=1e-2, fused=True)
    trainer = TrainerSpec.model_validate(settings)
    criterion = make_criterion(trainer, hp.resolve({}), labels)
    step = TrainStep(model, optimiser, criterion, numerics(precision, CPU), trainer.gradient_clip)
    step.metrics = PixelMetrics(CPU, labels, curves=False)
    return step, model


def cut(batch: MicroBatch, sizes: Sequence[int]) -> list[MicroBatch]:
    x, y = batch
    return list(zip(x.split(list(sizes)), y.split(list(sizes)), strict=True))


@pytest.mark.parametrize("sizes", [[4, 4], [2, 2, 2, 2], [3, 5], [1] * 8])
def test_how_a_batch_is_cut_changes_neither_loss_nor_weights_nor_metrics(sizes: list[int]) -> None:
    whole, model = make_step()
    parts, other = make_step()
    for _ in range(3):
        one, same = whole([batch_of(8)]), parts(cut(batch_of(8), sizes))
        assert torch.allclose(one, same, rtol=1e-5)
    for a, b in zip(model.parameters(), other.parameters(), strict=True):
        assert torch.allclose(a, b, atol=1e-5)
    assert whole.metrics.compute() == pytest.approx(parts.metrics.compute(), rel=1e-5)


def test_a_batch_without_a_valid_pixel_has_loss_and_gradient_zero() -> None:
    step, model = make_step()
    x, y = batch_of(4)
    assert step([(x, torch.full_like(y, 2))]).item() == 0
    assert all(p.grad is not None and not p.grad.any() for p in model.parameters())
    step([(x, torch.full_like(y, 2)), (x, y)])
    assert all(p.isfinite().all() for p in model.parameters())


class NoReading(TorchDispatchMode):
    """Fails at whatever a device would have to be waited for."""

    WAITS = ("_local_scalar_dense", "nonzero", "is_nonzero", "item", "_is_all_true", "bincount", "masked_select")

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket.__name__
        assert name not in self.WAITS, f"the step reads a number back: {name}"
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("labels", [BINARY, Labels(("a", "b", "c"), ignore=2, binary=False)], ids=["binary", "classes"])
@pytest.mark.parametrize(
    ("precision", "loss"),
    [(Precision.FP32, loss) for loss in Loss if loss is not Loss.SUM] + [(Precision.BF16_MIXED, Loss.FOCAL)],
)
def test_a_step_reads_nothing_back(precision: Precision, loss: Loss, labels: Labels) -> None:
    step, _ = make_step(precision, labels, loss=loss, gradientClip=1)
    batch = cut(batch_of(8), [4, 4])
    step(batch)  # the optimiser's state is made
    losses = LossReader(CPU)
    with NoReading():
        loss = step(batch)
        losses.watch(1, loss)
        losses.send(1, loss)
        with pytest.raises(AssertionError, match="reads a number back"):
            loss.item()
    assert [reading.step for reading in losses.arrived()] == [1]


def test_a_clipped_gradient_has_the_norm_of_the_limit() -> None:
    step, model = make_step(gradientClip=1e-3)
    free, other = make_step()
    for one in (step, free):
        one([batch_of(8)])
    norms = [
        torch.stack([p.grad.norm() for p in m.parameters() if p.grad is not None]).norm().item() for m in (model, other)
    ]
    assert norms[0] == pytest.approx(1e-3, rel=1e-3)
    assert norms[1] > 1e-2


def test_mixed_precision_computes_in_its_type_and_keeps_weights_in_float32() -> None:
    step, model = make_step(Precision.BF16_MIXED)
    seen: list[torch.dtype] = []
    model.layers[0].register_forward_hook(lambda _m, _i, out: seen.append(out.dtype))
    step([batch_of(4)])
    assert seen == [torch.bfloat16]
    assert {p.dtype for p in model.parameters()} == {torch.float32}


def test_the_first_loss_that_is_no_number_is_found_whichever_losses_are_sent() -> None:
    losses = LossReader(CPU)
    for step, value in enumerate([0.5, 0.25, math.inf, math.nan, 0.5], start=1):
        losses.watch(step, torch.tensor(value))
        if step in (1, 5):
            losses.send(step, torch.tensor(value))
    assert list(losses.arrived()) == [(1, 0.5), (5, 0.5)]
    assert losses.bad == (3, math.inf)


def test_at_the_end_every_step_is_known() -> None:
    losses = LossReader(CPU)
    losses.watch(1, torch.tensor(0.5))
    losses.send(1, torch.tensor(0.5))
    losses.watch(2, torch.tensor(math.nan))
    assert list(losses.finish()) == [(1, 0.5)]
    assert losses.bad is not None
    assert losses.bad.step == 2
