"""What a TrainRun's status says while it trains."""

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from crossfold_operator import objects
from crossfold_operator.api.trainrun import TrainRunSpec, TrainRunStatus
from crossfold_operator.observe.attempts import Attempt, AttemptState
from crossfold_operator.plan.trainrun import history
from crossfold_operator.status.facts import rounded, time_text
from crossfold_operator.status.patch import dump, merge_patch
from crossfold_operator.status.trainrun import train_run_status
from crossfold_trainer.contract.curve import MOST_POINTS, CurvePoint
from crossfold_trainer.contract.progress import MOST_METRICS, NAME_LIMIT, ProgressReport
from tests.fakes.world import result_of, train_run

NOW = datetime(2026, 1, 1, tzinfo=UTC)
EPOCHS = [3, 6, *range(99_002, 99_000 + MOST_POINTS)]
RUN = train_run(trainer={"maxEpochs": 40}, curveEpochs=EPOCHS)
META = {"name": "r", "namespace": "d", "uid": "u"}
SPEC = TrainRunSpec.model_validate(RUN["spec"])
CONFIG = objects.run_config({"metadata": META}, SPEC)
OBJECTIVE = CONFIG.objective.metrics[0].name
REPORT = ProgressReport(
    digest=CONFIG.digest,
    epoch=12,
    epochs=40,
    step=480,
    fraction=0.309,
    eta_seconds=11_530.0,
    patches_per_second=123.456789,
    score=0.6,
    epoch_of_score=8,
    metrics={OBJECTIVE: 0.6, "val/loss": 0.25, "val/AUROC": None},
)
RUNNING = Attempt(1, "r", "j", AttemptState.RUNNING, started="2025-12-31T23:00:00Z")
STARTING = Attempt(2, "r-a2", "j2", AttemptState.STARTING)


def status(
    report: ProgressReport | None = REPORT, attempt: Attempt = RUNNING, previous: TrainRunStatus | None = None
) -> TrainRunStatus:
    before = previous or TrainRunStatus()
    return train_run_status(
        spec=SPEC,
        config=CONFIG,
        previous=before,
        attempts=[attempt],
        done=history(SPEC, before, [attempt], 300, NOW),
        report=report,
        degraded=None,
        now=NOW,
        generation=1,
    )


def test_it_says_where_training_is() -> None:
    seen = dump(status())
    told = {name: seen.get(name) for name in ("epoch", "step", "progress", "eta", "patchesPerSecond", "score")}
    assert told == {
        "epoch": 12, "step": 480, "progress": "30%", "eta": "3h12m", "patchesPerSecond": "123.5", "score": "0.6",
    }  # fmt: skip
    assert (seen["epochOfScore"], seen["values"], seen["metrics"]) == (
        8,
        {OBJECTIVE: "0.6"},
        {"val/loss": "0.25", "val/AUROC": "NaN"},
    )
    assert seen["summary"] == {"score": "0.600", "epoch": "12/40"}
    # Whether it may be compared is known when it has ended.
    assert "stable" not in seen


def test_before_the_first_report_it_says_nothing() -> None:
    seen = dump(status(None))
    assert not {"epoch", "step", "progress", "eta", "patchesPerSecond", "score", "values", "metrics"} & set(seen)
    assert "summary" not in seen


def test_an_operator_that_has_just_started_leaves_it_as_it_is() -> None:
    before = status()
    assert dump(status(None, previous=before)) == dump(before)


def test_a_preempted_run_says_how_far_it_came_and_not_when_it_will_end() -> None:
    seen = status(attempt=STARTING)
    assert (seen.epoch, seen.score, seen.summary.epoch, seen.eta) == (12, "0.6", "12/40", "")


def test_a_report_of_another_configuration_is_not_believed() -> None:
    assert status(REPORT.model_copy(update={"digest": "other"})).epoch is None


def test_the_result_has_the_last_word() -> None:
    ended = Attempt(1, "r", "j", AttemptState.ENDED, seconds=60, result=result_of(CONFIG))
    seen = dump(status(attempt=ended, previous=status()))
    assert (seen["phase"], seen["epoch"], seen["step"], seen["epochOfScore"]) == ("Succeeded", 12, 120, 8)
    assert seen["summary"]["epoch"] == "9/12"
    assert "progress" not in seen
    assert "eta" not in seen
    assert seen["score"] == repr(result_of(CONFIG).score)


def test_a_result_says_how_fast_it_was() -> None:
    speed = {"device": "NVIDIA H200", "patchesPerSecond": 812.34567, "dataWaitShare": 0.0213, "peakMemoryBytes": 2**34}
    ended = Attempt(1, "r", "j", AttemptState.ENDED, seconds=60, result=result_of(CONFIG, performance=speed))
    seen = dump(status(attempt=ended))
    assert seen["patchesPerSecond"] == "812.3"
    assert seen["performance"] == {"device": "NVIDIA H200", "dataWaitShare": "0.0213", "peakMemoryBytes": 2**34}


@pytest.mark.parametrize(("pixels", "shown"), [(0, None), (12, 12)])
def test_a_result_says_how_many_pixels_were_ignored(pixels: int, shown: int | None) -> None:
    ended = Attempt(1, "r", "j", AttemptState.ENDED, seconds=60, result=result_of(CONFIG, ignored_pixels=pixels))
    assert dump(status(attempt=ended)).get("ignoredPixels") == shown


def test_the_same_report_is_no_change() -> None:
    before = status()
    assert merge_patch(dump(before), dump(status(previous=before))) == {}


CURVE = [CurvePoint(epoch=3, best=0.5, mean=0.4), CurvePoint(epoch=6, best=0.6, mean=0.45)]


def test_the_points_of_its_curve_are_kept_with_the_time_at_which_they_were_first_seen() -> None:
    first = status(REPORT.model_copy(update={"curve": CURVE[:1]}))
    later = train_run_status(
        spec=SPEC, config=CONFIG, previous=first, attempts=[RUNNING], done=history(SPEC, first, [RUNNING], 300, NOW),
        report=REPORT.model_copy(update={"curve": CURVE}), degraded=None, now=NOW + timedelta(minutes=5), generation=1,
    )  # fmt: skip
    told = [
        {"epoch": 3, "best": "0.5", "mean": "0.4", "time": "2026-01-01T00:00:00Z"},
        {"epoch": 6, "best": "0.6", "mean": "0.45", "time": "2026-01-01T00:05:00Z"},
    ]
    assert dump(first)["curve"] == told[:1]
    assert dump(later)["curve"] == told
    # A point that is told otherwise is another one.
    again = later.model_copy(update={"curve": [later.curve[0].model_copy(update={"time": "2025-12-31T23:00:00Z"})]})
    for told_best, time in ((0.5, "2025-12-31T23:00:00Z"), (0.55, "2026-01-01T00:00:00Z")):
        said = [CURVE[0].model_copy(update={"best": told_best})]
        (point,) = status(REPORT.model_copy(update={"curve": said}), previous=again).curve
        assert (point.best, point.time) == (str(told_best), time)
    # An operator that has just started, and a result without a curve, leave it as it is.
    assert dump(status(None, previous=later))["curve"] == told
    result = result_of(CONFIG)
    ended = Attempt(1, "r", "j", AttemptState.ENDED, seconds=60, result=result)
    assert dump(status(attempt=ended, previous=later))["curve"] == told
    # A result that has one brings what no report did.
    whole = replace(ended, result=result.model_copy(update={"curve": CURVE}))
    assert [point["time"][14:16] for point in dump(status(attempt=whole, previous=first))["curve"]] == ["00", "00"]
    assert "curve" not in dump(status())
    # What was not asked for, or is said twice, is not taken.
    more = [CurvePoint(epoch=4, best=0.5, mean=0.4), CURVE[1], CURVE[0], CURVE[1]]
    assert [point.epoch for point in status(REPORT.model_copy(update={"curve": more})).curve] == [3, 6]


def test_the_largest_report_keeps_a_status_small() -> None:
    metrics = {f"val/{'x' * (NAME_LIMIT - 8)}{i:04d}": -1 / 3e200 for i in range(MOST_METRICS)}
    curve = [CurvePoint(epoch=epoch, best=-1.23456e-200, mean=-1.23457e-200) for epoch in EPOCHS]
    report = REPORT.model_copy(update={"metrics": metrics, "curve": curve})
    sent = ProgressReport.model_validate_json(report.text())
    seen = dump(status(sent))
    assert len(seen["curve"]) == MOST_POINTS
    assert len(json.dumps(seen)) < 8192
    usual = [CurvePoint(epoch=epoch, best=0.612345, mean=0.512345) for epoch in EPOCHS]
    plain = dump(status(REPORT.model_copy(update={"curve": usual})))
    assert len(json.dumps(plain, separators=(",", ":"))) < 3000


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0s"), (59.4, "59s"), (59.6, "1m"), (3599, "59m"), (3600, "1h0m"), (11_530, "3h12m"), (86_399, "23h59m"),
        (86_400, "1d0h"), (1e9, "11574d1h"),
    ],
)  # fmt: skip
def test_a_span_of_time(seconds: float, text: str) -> None:
    assert time_text(seconds) == text


def test_a_rate_has_four_digits() -> None:
    assert [rounded(v) for v in (0.123456, 12.3456, 123_456.0, 0.0)] == ["0.1235", "12.35", "123500.0", "0.0"]
