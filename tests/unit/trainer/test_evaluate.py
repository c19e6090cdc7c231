"""Evaluations by themselves: what is counted and drawn, when they end early, what a rank without patches does."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from crossfold_trainer.contract import hyperparameters as hp
from crossfold_trainer.contract.data import DataSpec
from crossfold_trainer.contract.trainer import TrainerSpec
from crossfold_trainer.data import DataSet, open_dataset
from crossfold_trainer.drawing import PartFigures
from crossfold_trainer.evaluate import Evaluation
from crossfold_trainer.instances import InstanceMetrics
from crossfold_trainer.interrupt import Interrupt, Stop
from crossfold_trainer.labels import BINARY
from crossfold_trainer.loader import Loader, ordered_batches
from crossfold_trainer.losses import make_criterion
from crossfold_trainer.ranks import Ranks
from tests.trainer_data import write_dataset

CPU = torch.device("cpu")
ROWS = np.arange(2, 12)


class Alone(Ranks):
    """The last of two ranks, whose sums, flags and samples are its own."""

    def __init__(self) -> None:
        super().__init__(1, 2)

    def add(self, tensor: Tensor) -> Tensor:
        return tensor

    def any(self, *flags: bool) -> list[bool]:
        return list(flags)

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
def data(tmp_path: Path) -> DataSet:
    return open_dataset(DataSpec(uri=str(write_dataset(tmp_path / "d", n=12))), None)


def evaluation(
    data: DataSet, predict: Bright, *, ranks: Ranks, interrupt: Interrupt, sharded: bool = False
) -> Evaluation:
    criterion = make_criterion(TrainerSpec(), hp.resolve({}), BINARY)
    return Evaluation(nn.Identity(), predict, criterion, data, ranks=ranks, interrupt=interrupt, sharded=sharded)


def test_all_patches_are_counted_once_and_the_chosen_ones_drawn(data: DataSet) -> None:
    predict, instances = Bright(), InstanceMetrics(BINARY)
    measured = evaluation(data, predict, ranks=Ranks(), interrupt=Interrupt()).measure(
        Loader(data, ROWS, CPU), ordered_batches(ROWS, 4), PartFigures(ROWS, data), instances
    )
    assert predict.asked == [(4, 4), (4, 4), (2, 2)]
    (tn, fp), (fn, tp) = measured.metrics.confusion
    y = data.read(ROWS).y
    assert (tp, tn, fp, fn) == ((y == 1).sum(), (y == 0).sum(), 0, 0)
    assert instances.compute()["InstanceF1Score"] == 1.0
    assert [sample.row for sample in measured.samples] == ROWS.tolist()
    assert all(np.array_equal(sample.answer == 1, sample.label == 1) for sample in measured.samples)


def test_it_ends_after_the_batch_in_which_the_end_is_asked_for(data: DataSet) -> None:
    predict, interrupt = Bright(), Interrupt()
    interrupt.request()
    with pytest.raises(Stop):
        evaluation(data, predict, ranks=Ranks(), interrupt=interrupt).measure(
            Loader(data, ROWS, CPU), ordered_batches(ROWS, 4), PartFigures(ROWS, data)
        )
    assert len(predict.asked) == 1
    assert not torch.is_inference_mode_enabled()


@pytest.mark.parametrize(("sharded", "asked"), [(True, [(1, 1), (1, 0)]), (False, [(1, 1)])])
def test_a_rank_without_patches_computes_where_others_wait_for_its_shards(
    data: DataSet, sharded: bool, asked: list[tuple[int, int]]
) -> None:
    predict, rows = Bright(), ROWS[:3]
    measured = evaluation(data, predict, ranks=Alone(), interrupt=Interrupt(), sharded=sharded).measure(
        Loader(data, rows, CPU), ordered_batches(rows, 2), PartFigures(rows, data)
    )
    assert predict.asked == asked
    assert sum(map(sum, measured.metrics.confusion)) == (data.read(rows[1:2]).y != 2).sum()
    assert [sample.row for sample in measured.samples] == [rows[1]]
