"""Statuses: conditions, patches, sizes, columns."""

import json
from datetime import UTC, datetime, timedelta
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from crossfold_operator.api.crossvalidation import CrossValidationSpec, CrossValidationStatus
from crossfold_operator.api.fields import GpuSeconds, Usage
from crossfold_operator.api.parameters import ParameterValue
from crossfold_operator.api.tune import BestTrial, SearchStatus, TuneSpec, TuneStatus, WallClock
from crossfold_operator.names import Condition, Kind, Reason
from crossfold_operator.observe.runs import finite, read_runs
from crossfold_operator.observe.trials import read_trial
from crossfold_operator.plan.verdict import judge
from crossfold_operator.status.crossvalidation import cross_validation_status
from crossfold_operator.status.facts import (
    Fact,
    conditions,
    decimal,
    decimals,
    gpu_hours,
    score_text,
    short,
    total,
    valid,
)
from crossfold_operator.status.patch import dump, merge_patch
from crossfold_operator.status.tune import objective_text, tune_status
from tests.fakes import anything
from tests.fakes import world as w
from tests.fakes.memory_cluster import merge

NOW = datetime(2026, 1, 1, tzinfo=UTC)

# Patches --------------------------------------------------------------------------------------------------------------

NO_NULLS = st.recursive(
    st.booleans() | st.integers(-5, 5) | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("abcd"), inner, max_size=3),
    max_leaves=8,
)
DOCUMENTS = st.dictionaries(st.sampled_from("abcd"), NO_NULLS, max_size=4)


@given(old=DOCUMENTS, new=DOCUMENTS)
def test_a_patch_leads_from_old_to_new(old: dict[str, Any], new: dict[str, Any]) -> None:
    patch = merge_patch(old, new)
    assert merge(old, patch) == new
    assert (patch == {}) == (old == new)


@given(old=DOCUMENTS, new=DOCUMENTS)
def test_a_patch_holds_only_what_changed(old: dict[str, Any], new: dict[str, Any]) -> None:
    assert not any(key in old and old[key] == new.get(key) for key in merge_patch(old, new))


@settings(max_examples=40)
@given(
    st.tuples(st.just(TuneStatus), anything.statuses(Kind.TUNE))
    | st.tuples(st.just(CrossValidationStatus), anything.statuses(Kind.CROSS_VALIDATION))
)
def test_a_status_comes_back(drawn: tuple[Any, dict[str, Any]]) -> None:
    """What is dumped is read as the same status, and dumped as the same text again."""
    model, content = drawn
    stored = dump(model.model_validate(content))
    again = dump(model.model_validate(stored))
    assert again == stored
    assert merge_patch(stored, again) == {}


def test_what_a_dump_leaves_out() -> None:
    best = BestTrial(
        trial=0,
        cross_validation="t-cv0",
        score="0.5",
        std="0.0",
        parameters=[
            ParameterValue(name=name, value=value)
            for name, value in {
                "augment": [],
                "x-a": "",
                "x-b": {},
                "x-c": None,
                "x-d": {"a": None, "b": 1},
                "x-e": [None],
                "x-f": 0,
            }.items()
        ],
    )
    stored = dump(TuneStatus(best=best))
    assert stored["best"]["parameters"] == [
        {"name": "augment", "value": []},
        {"name": "x-a", "value": ""},
        {"name": "x-b", "value": {}},
        {"name": "x-c"},  # null: the API server would take it out
        {"name": "x-d", "value": {"b": 1}},
        {"name": "x-e", "value": [None]},
        {"name": "x-f", "value": 0},
    ]
    back = TuneStatus.model_validate(stored).best
    assert back is not None
    assert back.parameters[3].value is None
    assert "artifactUri" not in stored["best"]
    assert "conditions" not in stored
    assert "image" not in stored
    assert stored["trials"]["asked"] == 0
    assert stored["phase"] == "Pending"


# Conditions -----------------------------------------------------------------------------------------------------------


def test_the_time_of_a_condition_stays_until_its_status_changes() -> None:
    def at(minutes: int, *facts: Fact, before: Any = ()) -> list[Any]:
        return conditions(before, facts, NOW + timedelta(minutes=minutes), generation=minutes)

    running = Fact(Condition.COMPLETE, False, Reason.IN_PROGRESS, "1 of 3")
    first = at(0, running)
    second = at(1, Fact(Condition.COMPLETE, False, Reason.AS_EXPECTED, "2 of 3"), before=first)
    third = at(2, Fact(Condition.COMPLETE, True, Reason.SUCCEEDED), before=second)
    fourth = at(3, running, before=third)
    assert [c[0].last_transition_time for c in (first, second, third, fourth)] == [
        "2026-01-01T00:00:00Z", "2026-01-01T00:00:00Z", "2026-01-01T00:02:00Z", "2026-01-01T00:03:00Z",
    ]  # fmt: skip
    assert [c[0].observed_generation for c in (first, second)] == [0, 1]
    assert (second[0].reason, second[0].message) == ("AsExpected", "2 of 3")
    assert (first[0].status, third[0].status) == ("False", "True")


def test_a_long_message_is_cut() -> None:
    (condition,) = conditions([], [valid(["x" * 5000])], NOW, None)
    assert (condition.status, condition.reason, len(condition.message)) == ("False", "InvalidSpec", 4096)


def test_problems_are_told_together() -> None:
    assert valid(["a", "b"]).message == "a; b"
    assert valid([]) == Fact(Condition.VALID, True, Reason.ACCEPTED)


# Numbers as text ------------------------------------------------------------------------------------------------------


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_a_decimal_reads_back_as_the_same_number(value: float) -> None:
    text = decimal(value)
    assert float(text) == value
    assert len(text) <= 32
    assert finite(text) == value


def test_texts_for_columns() -> None:
    assert (short(0.81249), short(None), short("0.5")) == ("0.812", "", "0.500")
    assert (score_text("0.8124", "0.011"), score_text("0.8", None), score_text(None, None)) == (
        "0.812±0.011",
        "0.800±0.000",
        "",
    )
    # Scores near 0, as they are where less is better, and what is beside them.
    assert [short(value) for value in (0.0, 0.0123, -0.000412, "1e-9", 2.5e9, "NaN")] == [
        "0.000", "0.0123", "-0.000412", "0.00000000100", "2.5e+09", "nan",
    ]  # fmt: skip
    assert (score_text("0.000412", "0.00003"), short(1e-17, 0.5)) == ("0.000412±0.000030", "0.000")
    assert decimals({"a": None, "b": float("nan"), "c": 1}) == {"a": "NaN", "b": "NaN", "c": "1.0"}
    assert len(decimals({str(i): 0.5 for i in range(100)})) == 64
    usage = Usage(gpu_seconds=GpuSeconds(useful=3600, preempted=1800, failed=0), run_seconds=10)
    assert gpu_hours(usage) == "1.5h"
    assert total([usage, usage]).gpu_seconds.useful == 7200
    assert total([usage, usage]).run_seconds == 20
    assert gpu_hours(total([])) == "0.0h"


def test_objective_text() -> None:
    def text(**objective: Any) -> str:
        return objective_text(TuneSpec.model_validate(w.tune(objective=objective)["spec"]).objective)

    assert text(metrics=[{"name": "val/loss"}]) == "Minimize val/loss"
    both = [{"name": "val/JaccardIndex"}, {"name": "val/Recall"}]
    assert text(metrics=both, combine="Min") == "Min(Maximize val/JaccardIndex, Maximize val/Recall)"


# Sizes ----------------------------------------------------------------------------------------------------------------


def run_objects(folds: int, seeds: int, *, metrics: int = 2, **status: Any) -> list[dict[str, Any]]:
    """TrainRuns as they are stored, with names as long as they get."""
    name = "a-tune-with-a-name-of-forty-characters-x-cv9999"
    return [
        {
            "metadata": {"name": f"{name}-f{fold}s{9000 + seed}", "uid": f"{fold}-{seed}"},
            "spec": {"fold": fold, "seed": 9000 + seed},
            "status": {
                "phase": "Succeeded",
                "score": "0.8123456789012345",
                "stable": True,
                "values": {f"val/SomeMetric{i}": "0.8123456789012345" for i in range(metrics)},
                "preemptions": 3,
                "dataDigest": "d" * 64,
                "usage": {"gpuSeconds": {"useful": 100_000, "preempted": 2_000}, "runSeconds": 105_000},
                **status,
            },
        }
        for seed in range(seeds)
        for fold in range(folds)
    ]


def cv_status(folds: int, seeds: int, *, metrics: int = 2, **status: Any) -> CrossValidationStatus:
    spec = CrossValidationSpec.model_validate(
        w.cross_validation(crossValidation={"folds": folds, "seeds": [9000 + s for s in range(seeds)]})["spec"]
    )
    return cross_validation_status(
        spec=spec,
        previous=CrossValidationStatus(image="registry.example.com/team/crossfold-trainer@sha256:" + "0" * 64),
        runs=read_runs(run_objects(folds, seeds, metrics=metrics, **status), []),
        artifact_uri="s3://a-bucket/with/a/prefix/default/a-tune/a-cv",
        degraded=None,
        now=NOW,
        generation=1,
    )


def size(status: Any) -> int:
    """Bytes of a status as the API server sends it."""
    return len(json.dumps(dump(status), separators=(",", ":")).encode())


def test_sizes_of_cross_validations() -> None:
    assert cv_status(5, 6).phase == "Complete"
    assert size(cv_status(5, 6)) < 12_000
    assert size(cv_status(5, 6, metrics=1)) < 10_500
    assert size(cv_status(10, 30, metrics=1)) < 100_000


def test_the_size_of_a_cross_validation_that_fails_all_over() -> None:
    """All runs in flight at a time, all failed, with messages as long as they get."""
    failed = cv_status(10, 30, phase="Failed", failure={"class": "Crash", "message": "x" * 2048})
    assert failed.failed == 300
    assert size(failed) < 100_000
    assert failed.runs[0].message == "x" * 33


def test_messages_of_few_runs_are_whole() -> None:
    failed = cv_status(2, 2, phase="Failed", failure={"class": "Crash", "message": "x" * 2048})
    assert [len(record.message) for record in failed.runs] == [512] * 4


def test_a_record_tells_the_digest_of_its_data_where_it_differs() -> None:
    status = cv_status(2, 1)
    assert "dataDigest" not in dump(status)["runs"][0]
    other = status.model_copy(update={"runs": [status.runs[0].model_copy(update={"data_digest": "e" * 64})]})
    assert dump(other)["runs"][0]["dataDigest"] == "e" * 64


def no_runs(uid: str) -> list[Any]:
    raise AssertionError(f"runs of {uid} were asked for, which has ended")


def trial(number: int, phase: str = "Complete") -> dict[str, Any]:
    status = dump(cv_status(5, 1))
    return {
        "metadata": {"name": f"a-tune-with-a-name-of-forty-characters-x-cv{number}", "uid": str(number)},
        "spec": {"hyperparameters": [{"name": "batch_size", "value": number}] * 3},
        "status": {**status, "phase": phase, "score": f"0.{number:04}56789012345", "std": "0.0123456789012345"},
    }


def test_the_size_of_a_tune_does_not_grow_with_its_trials() -> None:
    spec = TuneSpec.model_validate(w.tune(maxTrials=1000)["spec"])
    sizes = []
    for count in (20, 1000):
        trials = [read_trial(trial(n), n, frozenset({"batch_size"}), no_runs) for n in range(count)]
        status = tune_status(
            spec=spec,
            previous=TuneStatus(),
            trials=trials,
            asked=count,
            judgement=judge(spec, trials, count, WallClock(), NOW),
            search=SearchStatus(sampler="TPE (Optuna 4.5.0)", history_digest="a" * 64),
            artifact_uri="s3://a-bucket/with/a/prefix/default/a-tune",
            degraded=None,
            now=NOW,
            generation=1,
        )
        assert status.trials.complete == count
        assert status.best is not None
        assert status.best.trial == count - 1
        assert [brief.trial for brief in status.top] == list(range(count - 1, count - 11, -1))
        sizes.append(size(status))
    assert sizes[1] < 10_000
    assert sizes[1] - sizes[0] < 300


def test_of_equal_trials_the_older_is_better() -> None:
    spec = TuneSpec.model_validate(w.tune()["spec"])
    objects = [{**trial(n), "status": {**trial(n)["status"], "score": "0.5"}} for n in (2, 0, 1)]
    trials = sorted(
        (read_trial(o, int(o["metadata"]["uid"]), frozenset(), no_runs) for o in objects),
        key=lambda found: found.number,
    )
    status = tune_status(
        spec=spec, previous=TuneStatus(), trials=trials, asked=3, search=SearchStatus(), artifact_uri="",
        degraded=None, now=NOW, generation=1, judgement=judge(spec, trials, 3, WallClock(), NOW),
    )  # fmt: skip
    assert [brief.trial for brief in status.top] == [0, 1, 2]
