"""Steps of an epoch, and the learning rate as one of PyTorch's schedulers, whose state goes into checkpoints."""

from collections.abc import Mapping
from typing import Any, Literal, NamedTuple, assert_never

from torch.optim import Optimizer
from torch.optim.lr_scheduler import CosineAnnealingLR, ExponentialLR, LRScheduler, OneCycleLR

from crossfold_trainer.contract.trainer import Scheduler, TrainerSpec


class Schedule(NamedTuple):
    """A scheduler, and how often it is stepped; the same two keys as in Lightning's ``lr_scheduler`` dictionary."""

    scheduler: LRScheduler
    interval: Literal["step", "epoch"]

    @property
    def learning_rate(self) -> float:
        """Of the next optimiser step."""
        return float(self.scheduler.get_last_lr()[0])

    def end_of(self, interval: Literal["step", "epoch"]) -> None:
        """Step the scheduler where an optimiser step or an epoch has just ended, and that is its interval."""
        if interval == self.interval:
            self.scheduler.step()


def steps_per_epoch(settings: TrainerSpec, patches: int, batch_size: int) -> int:
    """Optimiser steps of an epoch.

    Args:
        settings: how many micro-batches make a step, and how many are trained on at most.
        patches: to train on.
        batch_size: of a micro-batch.
    """
    per_step, limit = settings.accumulate_grad_batches, settings.limit_train_batches
    steps = patches // (batch_size * per_step)
    return steps if limit is None else min(steps, max(1, limit // per_step))


def make_scheduler(
    optimizer: Optimizer, settings: TrainerSpec, hyperparameters: Mapping[str, Any], steps_per_epoch: int
) -> Schedule:
    """The schedule of trainer.scheduler. Sets the rate of the first step; make it before a state is loaded.

    Exponential is ``ExponentialLR`` with gamma and Cosine is ``CosineAnnealingLR`` over all epochs, both stepped by
    epoch. OneCycle is ``OneCycleLR`` over all steps, from 1/25 of the rate up in the first 30 % of them and down to
    1/250,000; it is stepped by optimiser step and leaves momentum as it is.

    Args:
        optimizer: created with the hyperparameter learning_rate.
        settings: trainer.scheduler and trainer.maxEpochs.
        hyperparameters: learning_rate, and gamma (of Exponential alone).
        steps_per_epoch: optimiser steps.

    Returns:
        The scheduler and its interval. Its ``state_dict`` holds plain values only.
    """
    match settings.scheduler:
        case Scheduler.EXPONENTIAL:
            return Schedule(ExponentialLR(optimizer, hyperparameters["gamma"]), "epoch")
        case Scheduler.COSINE:
            return Schedule(CosineAnnealingLR(optimizer, settings.max_epochs), "epoch")
        case Scheduler.ONE_CYCLE:
            total = settings.max_epochs * steps_per_epoch
            return Schedule(_OneCycle(optimizer, hyperparameters["learning_rate"], total), "step")
        case _:
            assert_never(settings.scheduler)


class _OneCycle(OneCycleLR):
    """Stays at its last rate after the last step, where PyTorch's rises again and then raises."""

    def __init__(self, optimizer: Optimizer, max_lr: float, total_steps: int) -> None:
        super().__init__(optimizer, max_lr, total_steps=total_steps, cycle_momentum=False)

    def step(self, epoch: int | None = None) -> None:
        if self.last_epoch < self.total_steps - 1:
            super().step(epoch)
