"""Memory that does not suffice: halved micro-batches compute the same step, or the run says that it cannot go on."""

import copy

import pytest
import torch
from torch import Tensor, nn

from crossfold_trainer.contract import hyperparameters as hp
from crossfold_trainer.contract.trainer import Precision, TrainerSpec
from crossfold_trainer.errors import AcceleratorOutOfMemory, ConfigError, MicroBatchTooLarge, PeersLost
from crossfold_trainer.faults import explained, meaning_of
from crossfold_trainer.labels import BINARY
from crossfold_trainer.losses import make_criterion
from crossfold_trainer.metrics import PixelMetrics
from crossfold_trainer.precision import numerics
from crossfold_trainer.ranks import Ranks
from crossfold_trainer.step import MicroBatch, TrainStep

CPU = torch.device("cpu")


class Small(nn.Module):
    """A model on a device that holds `room` patches; memory ends in the middle of a forward pass."""

    def __init__(self, room: int, *, statistics: bool) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first = nn.Conv2d(3, 4, 3, padding=1)
        self.norm = nn.BatchNorm2d(4) if statistics else nn.Identity()
        self.last = nn.Conv2d(4, 1, 1)
        self.room = room
        self.refused = 0
        self.patches = 0

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.norm(self.first(x)).relu()
        self.patches += len(x)
        # Room for one micro-batch of the first turn, so that gradients and counts of it are there when memory ends.
        if len(x) > self.room and self.patches > len(x):
            self.refused += 1
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB\nGPU 0 has ...")
        logits: Tensor = self.last(hidden)
        return logits[:, 0]


def batch_of(n: int) -> MicroBatch:
    generator = torch.Generator().manual_seed(1)
    y = torch.randint(2, (n, 8, 8), generator=generator).to(torch.uint8)
    y[n // 2 :, :, 1:] = 2
    return torch.rand(n, 3, 8, 8, generator=generator), y


def make_step(room: int, *, halve: bool = True, statistics: bool = False) -> tuple[TrainStep, Small]:
    model = Small(room, statistics=statistics)
    optimiser = torch.optim.AdamW(model.parameters(), lr=1e-2, fused=True)
    criterion = make_criterion(TrainerSpec(), hp.resolve({}), BINARY)
    step = TrainStep(model, optimiser, criterion, numerics(Precision.FP32, CPU), halve=halve)
    step.metrics = PixelMetrics(CPU, BINARY, curves=False)
    return step, model


def two(n: int) -> list[MicroBatch]:
    return [batch_of(n), batch_of(n)]


@pytest.mark.parametrize(("room", "halvings"), [(8, 0), (4, 1), (3, 2), (1, 3)])
def test_halved_micro_batches_make_the_same_step(room: int, halvings: int) -> None:
    plenty, model = make_step(100)
    little, other = make_step(room)
    for _ in range(3):
        assert torch.allclose(plenty(two(8)), little(two(8)), rtol=1e-5)
    assert (little.halvings, other.refused) == (halvings, halvings)
    for a, b in zip(model.parameters(), other.parameters(), strict=True):
        assert torch.allclose(a, b, atol=1e-5)
    # Nothing of the steps that were begun again is counted twice.
    assert plenty.metrics.compute() == pytest.approx(little.metrics.compute(), rel=1e-5)


def test_batch_statistics_of_a_step_that_is_begun_again_do_not_count() -> None:
    little, model = make_step(2, statistics=True)
    before, seen = copy.deepcopy(model.norm), model.first(batch_of(4)[0])
    little(two(4))
    assert isinstance(model.norm, nn.BatchNorm2d)
    assert model.norm.num_batches_tracked == 4
    assert isinstance(before, nn.BatchNorm2d)
    for _ in range(2):
        for part in seen.split(2):
            before(part)
    assert torch.allclose(model.norm.running_mean, before.running_mean, atol=1e-6)  # type: ignore[arg-type]


def test_validation_is_halved_too() -> None:
    step, model = make_step(2)
    model.patches = 1
    x, _ = batch_of(8)
    with torch.inference_mode():
        logits = step.predict(x)
    assert step.halvings == 2
    model.room = 100
    assert torch.allclose(logits, model(x), atol=1e-6)
    step(two(8))  # what was made in there hinders no later step


def test_without_the_policy_the_error_stays() -> None:
    step, _ = make_step(4, halve=False)
    with pytest.raises(torch.OutOfMemoryError):
        step(two(8))
    assert step.halvings == 0


def test_one_of_several_ranks_has_all_of_them_begin_again() -> None:
    model = Small(2, statistics=False)
    criterion = make_criterion(TrainerSpec(), hp.resolve({}), BINARY)
    optimiser = torch.optim.SGD(model.parameters(), lr=0.1)
    step = TrainStep(model, optimiser, criterion, numerics(Precision.FP32, CPU), halve=True, ranks=Ranks(0, 2), share=4)
    step.metrics = PixelMetrics(CPU, BINARY, curves=False)
    model.patches = 1
    with torch.no_grad():
        for halvings in (1, 2):
            with pytest.raises(MicroBatchTooLarge, match="CUDA out of memory") as caught:
                step.predict(batch_of(5)[0], 4)
            assert caught.value.halvings == halvings
            step.halvings = halvings
        # As many parts as on the rank with the fewest patches.
        assert len(step.predict(batch_of(5)[0], 4)) == 5
        model.room = 1
        with pytest.raises(AcceleratorOutOfMemory, match="one patch at a time") as end:
            step.predict(batch_of(5)[0], 4)
    assert not isinstance(end.value, MicroBatchTooLarge)


def test_one_patch_that_does_not_fit_is_the_end() -> None:
    step, model = make_step(0)
    with pytest.raises(AcceleratorOutOfMemory, match=r"one patch at a time is too much: CUDA out of memory.*GiB$"):
        step(two(4))
    assert model.refused == 3


def test_too_small_for_batch_normalisation_is_a_matter_of_memory_once_halved() -> None:
    step, model = make_step(1, statistics=True)
    model.patches = 1
    x, y = torch.rand(2, 3, 1, 1), torch.ones(2, 1, 1, dtype=torch.uint8)
    with pytest.raises(AcceleratorOutOfMemory, match="micro-batches of 1 are too small for batch normalisation"):
        step([(x, y)])


@pytest.mark.parametrize(
    ("error", "kind", "words"),
    [
        (torch.OutOfMemoryError("CUDA out of memory.\nGPU 0"), AcceleratorOutOfMemory, "CUDA out of memory."),
        (RuntimeError("CUDA error: out of memory\nCUDA kernel errors"), AcceleratorOutOfMemory, "CUDA error"),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling"), AcceleratorOutOfMemory, "CUBLAS"),
        (RuntimeError("foo does not have a deterministic implementation, but"), ConfigError, "foo has no"),
        (RuntimeError("[../gloo/transport/tcp/pair.cc:561] Connection closed by peer"), PeersLost, "another process"),
        (torch.distributed.DistBackendError("NCCL error: remote process exited"), PeersLost, "NCCL error"),  # type: ignore[attr-defined]
        (ValueError("Expected more than 1 value per channel when training"), ConfigError, r"raise batch_size \(4\)"),
    ],
)
def test_what_errors_mean(error: Exception, kind: type[Exception], words: str) -> None:
    with pytest.raises(kind, match=words), explained(4):
        raise error


@pytest.mark.parametrize(
    "error", [RuntimeError("CUDA error: an illegal memory access"), ValueError("x"), RuntimeError()]
)
def test_anything_else_is_a_crash(error: Exception) -> None:
    assert meaning_of(error, 4) is None
    with pytest.raises(type(error)) as caught, explained(4):
        raise error
    assert caught.value is error
