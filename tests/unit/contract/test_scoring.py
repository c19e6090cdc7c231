"""Scores, against the numbers that the documents give."""

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crossfold_trainer.contract.metrics import METRICS, Direction
from crossfold_trainer.contract.objective import Combine, ObjectiveSpec
from crossfold_trainer.contract.scoring import (
    LEAST,
    better,
    decimals_of,
    mean_std,
    run_score,
    score_direction,
    score_range,
)

RUNS = [
    (0.75, 0.83, 0.5),
    (0.7, 0.8, 0.45),
    (0.65, 0.75, 0.55),
    (0.8, 0.85, 0.1),
    (0.73, 0.82, 2.5),
    (0.68, 0.77, 1.2),
]
NAMES = ("val/JaccardIndex", "val/Recall", "val/loss")


def objective(*names: str, combine: Combine = Combine.HARMONIC) -> ObjectiveSpec:
    return ObjectiveSpec.model_validate({"metrics": [{"name": name} for name in names], "combine": combine})


@pytest.mark.parametrize(
    ("combine", "three", "two"),
    [
        (Combine.HARMONIC, 0.893, 0.758),
        (Combine.ARITHMETIC, 1.467, 0.761),
        (Combine.GEOMETRIC, 1.064, 0.760),
        (Combine.MIN, 0.663, 0.718),
    ],
)
def test_golden_scores(combine: Combine, three: float, two: float) -> None:
    for count, golden in ((3, three), (2, two)):
        wanted = objective(*NAMES[:count], combine=combine)
        scores = [run_score(dict(zip(NAMES, run, strict=True)), wanted) for run in RUNS]
        assert all(score.stable for score in scores)
        assert mean_std([score.value or math.nan for score in scores])[0] == pytest.approx(golden, abs=5e-4)


@pytest.mark.parametrize("combine", Combine)
def test_one_metric_is_scored_as_it_is(combine: Combine) -> None:
    wanted = objective("val/loss", combine=combine)
    assert run_score({"val/loss": 0.25}, wanted) == (0.25, True, "")
    assert score_direction(wanted) is Direction.MINIMIZE
    assert score_direction(objective("val/Recall")) is Direction.MAXIMIZE
    assert score_direction(objective("val/loss", "val/HammingDistance")) is Direction.MAXIMIZE


def test_a_direction_that_is_said_counts() -> None:
    wanted = ObjectiveSpec.model_validate({"metrics": [{"name": "val/Recall", "direction": "Minimize"}]})
    assert score_direction(wanted) is Direction.MINIMIZE


@pytest.mark.parametrize(
    ("value", "combine", "names", "score", "reason"),
    [
        (None, Combine.HARMONIC, 2, None, "val/Recall is missing"),
        (math.nan, Combine.MIN, 2, None, "val/Recall is nan"),
        (math.inf, Combine.ARITHMETIC, 2, None, "val/Recall is inf"),
        (0.0, Combine.HARMONIC, 2, None, "val/Recall is 0"),
        (0.0, Combine.ARITHMETIC, 2, None, "val/Recall is 0"),
        (-0.1, Combine.HARMONIC, 2, None, "val/Recall is negative under Harmonic"),
        (-0.1, Combine.GEOMETRIC, 2, None, "val/Recall is negative under Geometric"),
        (0.0, Combine.HARMONIC, 1, 0.0, "val/Recall is 0"),
        (None, Combine.HARMONIC, 1, None, "val/Recall is missing"),
    ],
)
def test_unstable(value: float | None, combine: Combine, names: int, score: float | None, reason: str) -> None:
    wanted = objective(*("val/Recall", "val/JaccardIndex")[:names], combine=combine)
    assert run_score({"val/Recall": value, "val/JaccardIndex": 0.5}, wanted) == (score, False, reason)


def test_a_missing_metric_is_unstable() -> None:
    assert run_score({}, objective("val/Recall")) == (None, False, "val/Recall is missing")


@pytest.mark.parametrize("combine", [Combine.ARITHMETIC, Combine.MIN])
def test_negative_values_count_where_they_mean_something(combine: Combine) -> None:
    score = run_score(
        {"val/CohenKappa": -0.5, "val/Recall": 0.5}, objective("val/CohenKappa", "val/Recall", combine=combine)
    )
    assert score == (0.0 if combine is Combine.ARITHMETIC else -0.5, True, "")


def test_a_score_without_end_is_unstable() -> None:
    names = ("val/Mine", "val/Other")
    both = of([(name, "Maximize") for name in names], Combine.ARITHMETIC)
    score = run_score(dict.fromkeys(names, 1.7e308), both)
    assert (score.value, score.stable) == (None, False)
    assert "not finite" in score.reason


# 0, and how what is to be minimised is combined -----------------------------------------------------------------------


def of(metrics: list[tuple[str, str]], combine: str = Combine.HARMONIC) -> ObjectiveSpec:
    """An objective of metrics and their directions."""
    return ObjectiveSpec.model_validate(
        {"metrics": [{"name": name, "direction": direction} for name, direction in metrics], "combine": combine}
    )


@pytest.mark.parametrize("name", ["val/HammingDistance", "val/loss", "val/Mine", "val/JaccardIndex"])
def test_0_is_unstable_where_more_is_better_and_the_best_where_less_is(name: str) -> None:
    up, down = of([(name, "Maximize")]), of([(name, "Minimize")])
    assert run_score({name: 0.0}, up) == (0.0, False, f"{name} is 0")
    zero, some = run_score({name: 0.0}, down), run_score({name: 1e-12}, down)
    assert zero == (0.0, True, "")
    assert zero.value is not None
    assert some.value is not None
    assert better(zero.value, some.value, score_direction(down))


def test_minus_0_is_0() -> None:
    score = run_score({"val/loss": -0.0}, objective("val/loss"))
    assert repr(score.value) == "0.0"


@pytest.mark.parametrize(
    ("combine", "score"),
    [
        (Combine.HARMONIC, 2 / (1 / 0.8)),  # its limit: what is perfect costs nothing
        (Combine.MIN, 0.8),  # its limit: the other metric is the least
        (Combine.ARITHMETIC, (0.8 + 1 / LEAST) / 2),
        (Combine.GEOMETRIC, (0.8 / LEAST) ** 0.5),
    ],
)
def test_0_of_a_metric_to_be_minimised_is_its_best_value_in_a_combined_score(combine: Combine, score: float) -> None:
    names = ("val/JaccardIndex", "val/HammingDistance")
    wanted = objective(*names, combine=combine)
    found = run_score({names[0]: 0.8, names[1]: 0.0}, wanted)
    assert (found.value, found.stable) == (pytest.approx(score), True)
    # A metric to be maximised still spoils it by 0.
    assert run_score({names[0]: 0.0, names[1]: 0.0}, wanted) == (None, False, "val/JaccardIndex is 0")


@pytest.mark.parametrize("combine", Combine)
def test_a_combined_score_of_nothing_but_0_is_finite_and_the_best(combine: Combine) -> None:
    names = ("val/loss", "val/HammingDistance")
    wanted = objective(*names, combine=combine)
    found = run_score(dict.fromkeys(names, 0.0), wanted)
    assert found.stable
    assert found.value == pytest.approx(1 / LEAST) == pytest.approx(score_range(wanted)[1])


@pytest.mark.parametrize("combine", Combine)
def test_what_rounding_left_below_0_is_as_good_as_0(combine: Combine) -> None:
    """1 - overlap in single precision may be -1e-7."""
    names = ("val/JaccardIndex", "val/loss")
    wanted = objective(*names, combine=combine)
    assert run_score({names[0]: 1.0, names[1]: -1e-7}, wanted) == run_score({names[0]: 1.0, names[1]: 0.0}, wanted)


@pytest.mark.parametrize("combine", Combine)
@pytest.mark.parametrize("name", ["val/Mine", "val/CohenKappa", "val/loss"])
def test_a_metric_to_be_minimised_that_is_really_negative_is_scored_alone(name: str, combine: Combine) -> None:
    found = run_score({name: -0.5, "val/Recall": 0.5}, of([(name, "Minimize"), ("val/Recall", "Maximize")], combine))
    assert (found.value, found.stable) == (None, False)
    assert f"{name} is negative" in found.reason
    assert run_score({name: -0.5}, of([(name, "Minimize")])) == (-0.5, True, "")


LOSSES = st.just(0.0) | st.floats(0, 1e12) | st.floats(-12, 0).map(lambda e: 10.0**e)
SHARES = st.floats(1e-6, 1)


@given(losses=st.lists(LOSSES, min_size=2, max_size=2), share=SHARES, other=LOSSES, combine=st.sampled_from(Combine))
def test_a_better_metric_never_makes_a_worse_score(
    losses: list[float], share: float, other: float, combine: Combine
) -> None:
    wanted = of([("val/JaccardIndex", "Maximize"), ("val/loss", "Minimize"), ("val/Mine", "Minimize")], combine)
    good, bad = (
        run_score({"val/JaccardIndex": share, "val/loss": loss, "val/Mine": other}, wanted) for loss in sorted(losses)
    )
    assert good.stable
    assert bad.stable
    assert good.value is not None
    assert bad.value is not None
    assert good.value >= bad.value * (1 - 1e-12)  # within rounding
    low, high = score_range(wanted)
    assert low is not None
    assert high is not None
    assert low <= bad.value
    assert good.value <= high * (1 + 1e-12)


@pytest.mark.parametrize("combine", Combine)
def test_a_combined_score_does_not_jump_at_0(combine: Combine) -> None:
    names = ("val/JaccardIndex", "val/loss")
    wanted = objective(*names, combine=combine)
    near, at = (run_score({names[0]: 0.8, names[1]: loss}, wanted).value for loss in (LEAST * (1 + 1e-9), 0.0))
    assert near == pytest.approx(at, rel=2e-9)


def test_mean_and_standard_deviation() -> None:
    assert mean_std([0.5]) == (0.5, 0.0)
    assert mean_std([0.1, 0.2, 0.3]) == pytest.approx((0.2, 0.1))
    assert mean_std([1e308, 1e308])[0] == pytest.approx(1e308)
    assert mean_std([1e200, -1e200]) == pytest.approx((0, math.sqrt(2) * 1e200))


def test_better() -> None:
    assert better(2, 1, Direction.MAXIMIZE)
    assert better(1, 2, Direction.MINIMIZE)
    assert not better(1, 1, Direction.MAXIMIZE)
    assert not better(1, 1, Direction.MINIMIZE)


def test_every_metric_lies_in_its_range() -> None:
    for info in METRICS.values():
        assert info.low is not None
        assert info.high is None or info.low < info.high


@pytest.mark.parametrize(
    ("metrics", "combine", "low", "high"),
    [
        (["val/JaccardIndex"], "Harmonic", 0, 1),
        (["val/CohenKappa"], "Harmonic", -1, 1),
        (["val/loss"], "Harmonic", 0, None),
        ([("val/Mine", "Maximize")], "Harmonic", None, None),
        # Nothing that is combined of shares is beyond 1.
        *((["val/JaccardIndex", "val/Recall"], combine, 0, 1) for combine in Combine),
        # A metric that is minimised enters as its inverse, which ends at 1 / LEAST.
        (["val/JaccardIndex", "val/loss"], "Arithmetic", 0, (1 + 1 / LEAST) / 2),
        (["val/JaccardIndex", "val/HammingDistance"], "Arithmetic", 0, (1 + 1 / LEAST) / 2),
        (["val/JaccardIndex", "val/HammingDistance"], "Harmonic", 0, 2 / (1 + LEAST)),
        (["val/JaccardIndex", "val/HammingDistance"], "Min", 0, 1),
        (["val/JaccardIndex", ("val/Mine", "Maximize")], "Min", None, None),
        (["val/JaccardIndex", ("val/Mine", "Minimize")], "Min", 0, 1),
        # A metric that must say its direction and does not.
        (["val/Mine"], "Harmonic", None, None),
        (["val/JaccardIndex", "val/Mine"], "Harmonic", None, None),
        # What is negative is not combined.
        (["val/JaccardIndex", ("val/CohenKappa", "Minimize")], "Min", 0, 1),
    ],
)
def test_score_range(metrics: list[Any], combine: str, low: float | None, high: float | None) -> None:
    pairs = [m if isinstance(m, tuple) else (m, None) for m in metrics]
    objective = ObjectiveSpec.model_validate(
        {"metrics": [{"name": name, "direction": direction} for name, direction in pairs], "combine": combine}
    )
    found = score_range(objective)
    assert found[0] == low
    assert found[1] == (None if high is None else pytest.approx(high))


@pytest.mark.parametrize(
    ("score", "decimals"),
    [(0.0, 3), (0.7, 3), (0.1, 3), (-0.0123, 4), (0.000412, 6), (1e-300, 12), (250.0, 3), (math.nan, 3), (math.inf, 3)],
)
def test_scores_near_0_are_shown_with_more_decimals(score: float, decimals: int) -> None:
    assert decimals_of(score, 3) == decimals
    if 1e-9 < abs(score) < 1:
        assert float(f"{score:.{decimals}f}") == pytest.approx(score, rel=5e-3)
