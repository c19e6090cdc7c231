"""The runs of a trial, as they are seen and remembered."""

from typing import Any

import pytest

from crossfold_operator.api.crossvalidation import RunRecord
from crossfold_operator.observe.metadata import Obj
from crossfold_operator.observe.runs import finite, read_runs


def train_run(fold: int, phase: str, **status: Any) -> Obj:
    meta = {"name": f"c-f{fold}s42", "uid": f"uid{fold}"}
    return {"metadata": meta, "spec": {"fold": fold, "seed": 42}, "status": {"phase": phase, **status}}


def record(fold: int, phase: str, **fields: Any) -> RunRecord:
    return RunRecord.model_validate({"fold": fold, "seed": 42, "run": "remembered", "phase": phase, **fields})


@pytest.mark.parametrize(
    ("there", "remembered", "found"),
    [
        ([], [], []),
        ([train_run(1, "Running"), train_run(0, "Queued")], [], [(0, "Queued", True), (1, "Running", True)]),
        # A finished run that is gone is remembered; one that was under way is not: it is made again.
        ([], [record(0, "Succeeded"), record(1, "Running")], [(0, "Succeeded", False)]),
        ([], [record(0, "Failed"), record(1, "Stopped")], [(0, "Failed", False), (1, "Stopped", False)]),
        # What is seen counts more than what is remembered.
        ([train_run(0, "Failed")], [record(0, "Running")], [(0, "Failed", True)]),
        ([train_run(0, "Succeeded")], [record(0, "Succeeded")], [(0, "Succeeded", True)]),
        # A run that has ended has ended, also when somebody made its object again.
        ([train_run(0, "Running")], [record(0, "Succeeded")], [(0, "Succeeded", False)]),
    ],
)
def test_runs(there: list[Obj], remembered: list[RunRecord], found: list[tuple[int, str, bool]]) -> None:
    runs = read_runs(there, remembered)
    assert [(r.record.fold, r.record.phase.value, bool(r.uid)) for r in runs] == found


def test_a_run_in_brief() -> None:
    content = {"score": "0.5", "stable": True, "values": {"val/loss": "0.5"}, "preemptions": 2, "dataDigest": "d"}
    (done,) = read_runs([train_run(0, "Succeeded", **content)], [])
    assert (done.record.score, done.record.stable, done.record.values) == ("0.5", True, {"val/loss": "0.5"})
    assert (done.record.preemptions, done.record.data_digest, done.terminal) == (2, "d", True)
    # What is recorded after a stop is no score.
    (stopped,) = read_runs([train_run(0, "Stopped", **content)], [])
    assert (stopped.record.score, stopped.record.stable, stopped.record.values) == (None, None, {})
    # Without a word on whether the score may be compared, it may not, and the reason is told.
    for stable, reason in (({"stable": True}, ""), ({"stable": False}, "it diverged"), ({}, "it diverged")):
        (scored,) = read_runs([train_run(0, "Succeeded", summary={"reason": "it diverged"}, **stable)], [])
        assert (scored.record.stable, scored.record.message) == (not reason, reason)
    failure = {"class": "Crash", "message": "x" * 2000}
    (failed,) = read_runs([train_run(0, "Failed", failure=failure)], [])
    assert (failed.record.failure_class, len(failed.record.message)) == ("Crash", 512)
    (retrying,) = read_runs([train_run(0, "Running", failure=failure)], [])
    assert (retrying.record.failure_class, retrying.record.message, retrying.terminal) == ("", "", False)
    new = {"metadata": {"name": "c", "uid": "u", "deletionTimestamp": "2026-01-01T00:00:00Z"}}
    new["spec"] = {"stop": {"reason": "Stopped"}, "suspend": True}  # type: ignore[assignment]
    (fresh,) = read_runs([new], [])
    assert (fresh.record.phase.value, fresh.unit) == ("Queued", (0, 42))
    assert (fresh.stopping, fresh.suspended, fresh.deleting) == (True, True, True)


@pytest.mark.parametrize(
    ("text", "value"), [(None, None), ("NaN", None), ("0.5", 0.5), ("-1e-07", -1e-7), ("1e999", None), ("9" * 32, 1e32)]
)
def test_finite(text: str | None, value: float | None) -> None:
    assert finite(text) == value
