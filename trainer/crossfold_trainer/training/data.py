"""The LightningDataModule of a run: train batches from where training is, validation and test batches in order.

Shapes: x (B, C, H, W) float32, y (B, H, W) uint8.
"""

from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Any, NamedTuple

import numpy as np
import torch
from lightning.pytorch import LightningDataModule
from torch import Tensor

from crossfold_trainer.graphs import MicroBatch
from crossfold_trainer.loader import Loader, epoch_batches, ordered_batches
from crossfold_trainer.meter import Meter
from crossfold_trainer.progress import Progress
from crossfold_trainer.ranks import Ranks
from crossfold_trainer.schedules import steps_per_epoch
from crossfold_trainer.splits import Index
from crossfold_trainer.task import Task


class Share(NamedTuple):
    """A rank's part of a batch to be predicted."""

    rows: Index
    """Of the data set; none where there are fewer patches than ranks."""
    x: Tensor | None
    y: Tensor | None
    least: int
    """Patches of the batch that each rank has at least."""


class TrainBatches:
    """The micro-batches of each step, in an order that (seed, epoch) alone decides.

    An iteration begins where training is when the first batch is asked for: the position is the progress', and a
    checkpoint holds it.
    """

    def __init__(self, task: Task, loader: Loader, progress: Progress, meter: Meter, ranks: Ranks) -> None:
        """Read nothing yet.

        Args:
            task: the run.
            loader: reads the patches.
            progress: where training is.
            meter: counts patches, and the time that they are waited for.
            ranks: those that share every batch.
        """
        self._task = task
        self._loader = loader
        self._progress = progress
        self._meter = meter
        self._ranks = ranks

    def __len__(self) -> int:
        """Steps of an epoch."""
        values = self._task.hyperparameters
        return steps_per_epoch(self._task.config.trainer, len(self._task.splits.train), values["batch_size"])

    def __iter__(self) -> Iterator[list[MicroBatch]]:
        """The batches of the epoch under way that are not trained on yet."""
        config, size, progress = self._task.config, self._task.hyperparameters["batch_size"], self._progress
        per_step = config.trainer.accumulate_grad_batches
        # A batch of several micro-batches is drawn as a whole: how it is cut does not change which patches it has.
        batches = epoch_batches(self._task.splits.train, size * per_step, config.seed, progress.epoch)
        rest = batches[progress.batch : len(self)]
        micro = [self._ranks.share(part) for batch in rest for part in np.array_split(batch, per_step)]
        loader = self._loader
        loaded = self._meter.batches(loader.batches(micro), lambda: loader.waited)
        for left in reversed(range(len(rest))):
            batch = list(islice(loaded, per_step))
            if not left:  # nobody asks for more than there is: what was read into is free for the validation
                loaded.close()
            yield batch

    def state_dict(self) -> dict[str, Any]:
        """Nothing: the progress has the position. That there is one tells Lightning that iterations can go on."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """See ``state_dict``."""


class OrderedBatches:
    """Every patch of a part once, in order: this rank's share of each batch."""

    def __init__(self, loader: Loader, batches: Sequence[Index], ranks: Ranks) -> None:
        """Read nothing yet."""
        self._loader = loader
        self._batches = batches
        self._ranks = ranks

    def __len__(self) -> int:
        """Batches, of all ranks together."""
        return len(self._batches)

    def __iter__(self) -> Iterator[Share]:
        """This rank's rows, x and y of each batch."""
        shares = [self._ranks.share(rows) for rows in self._batches]
        loaded = self._loader.batches([rows for rows in shares if len(rows)])
        for left, batch, rows in zip(reversed(range(len(shares))), self._batches, shares, strict=True):
            x, y = next(loaded) if len(rows) else (None, None)
            if not left:
                loaded.close()
            yield Share(rows, x, y, self._ranks.least(len(batch)))


class PatchDataModule(LightningDataModule):
    """The patches of one run, on the device of this rank."""

    def __init__(self, task: Task, device: torch.device, progress: Progress, meter: Meter, ranks: Ranks) -> None:
        """Prepare to read what is trained on and validated with; reads all of it when it fits in memory.

        Args:
            task: the run.
            device: where batches go.
            progress: where training is.
            meter: counts patches, and the time that they are waited for.
            ranks: those that share every batch.

        Raises:
            ConfigError: the patches are to be kept in memory and do not fit.
        """
        super().__init__()
        self._task = task
        self._device = device
        self._progress = progress
        self._meter = meter
        self._ranks = ranks
        splits, settings = task.splits, task.config.trainer
        rows = np.union1d(splits.train, splits.val)
        self._loader: Loader | None = Loader(
            task.data, rows, device, settings.num_workers, settings.in_memory, processes=ranks.local_size
        )

    @property
    def loader(self) -> Loader:
        """Reads what is trained on and validated with, until the test part is read."""
        assert self._loader is not None  # noqa: S101 -- the test comes last
        return self._loader

    def train_dataloader(self) -> TrainBatches:
        """The micro-batches of each step."""
        return TrainBatches(self._task, self.loader, self._progress, self._meter, self._ranks)

    def val_dataloader(self) -> OrderedBatches:
        """The validation part."""
        batches = ordered_batches(self._task.splits.val, self._task.hyperparameters["batch_size"])
        return OrderedBatches(self.loader, batches[: self._task.config.trainer.limit_val_batches], self._ranks)

    def test_dataloader(self) -> OrderedBatches:
        """The test part. What was kept in memory of the others is let go."""
        self._loader = None
        rows, settings = self._task.splits.test, self._task.config.trainer
        loader = Loader(self._task.data, rows, self._device, settings.num_workers, processes=self._ranks.local_size)
        return OrderedBatches(loader, ordered_batches(rows, self._task.hyperparameters["batch_size"]), self._ranks)
