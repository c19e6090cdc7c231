import math
import random
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crossfold_operator.search.pruning import Curve, Verdict, asha, median_stop
from crossfold_trainer.contract.metrics import Direction

UP, DOWN = Direction.MAXIMIZE, Direction.MINIMIZE


def curve(*values: float, completed: bool = True) -> Curve:
    return Curve(dict(enumerate(values, start=1)), completed)


def by_epoch(*values: float) -> dict[int, float]:
    return dict(enumerate(values, start=1))


# Running averages after two epochs 0.2, 0.3, 0.4, 0.5, 0.6; the third epoch is far better for all.
FIVE = [curve(level - 0.1, level + 0.1, 0.9) for level in (0.2, 0.3, 0.4, 0.5, 0.6)]


def test_median_stop_compares_the_best_value_with_the_median_of_running_averages() -> None:
    below = median_stop(by_epoch(0.39, 0.1), FIVE, UP, min_epochs=2)
    assert below == Verdict(
        True,
        "stopped after epoch 2: best value 0.39, median of 5 completed runs' running averages 0.4",
        2,
        0.39,
        pytest.approx(0.4),
        5,
    )
    # Equal is not worse; the latest value does not count when an earlier one was better.
    assert not median_stop(by_epoch(0.41, 0.1), FIVE, UP, min_epochs=2).stop
    exact = [curve(0.25, 0.75)] * 4
    assert not median_stop(by_epoch(0.5, 0.1), exact, UP, min_epochs=2).stop
    assert median_stop(by_epoch(0.375, 0.1), exact, UP, min_epochs=2).stop


def test_median_stop_leaves_a_run_its_first_epochs_and_waits_for_completed_runs() -> None:
    assert median_stop(by_epoch(0.0), FIVE, UP, min_epochs=2).reason == "goes on: epoch 1 of at least 2"
    assert median_stop({}, FIVE, UP, min_epochs=1).reason == "goes on: epoch 0 of at least 1"
    running = [*FIVE[:3], *(curve(0.9, 0.9, completed=False) for _ in range(5))]
    waiting = median_stop(by_epoch(0.0, 0.0), running, UP, min_epochs=2)
    assert waiting.reason == "goes on: 3 of at least 4 completed runs to compare with"
    assert not waiting.stop
    assert median_stop(by_epoch(0.0, 0.0), running, UP, min_epochs=2, min_curves=3).stop


def test_median_stop_takes_all_of_a_run_that_ended_earlier() -> None:
    short = [curve(0.5)] * 4
    assert median_stop(by_epoch(0.1, 0.2, 0.49), short, UP, min_epochs=3).stop
    assert not median_stop(by_epoch(0.1, 0.2, 0.51), short, UP, min_epochs=3).stop


def test_asha_keeps_the_best_of_a_rung() -> None:
    others = [curve(0.0, value, completed=False) for value in (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7)]
    # Eight at the rung, a quarter goes on: the second best is the last one.
    assert not asha(by_epoch(0.65, 0.0), others, UP, min_epochs=2).stop
    third = asha(by_epoch(0.55, 0.0), others, UP, min_epochs=2)
    assert third == Verdict(
        True,
        "stopped at the rung of epoch 2: best value 0.55 is number 3 of 8, of which 2 go on (from 0.6)",
        2,
        0.55,
        0.6,
        7,
    )
    assert not asha(by_epoch(0.6, 0.0), others, UP, min_epochs=2).stop  # a tie goes on
    assert not asha(by_epoch(0.45, 0.0), others, UP, min_epochs=2, reduction=2).stop


def test_asha_counts_at_a_rung_who_has_reached_it_with_what_they_had_there() -> None:
    later = [curve(0.1, 0.1, 0.9, 0.9), curve(0.2, 0.2, 0.9, 0.9)]
    not_there = [curve(0.9)]
    assert not asha(by_epoch(0.3, 0.3, 0.3), [*later, *not_there], UP, min_epochs=2).stop
    assert asha(by_epoch(0.15, 0.15, 0.95), later, UP, min_epochs=2).curves == 2
    # At its second rung, of epoch 8, the run is alone.
    alone = asha(by_epoch(*[0.0] * 9), later, UP, min_epochs=2)
    assert (alone.stop, alone.epoch, alone.curves) == (False, 8, 0)


def test_asha_judges_again_when_better_runs_have_come() -> None:
    own = by_epoch(0.5, 0.5)
    assert not asha(own, [], UP, min_epochs=2).stop
    assert asha(own, [curve(0.6, 0.6, completed=False)], UP, min_epochs=2).stop


def test_asha_before_the_first_rung() -> None:
    assert asha(by_epoch(0.0), FIVE, UP, min_epochs=2).reason == "goes on: epoch 1, first rung at 2"
    assert not asha({9: 0.0}, FIVE, UP, min_epochs=2).stop  # nothing is known up to its rung


@pytest.mark.parametrize("rule", [median_stop, asha])
def test_values_that_are_not_finite_are_passed_over(rule: Callable[..., Verdict]) -> None:
    others = [*FIVE, curve(math.nan, math.inf), curve(-math.inf)]
    with_holes = {1: math.nan, 2: 0.35, 3: math.inf}
    assert rule(with_holes, others, UP, min_epochs=2) == rule({2: 0.35}, FIVE, UP, min_epochs=2)
    assert not rule({1: math.nan, 2: math.nan}, FIVE, UP, min_epochs=2).stop


CURVES = st.lists(st.lists(st.floats(-5, 5), min_size=1, max_size=9), max_size=9)


@pytest.mark.parametrize("rule", [median_stop, asha])
@given(st.lists(st.floats(-5, 5), min_size=1, max_size=9), CURVES, st.randoms())
@settings(deadline=None, max_examples=60)
def test_direction_and_order(
    rule: Callable[..., Verdict], own: list[float], others: list[list[float]], rng: random.Random
) -> None:
    curves = [curve(*values) for values in others]
    up = rule(by_epoch(*own), curves, UP, min_epochs=2)
    assert rule(by_epoch(*own), rng.sample(curves, len(curves)), UP, min_epochs=2) == up
    down = rule(by_epoch(*[-v for v in own]), [curve(*[-v for v in c]) for c in others], DOWN, min_epochs=2)
    assert (down.stop, down.epoch, down.curves) == (up.stop, up.epoch, up.curves)


def test_asha_stops_most_of_many() -> None:
    """Of 64 alike curves that come one after the other, about a quarter is left at each rung."""
    rng = random.Random(1)
    levels = [rng.random() for _ in range(64)]
    curves = [curve(*[level] * 4, completed=False) for level in levels]
    left = [
        n
        for n, level in enumerate(levels)
        if not asha(by_epoch(*[level] * 2), curves[:n] + curves[n + 1 :], UP, min_epochs=2).stop
    ]
    assert left == sorted(sorted(range(64), key=lambda n: levels[n])[-16:])
