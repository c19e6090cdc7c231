"""The LightningModule that a run trains: one step a batch, and predictions that are counted.

Shapes: x (B, C, H, W) float32, y (B, H, W) uint8, logits (B, H, W) or (B, K, H, W).
"""

import copy
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from crossfold_trainer.data import DataSet
from crossfold_trainer.drawing import PartFigures
from crossfold_trainer.figures import Sample
from crossfold_trainer.graphs import MicroBatch
from crossfold_trainer.instances import InstanceMetrics
from crossfold_trainer.metrics import PixelMetrics
from crossfold_trainer.model import probabilities
from crossfold_trainer.progress import Progress
from crossfold_trainer.ranks import Ranks
from crossfold_trainer.schedules import make_scheduler, steps_per_epoch
from crossfold_trainer.segmentation.module import SegmentationModule, module_config
from crossfold_trainer.task import Task
from crossfold_trainer.trainee import Trainee
from crossfold_trainer.training.data import Share

Augment = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]


class Evaluated:
    """Counts the predictions for one part of the data set, and keeps the samples of it that are drawn."""

    def __init__(self, data: DataSet, figures: PartFigures, ranks: Ranks, *, objects: bool) -> None:
        """Nothing is counted yet.

        Args:
            data: which the patches are of.
            figures: knows which patches are drawn.
            ranks: those that evaluate together.
            objects: count objects, too.
        """
        self.figures = figures
        self.metrics = PixelMetrics(ranks.device(), data.labels, curves=True)
        self.instances = InstanceMetrics(data.labels) if objects else None
        self.samples: list[Sample] = []
        self._ranks = ranks

    def gather(self) -> None:
        """Count in what the other ranks have, which call this together; samples and objects reach the leader alone."""
        if self.instances is not None:
            for others in self._ranks.gather([self.instances.counts])[1:]:
                self.instances.add(others)
        self.metrics = of_all(self.metrics, self._ranks)
        self.samples = self._ranks.gather(self.samples)


class TrainingModule(SegmentationModule):
    """Trains by its own steps (manual optimisation): no library halves a micro-batch when memory does not suffice."""

    def __init__(self, task: Task, trainee: Trainee, progress: Progress, ranks: Ranks) -> None:
        """Take over what is trained.

        Args:
            task: the run.
            trainee: the model, its optimiser, loss and step.
            progress: where training is.
            ranks: those that train together.
        """
        super().__init__(module_config(task), trainee.model)
        self.automatic_optimization = False
        self.loss: Tensor | None = None
        """Of the latest step."""
        self.evaluated: Evaluated | None = None
        """Of the latest evaluation."""
        settings, values = task.config.trainer, task.hyperparameters
        self.steps_per_epoch = steps_per_epoch(settings, len(task.splits.train), values["batch_size"])
        self.schedule = make_scheduler(trainee.optimiser, settings, values, self.steps_per_epoch)
        self._task = task
        self._trainee = trainee
        self._progress = progress
        self._ranks = ranks
        self._val_figures = PartFigures(task.splits.val, task.data)
        self._test_figures = PartFigures(task.splits.test, task.data)
        self.augment: Augment = _no_augmentation
        if task.hyperparameters["augment"]:
            from crossfold_trainer.transforms import compose  # noqa: PLC0415 - only where wanted

            self.augment = compose(task.hyperparameters["augment"], task.data.labels.ignore)

    def configure_optimizers(self) -> Any:
        """The optimiser and the schedule of its rate, whose states are in checkpoints."""
        schedule = {"scheduler": self.schedule.scheduler, "interval": self.schedule.interval}
        return [self._trainee.optimiser], [schedule]

    def training_step(self, batch: list[MicroBatch]) -> None:
        """Train on one batch, given as this rank's shares of its micro-batches."""
        # Every draw of a step depends on (seed, step) and the rank alone: a resumed run draws the same.
        torch.manual_seed(step_seed(self._task.config.seed, self._progress.step, self._ranks.rank))
        augmented = [self.augment(x, y) for x, y in batch]
        optimizer: Any = self.optimizers()
        self.loss = optimizer.step(closure=partial(self._trainee.step, augmented))
        self.schedule.end_of("step")

    def on_validation_epoch_start(self) -> None:
        """Nothing is counted yet."""
        self.evaluated = Evaluated(self._task.data, self._val_figures, self._ranks, objects=False)

    def validation_step(self, batch: Share) -> None:
        """Predict this rank's share of a batch, and count."""
        self._count(batch)

    def on_validation_epoch_end(self) -> None:
        """Count in the other ranks' shares."""
        assert self.evaluated is not None  # noqa: S101 -- made at the start
        self.evaluated.gather()

    def on_test_epoch_start(self) -> None:
        """Nothing is counted yet."""
        self.evaluated = Evaluated(self._task.data, self._test_figures, self._ranks, objects=True)

    def test_step(self, batch: Share) -> None:
        """Predict this rank's share of a batch, and count."""
        self._count(batch)

    def on_test_epoch_end(self) -> None:
        """Count in the other ranks' shares."""
        assert self.evaluated is not None  # noqa: S101 -- made at the start
        self.evaluated.gather()

    def _count(self, batch: Share) -> None:
        assert self.evaluated is not None  # noqa: S101 -- made at the start
        step = self._trainee.step
        if batch.x is None or batch.y is None:
            if self._trainee.sharded:
                step.predict(blank_patch(self._task.data, self._trainee.device), batch.least)  # others wait for shards
            return
        logits = step.predict(batch.x, batch.least)
        probability = probabilities(logits)
        evaluated = self.evaluated
        evaluated.metrics.update(probability, batch.y, self._trainee.criterion(logits, batch.y))
        evaluated.samples += evaluated.figures.samples(batch.rows, batch.x, batch.y, probability)
        if evaluated.instances is not None:
            evaluated.instances.update(probability, batch.y)


def of_all(metrics: PixelMetrics, ranks: Ranks) -> PixelMetrics:
    """The metrics of all ranks, which call this together; the given ones go on counting this rank's own."""
    if ranks.size == 1:
        return metrics
    whole = copy.deepcopy(metrics)
    whole.add_up(ranks.add)
    return whole


def step_seed(seed: int, step: int, rank: int = 0) -> int:
    """What a step's draws are seeded with.

    Args:
        seed: of the run.
        step: optimiser steps done.
        rank: of this process.
    """
    parts = [seed, step, rank] if rank else [seed, step]
    return int(np.random.SeedSequence(parts).generate_state(1, np.uint64)[0])


def blank_patch(data: DataSet, device: torch.device) -> Tensor:
    """(1, C, H, W): a batch that says nothing, for a model that must be called."""
    return torch.zeros(1, len(data.bands), *data.shape, device=device)


def _no_augmentation(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    return x, y
