"""Where an attempt's time goes."""

from collections.abc import Iterator

import pytest

from crossfold_trainer.meter import Meter


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_before_anything_there_is_no_rate() -> None:
    meter = Meter(Clock())
    assert (meter.patches_per_second, meter.data_wait_share, meter.checkpoint_wait_share) == (None, None, None)


def test_waits_and_work_are_told_apart() -> None:
    clock = Clock()
    meter = Meter(clock)

    waited = 7.0  # in epochs before

    def source() -> Iterator[tuple[list[int]]]:
        nonlocal waited
        for _ in range(3):
            clock.now += 1.0  # reading
            waited += 1.0
            yield ([0, 0],)  # this rank's share of four

    meter.start()
    for _ in meter.batches(source(), lambda: waited):
        clock.now += 3.0  # a step
        meter.patches += 4
    meter.stop()
    assert (meter.patches, meter.training, meter.data_wait) == (12, 12.0, 3.0)
    assert meter.patches_per_second == pytest.approx(1.0)
    assert meter.data_wait_share == 0.25
    clock.now += 8.0  # validation
    assert meter.patches_per_second == pytest.approx(1.0)
    with meter.checkpoint():
        clock.now += 5.0
    assert meter.checkpoint_wait_share == 5 / 25


def test_the_epoch_under_way_counts() -> None:
    clock = Clock()
    meter = Meter(clock)
    meter.start()
    for _ in meter.batches(iter([([0, 0],), ([0, 0],)]), lambda: 0.0):
        clock.now += 2.0
        seen = meter.patches_per_second
        meter.patches += 2
    assert seen == 0.5  # one batch of two is done after four seconds


def test_an_epoch_begins_and_ends_once() -> None:
    clock = Clock()
    meter = Meter(clock)
    for _ in range(2):
        meter.start()
        clock.now += 1.0
    for _ in range(2):
        meter.stop()
        clock.now += 5.0
    assert meter.trained == 2.0
