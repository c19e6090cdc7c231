"""Learning rates against their closed forms, at every step, also when training goes on from a checkpoint."""

import io
import math
from typing import Any

import pytest
import torch

from crossfold_trainer.contract.trainer import Scheduler, TrainerSpec
from crossfold_trainer.schedules import Schedule, make_scheduler

BASE, GAMMA = 0.02, 0.9
SIZES = [(7, 5), (1, 1), (1, 2), (3, 1), (40, 3)]


def closed_form(scheduler: Scheduler, step: int, epochs: int, batches: int) -> float:
    epoch, steps = step // batches, epochs * batches
    match scheduler:
        case Scheduler.EXPONENTIAL:
            return BASE * GAMMA**epoch
        case Scheduler.COSINE:
            return BASE * (1 + math.cos(math.pi * epoch / epochs)) / 2
        case Scheduler.ONE_CYCLE:
            top = 0.3 * steps - 1
            if step <= top:
                return along_cosine(BASE / 25, BASE, step / top)
            return along_cosine(BASE, BASE / 250_000, min((step - top) / (steps - 1 - top), 1.0))


def along_cosine(start: float, end: float, share: float) -> float:
    return end + (start - end) * (1 + math.cos(math.pi * share)) / 2


def made(scheduler: Scheduler, epochs: int, batches: int) -> tuple[torch.optim.Optimizer, Schedule]:
    optimizer = torch.optim.AdamW([torch.zeros(1, requires_grad=True)], lr=BASE)
    settings = TrainerSpec(scheduler=scheduler, maxEpochs=epochs)
    return optimizer, make_scheduler(optimizer, settings, {"learning_rate": BASE, "gamma": GAMMA}, batches)


def rates(optimizer: torch.optim.Optimizer, schedule: Schedule, steps: range, batches: int) -> list[float]:
    """The rate that each step is taken with."""
    found = []
    for step in steps:
        found.append(optimizer.param_groups[0]["lr"])
        assert schedule.learning_rate == found[-1]
        optimizer.step()
        schedule.end_of("step")
        if (step + 1) % batches == 0:
            schedule.end_of("epoch")
    return found


@pytest.mark.parametrize("scheduler", Scheduler)
@pytest.mark.parametrize(("epochs", "batches"), SIZES)
def test_each_step_has_the_rate_of_the_closed_form(scheduler: Scheduler, epochs: int, batches: int) -> None:
    found = rates(*made(scheduler, epochs, batches), range(epochs * batches), batches)
    expected = [closed_form(scheduler, step, epochs, batches) for step in range(epochs * batches)]
    assert found == pytest.approx(expected, rel=1e-9, abs=1e-12)
    assert len({round(rate, 12) for rate in found}) > 1 or epochs == 1


@pytest.mark.parametrize("scheduler", Scheduler)
@pytest.mark.parametrize("stopped", [0, 1, 4, 5, 6, 34])
def test_a_checkpoint_goes_on_bit_by_bit(scheduler: Scheduler, stopped: int) -> None:
    steps = 7 * 5
    whole = rates(*made(scheduler, 7, 5), range(steps), 5)
    optimizer, schedule = made(scheduler, 7, 5)
    before = rates(optimizer, schedule, range(stopped), 5)
    states = {"optimiser": optimizer.state_dict(), "scheduler": schedule.scheduler.state_dict()}
    optimizer, schedule = made(scheduler, 7, 5)
    read = through_a_file(states)
    optimizer.load_state_dict(read["optimiser"])
    schedule.scheduler.load_state_dict(read["scheduler"])
    assert before + rates(optimizer, schedule, range(stopped, steps), 5) == whole


def through_a_file(states: dict[str, Any]) -> dict[str, Any]:
    buffer = io.BytesIO()
    torch.save(states, buffer)
    read: dict[str, Any] = torch.load(io.BytesIO(buffer.getvalue()), weights_only=True)
    return read


def test_after_the_last_step_the_rate_stays_where_it_was() -> None:
    optimizer, schedule = made(Scheduler.ONE_CYCLE, 4, 5)
    *_, last = rates(optimizer, schedule, range(20), 5)
    assert rates(optimizer, schedule, range(20, 25), 5) == [last] * 5
    assert last == pytest.approx(BASE / 250_000)
