"""Learning rates: PyTorch's own schedulers step by step."""

from collections.abc import Iterator

import pytest
import torch
from torch.optim import lr_scheduler

from crossfold_trainer.contract.trainer import Scheduler
from crossfold_trainer.schedules import Position, learning_rate


def reference(scheduler: Scheduler, base: float, gamma: float, epochs: int, batches: int) -> Iterator[float]:
    optimiser = torch.optim.AdamW([torch.zeros(1, requires_grad=True)], lr=base)
    match scheduler:
        case Scheduler.EXPONENTIAL:
            known: lr_scheduler.LRScheduler = lr_scheduler.ExponentialLR(optimiser, gamma)
        case Scheduler.COSINE:
            known = lr_scheduler.CosineAnnealingLR(optimiser, T_max=epochs)
        case Scheduler.ONE_CYCLE:
            known = lr_scheduler.OneCycleLR(optimiser, base, total_steps=epochs * batches, cycle_momentum=False)
    by_step = scheduler is Scheduler.ONE_CYCLE
    for _ in range(epochs):
        for _ in range(batches):
            yield optimiser.param_groups[0]["lr"]
            optimiser.step()
            if by_step and known.last_epoch < epochs * batches - 1:
                known.step()
        if not by_step:
            known.step()


@pytest.mark.parametrize("scheduler", Scheduler)
@pytest.mark.parametrize(("epochs", "batches"), [(7, 5), (1, 1), (1, 2), (3, 1), (40, 3)])
def test_like_pytorch(scheduler: Scheduler, epochs: int, batches: int) -> None:
    rates = [
        learning_rate(scheduler, 0.02, 0.9, Position(step // batches, step, epochs, epochs * batches))
        for step in range(epochs * batches)
    ]
    expected = list(reference(scheduler, 0.02, 0.9, epochs, batches))
    assert rates == pytest.approx(expected, rel=1e-9, abs=1e-12)
    assert len({round(rate, 12) for rate in rates}) > 1 or epochs == 1


def test_after_the_last_step_a_rate_is_still_a_number() -> None:
    for scheduler in Scheduler:
        assert 0 <= learning_rate(scheduler, 0.02, 0.9, Position(9, 50, 10, 50)) <= 0.02
