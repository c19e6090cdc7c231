"""Steps of an epoch, and the learning rate as a function of where training is: nothing to save, nothing to restore."""

import math
from typing import NamedTuple, assert_never

from crossfold_trainer.contract.trainer import Scheduler, TrainerSpec

RISE = 0.3
"""Share of a one-cycle schedule in which the rate rises."""
START_DIVISOR = 25.0
"""One-cycle: the peak over the first rate."""
END_DIVISOR = 1e4
"""One-cycle: the first rate over the last."""


class Position(NamedTuple):
    """Where training is."""

    epoch: int
    """The epoch under way, from 0."""
    step: int
    """Optimiser steps done."""
    epochs: int
    """trainer.maxEpochs."""
    steps: int
    """Optimiser steps of all these epochs."""


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


def learning_rate(scheduler: Scheduler, base: float, gamma: float, at: Position) -> float:
    """The rate of the next step.

    Args:
        scheduler: Exponential, ``base gamma^epoch``; Cosine, ``base (1 + cos(pi epoch / epochs)) / 2``; OneCycle, from
            base / 25 up to base in the first 30 % of all steps, then down to base / 250,000, along cosines (Smith and
            Topin 2018, with PyTorch's numbers; momentum stays as it is).
        base: the hyperparameter learning_rate.
        gamma: the hyperparameter gamma, of Exponential alone.
        at: where training is.
    """
    match scheduler:
        case Scheduler.EXPONENTIAL:
            return float(base * gamma**at.epoch)
        case Scheduler.COSINE:
            return base * (1 + math.cos(math.pi * at.epoch / at.epochs)) / 2
        case Scheduler.ONE_CYCLE:
            return _one_cycle(base, at.step, at.steps)
        case _:
            assert_never(scheduler)


def _one_cycle(peak: float, step: int, steps: int) -> float:
    first, last = peak / START_DIVISOR, peak / START_DIVISOR / END_DIVISOR
    top = RISE * steps - 1
    if step <= top:
        return _along_cosine(first, peak, step / top)
    return _along_cosine(peak, last, min((step - top) / max(steps - 1 - top, 1e-9), 1.0))


def _along_cosine(start: float, end: float, share: float) -> float:
    return end + (start - end) * (1 + math.cos(math.pi * share)) / 2
