"""A run's scores in a few points, and the messages in which they travel."""

import json
from pathlib import Path

import pytest

from crossfold_trainer.contract.config import RunConfig, config_digest
from crossfold_trainer.contract.curve import MOST_POINTS, CurvePoint, curve_of
from crossfold_trainer.contract.metrics import Direction
from crossfold_trainer.contract.progress import REPORT_LIMIT, ProgressReport
from crossfold_trainer.contract.result import MESSAGE_LIMIT, RunResult, parse_message
from tests.trainer_data import run_config

UP, DOWN = Direction.MAXIMIZE, Direction.MINIMIZE
SCORES = [(3, 0.2), (6, 0.6), (9, 0.4)]


def points(*numbers: tuple[int, float, float]) -> list[CurvePoint]:
    return [CurvePoint(epoch=epoch, best=best, mean=mean) for epoch, best, mean in numbers]


@pytest.mark.parametrize(
    ("epochs", "direction", "found"),
    [
        ([3, 6, 9], UP, [(3, 0.2, 0.2), (6, 0.6, 0.4), (9, 0.6, 0.4)]),
        ([3, 6, 9], DOWN, [(3, 0.2, 0.2), (6, 0.2, 0.4), (9, 0.2, 0.4)]),
        # Points say all that came before, wherever they are and however they are given.
        ([9, 7], UP, [(7, 0.6, 0.4), (9, 0.6, 0.4)]),
        ([3, 3], UP, [(3, 0.2, 0.2)]),
        # Before the first score that may be compared there is none.
        ([1, 2], UP, []),
        ([], UP, []),
    ],
)
def test_the_points(epochs: list[int], direction: Direction, found: list[tuple[int, float, float]]) -> None:
    assert curve_of(SCORES, epochs, direction) == points(*found)
    assert curve_of(reversed(SCORES), epochs, direction) == points(*found)


def test_numbers_are_rounded_to_what_matters() -> None:
    assert curve_of([(1, 1 / 3), (2, 2e300), (3, 1.5e308)], [1, 3], UP) == points(
        (1, 0.333333, 0.333333), (3, 1.5e308, 5e307)
    )


LONGEST = points(*((99_000 + n, -1.23456e-200, -1.23457e-200) for n in range(MOST_POINTS)))


def test_a_report_has_room_for_the_longest_curve() -> None:
    metrics = {f"val/{'x' * 50}{n:04d}": -1 / 3e200 for n in range(64)}
    report = ProgressReport(
        digest="d" * 64, epoch=1, epochs=2**53, step=2**53, fraction=1 / 3, score=-1 / 3e200, metrics=metrics,
        curve=LONGEST,
    )  # fmt: skip
    text = report.text()
    assert len(text) <= REPORT_LIMIT
    sent = ProgressReport.model_validate_json(text)
    assert sent.curve == LONGEST
    assert 0 < len(sent.metrics) < 64


def test_a_termination_message_keeps_the_curve_as_long_as_it_can() -> None:
    metrics = {f"val/{'x' * 50}{n:04d}": -1 / 3e200 for n in range(64)}
    result = RunResult(digest="d" * 64, score=0.5, metrics=metrics, curve=LONGEST, reason="r" * 200)
    kept = parse_message(result.message())
    assert isinstance(kept, RunResult)
    assert kept.curve == LONGEST
    assert 0 < len(kept.metrics) < 64
    # The score, and what it is made of, comes first.
    values = {f"val/{'x' * 40}{n:02d}": 1 / 3 for n in range(45)}
    crowded = parse_message(result.model_copy(update={"values": values}).message())
    assert isinstance(crowded, RunResult)
    assert (crowded.score, crowded.values, crowded.curve, crowded.metrics) == (0.5, values, [], {})
    assert len(result.model_copy(update={"values": values}).message()) <= MESSAGE_LIMIT


def test_where_a_run_tells_its_scores_is_no_part_of_what_it_is() -> None:
    content = json.loads(run_config_of().model_dump_json())
    told = RunConfig.model_validate(content | {"curveEpochs": [3, 6]})
    assert told.curve_epochs == [3, 6]
    assert config_digest(told) == config_digest(run_config_of())


def run_config_of() -> RunConfig:
    return run_config(Path("d"), Path("a"))
