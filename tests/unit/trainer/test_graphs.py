"""When steps are recorded, and what a recording is used for; that it computes the same is tested on a GPU."""

from collections.abc import Sequence

import pytest
import torch
from torch import Tensor

from crossfold_trainer import graphs
from crossfold_trainer.graphs import MicroBatch, StepGraph


class Recording:
    """Stands for a recorded step where there is no GPU."""

    def __init__(self, bare: graphs.Step, optimiser: torch.optim.Optimizer, batch: Sequence[MicroBatch]) -> None:
        self.of = bare(batch)

    def replay(self, batch: Sequence[MicroBatch]) -> Tensor:
        return self.of + 100


class World:
    """A step that gives the number of patches, of a model whose situation may change."""

    def __init__(self) -> None:
        parameter = torch.nn.Parameter(torch.zeros(1))
        self.situation = 0
        self.graph = StepGraph(
            lambda batch: torch.tensor(float(sum(len(x) for x, _ in batch))),
            self.bare,
            torch.optim.AdamW([parameter], fused=True),
            lambda: self.situation,
        )
        self.fails = ""

    def bare(self, batch: Sequence[MicroBatch]) -> Tensor:
        if self.fails:
            raise RuntimeError(self.fails)
        return torch.tensor(0.0)

    def step(self, *sizes: int) -> float:
        return self.graph([(torch.zeros(n, 3, 4, 4), torch.zeros(n, 4, 4)) for n in sizes]).item()


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> World:
    monkeypatch.setattr(graphs, "_Recording", Recording)
    return World()


def test_a_step_is_recorded_after_some_of_its_shapes(world: World) -> None:
    assert [world.step(2) for _ in range(5)] == [2, 2, 2, 100, 100]


def test_other_shapes_in_between_are_done_by_themselves(world: World) -> None:
    assert [world.step(*sizes) for sizes in ((2,), (2,), (3,), (2,), (2, 2), (2,))] == [2, 2, 3, 2, 4, 2]
    assert [world.step(2), world.step(2), world.step(2)] == [2, 2, 100]
    assert [world.step(3), world.step(2), world.step(2, 2), world.step(2)] == [3, 100, 4, 100]


def test_a_recording_is_dropped_when_its_situation_has_changed(world: World) -> None:
    assert [world.step(2) for _ in range(4)][-1] == 100
    world.situation = 1  # micro-batches were halved
    assert [world.step(2) for _ in range(4)] == [2, 2, 2, 100]


def test_what_cannot_be_recorded_is_not_tried_again(world: World, caplog: pytest.LogCaptureFixture) -> None:
    world.fails = "CUDA out of memory. Tried to\nallocate"
    assert [world.step(2) for _ in range(6)] == [2] * 6
    assert [record.getMessage() for record in caplog.records] == [
        "steps cannot be recorded, each operation is launched by itself: CUDA out of memory. Tried to"
    ]
