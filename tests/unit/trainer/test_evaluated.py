"""Evaluations by themselves: what is counted and drawn, and what a rank without patches does."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from crossfold_trainer.contract import hyperparameters as hp
from crossfold_trainer.data import open_dataset
from crossfold_trainer.loader import Loader, ordered_batches
from crossfold_trainer.progress import Progress
from crossfold_trainer.ranks import Ranks
from crossfold_trainer.splits import Splits
from crossfold_trainer.task import Task
from crossfold_trainer.trainee import make_trainee
from crossfold_trainer.training.data import OrderedBatches
from crossfold_trainer.training.module import Evaluated, TrainingModule
from tests.trainer_data import run_config, write_dataset

CPU = torch.device("cpu")
ROWS = np.arange(2, 12)


class Alone(Ranks):
    """The last of two ranks, whose sums, flags and samples are its own."""

    def __init__(self) -> None:
        super().__init__(1, 2)

    def add(self, tensor: Tensor) -> Tensor:
        return tensor

    def gather(self, items: list) -> list:
        return items


class Bright:
    """Says yes where a patch is bright; remembers what it was asked."""

    def __init__(self) -> None:
        self.asked: list[tuple[int, int]] = []

    def __call__(self, x: Tensor, least: int) -> Tensor:
        self.asked.append((len(x), least))
        return 100 * (x.mean(1) - 0.4)


@pytest.fixture
def task(tmp_path: Path) -> Task:
    config = run_config(write_dataset(tmp_path / "d", n=12), tmp_path / "a")
    values = hp.resolve(config.hyperparameters)
    return Task(config, values, open_dataset(config.data, None), Splits(np.arange(2), ROWS, ROWS))


def evaluated(
    task: Task, predict: Bright, rows: np.ndarray, *, ranks: Ranks, size: int, sharded: bool = False
) -> Evaluated:
    """A test of these rows, without a Trainer."""
    trainee = replace(make_trainee(task, Ranks()), sharded=sharded)
    trainee.step.predict = predict  # type: ignore[method-assign]
    module = TrainingModule(task, trainee, Progress(), ranks)
    module.on_test_epoch_start()
    with torch.inference_mode():
        for share in OrderedBatches(Loader(task.data, rows, CPU), ordered_batches(rows, size), ranks):
            module.test_step(share)
    module.on_test_epoch_end()
    assert module.evaluated is not None
    return module.evaluated


def test_all_patches_are_counted_once_and_the_chosen_ones_drawn(task: Task) -> None:
    predict = Bright()
    found = evaluated(task, predict, ROWS, ranks=Ranks(), size=4)
    assert predict.asked == [(4, 4), (4, 4), (2, 2)]
    (tn, fp), (fn, tp) = found.metrics.confusion
    y = task.data.read(ROWS).y
    assert (tp, tn, fp, fn) == ((y == 1).sum(), (y == 0).sum(), 0, 0)
    assert found.instances is not None
    assert found.instances.compute()["InstanceF1Score"] == 1.0
    assert [sample.row for sample in found.samples] == ROWS.tolist()
    assert all(np.array_equal(sample.answer == 1, sample.label == 1) for sample in found.samples)


@pytest.mark.parametrize(("sharded", "asked"), [(True, [(1, 1), (1, 0)]), (False, [(1, 1)])])
def test_a_rank_without_patches_computes_where_others_wait_for_its_shards(
    task: Task, sharded: bool, asked: list[tuple[int, int]]
) -> None:
    predict, rows = Bright(), ROWS[:3]
    found = evaluated(task, predict, rows, ranks=Alone(), size=2, sharded=sharded)
    assert predict.asked == asked
    assert sum(map(sum, found.metrics.confusion)) == (task.data.read(rows[1:2]).y != 2).sum()
    assert [sample.row for sample in found.samples] == [rows[1]]
