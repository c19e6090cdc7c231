"""The rules by which a run is stopped on its live score."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crossfold_operator.api.pruning import PruningMethod
from crossfold_operator.search.pruning import Verdict, asha, epochs, median_stop, text
from crossfold_trainer.contract.metrics import Direction

UP, DOWN = Direction.MAXIMIZE, Direction.MINIMIZE
MEDIAN_STOP, ASHA = PruningMethod.MEDIAN_STOP, PruningMethod.ASHA
FIVE = [0.2, 0.3, 0.4, 0.5, 0.6]


# When runs are compared ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "first", "last", "every", "found"),
    [
        (MEDIAN_STOP, 9, 30, 3, [9, 12, 15, 18, 21, 24, 27]),
        # A validation comes first, and nothing is left to save at the last.
        (MEDIAN_STOP, 10, 20, 3, [12, 15, 18]),
        (MEDIAN_STOP, 2, 4, 1, [2, 3]),
        (MEDIAN_STOP, 1, 100, 1, [1, 7, 14, 20, 27, 33, 40, 46, 53, 59, 66, 72, 79, 85, 92, 99]),
        (ASHA, 1, 100, 1, [1, 4, 16, 64]),
        (ASHA, 1, 64, 1, [1, 4, 16]),
        (ASHA, 9, 100, 3, [9, 36]),
        # Rungs that fall to one validation are one.
        (ASHA, 1, 100, 10, [10, 20, 70]),
    ],
)
def test_the_epochs(method: PruningMethod, first: int, last: int, every: int, found: list[int]) -> None:
    assert epochs(method, first, last, every) == found


def test_the_rungs_of_another_reduction_factor() -> None:
    assert epochs(ASHA, 2, 60, 1, reduction=3) == [2, 6, 18, 54]


@given(
    st.sampled_from([MEDIAN_STOP, ASHA]),
    st.integers(1, 100_000),
    st.integers(1, 100_000),
    st.integers(1, 100_000),
    st.integers(2, 16),
)
@settings(max_examples=200)
def test_epochs_are_few_validations_in_the_middle(
    method: PruningMethod, first: int, last: int, every: int, reduction: int
) -> None:
    found = epochs(method, first, last, every, reduction)
    assert found == sorted(set(found))
    assert len(found) <= 16
    assert all(first <= epoch < last and epoch % every == 0 for epoch in found)


# Median stopping ----------------------------------------------------------------------------------------------------


def test_median_stop_compares_the_best_score_with_the_median_of_running_means() -> None:
    assert median_stop(2, 0.39, FIVE, UP, min_peers=4) == Verdict(
        MEDIAN_STOP, epoch=2, best=0.39, peers=5, threshold=0.4, stop=True, min_peers=4
    )
    assert median_stop(2, 0.41, FIVE, UP, min_peers=4).stop is False
    assert median_stop(2, 0.41, FIVE, DOWN, min_peers=4).stop is True
    assert median_stop(2, 0.44, [*FIVE[:4], 0.6], UP, min_peers=4).threshold == 0.4
    assert median_stop(2, 0.44, FIVE[1:], UP, min_peers=4).threshold == pytest.approx(0.45)


@pytest.mark.parametrize("direction", [UP, DOWN])
def test_equal_is_not_worse(direction: Direction) -> None:
    assert not median_stop(2, 0.4, FIVE, direction, min_peers=4).stop
    assert not asha(2, 0.5, [0.5] * 7, direction, min_peers=4).stop


@pytest.mark.parametrize("values", [FIVE[:3], []])
def test_too_few_to_compare_with(values: list[float]) -> None:
    for found in (median_stop(2, -1.0, values, UP, min_peers=4), asha(2, -1.0, values, UP, min_peers=4)):
        assert (found.stop, found.threshold, found.peers, found.min_peers) == (False, None, len(values), 4)
    assert text(found) == (
        f"goes on at epoch 2 of its first run: best score -1, {len(values)} of at least 4 runs to compare with"
    )


# Successive halving -------------------------------------------------------------------------------------------------

OTHERS = [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7]


def test_asha_keeps_the_best_of_a_rung() -> None:
    # Eight at the rung, a quarter goes on: the second best is the last one.
    assert not asha(2, 0.65, OTHERS, UP, min_peers=4).stop
    assert asha(2, 0.55, OTHERS, UP, min_peers=4) == Verdict(
        ASHA, epoch=2, best=0.55, peers=7, threshold=0.6, stop=True, place=3, places=2, min_peers=4
    )
    assert not asha(2, 0.6, OTHERS, UP, min_peers=4).stop  # a tie goes on
    assert not asha(2, 0.45, OTHERS, UP, min_peers=4, reduction=2).stop
    lowest = asha(2, 0.15, OTHERS, DOWN, min_peers=4)
    assert (lowest.stop, lowest.threshold, lowest.place) == (False, 0.15, 2)


def test_asha_always_keeps_the_best() -> None:
    assert not asha(2, 0.5, [0.4], UP, min_peers=1).stop
    beaten = asha(2, 0.5, [0.6], UP, min_peers=1)
    assert (beaten.stop, beaten.place, beaten.places) == (True, 2, 1)


def test_asha_stops_most_of_many() -> None:
    """Of 64 runs that come to a rung one after the other, about a quarter is left."""
    rng = random.Random(1)
    levels = [rng.random() for _ in range(64)]
    left = [
        n for n, level in enumerate(levels) if not asha(2, level, levels[:n] + levels[n + 1 :], UP, min_peers=4).stop
    ]
    assert left == sorted(sorted(range(64), key=lambda n: levels[n])[-16:])


@given(st.floats(-5, 5), st.lists(st.floats(-5, 5), max_size=9), st.randoms())
@settings(max_examples=60)
def test_direction_and_order(best: float, others: list[float], rng: random.Random) -> None:
    for rule in (median_stop, asha):
        up = rule(4, best, others, UP, min_peers=2)
        assert rule(4, best, rng.sample(others, len(others)), UP, min_peers=2) == up
        down = rule(4, -best, [-value for value in others], DOWN, min_peers=2)
        assert (down.stop, down.place, down.places, down.peers) == (up.stop, up.place, up.places, up.peers)
        if up.threshold is not None:
            assert down.threshold == pytest.approx(-up.threshold)


# In words -----------------------------------------------------------------------------------------------------------


def test_the_words() -> None:
    start = "at epoch 9 of its first run: best score"
    assert text(median_stop(9, 0.39, FIVE, UP, min_peers=4)) == (
        f"pruned {start} 0.39 is worse than 0.4, the median of the means so far of 5 complete runs"
    )
    assert text(median_stop(9, 0.41, FIVE, UP, min_peers=4)) == (
        f"goes on {start} 0.41 is not worse than 0.4, the median of the means so far of 5 complete runs"
    )
    assert text(asha(9, 0.55, OTHERS, UP, min_peers=4)) == (
        f"pruned {start} 0.55 is number 3 of 8 at this rung, of which 2 go on (from 0.6)"
    )
    assert text(asha(9, 0.75, OTHERS[4:], UP, min_peers=1)) == (
        f"goes on {start} 0.75 is number 1 of 4 at this rung, of which 1 goes on (from 0.75)"
    )
