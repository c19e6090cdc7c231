"""Scores, against the numbers that the documents give."""

import math
from typing import Any

import pytest

from crossfold_trainer.contract.metrics import METRICS, Direction
from crossfold_trainer.contract.objective import Combine, ObjectiveSpec
from crossfold_trainer.contract.scoring import better, mean_std, run_score, score_direction, score_range

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
    names = ("val/loss", "val/HammingDistance")
    score = run_score(dict.fromkeys(names, 5e-324), objective(*names, combine=Combine.ARITHMETIC))
    assert (score.value, score.stable) == (None, False)
    assert "not finite" in score.reason


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
        # A metric that is minimised enters as its inverse: 0 makes it as large as you like.
        (["val/JaccardIndex", "val/loss"], "Arithmetic", 0, None),
        (["val/JaccardIndex", "val/HammingDistance"], "Arithmetic", 0, None),
        (["val/JaccardIndex", ("val/Mine", "Maximize")], "Min", None, None),
        (["val/JaccardIndex", ("val/CohenKappa", "Minimize")], "Min", None, None),
    ],
)
def test_score_range(metrics: list[Any], combine: str, low: float | None, high: float | None) -> None:
    pairs = [m if isinstance(m, tuple) else (m, None) for m in metrics]
    objective = ObjectiveSpec.model_validate(
        {"metrics": [{"name": name, "direction": direction} for name, direction in pairs], "combine": combine}
    )
    assert score_range(objective) == (low, high)
