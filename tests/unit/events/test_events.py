"""What is worth telling about the step from one status to the next."""

from typing import Any

import pytest

from crossfold_operator.api.crossvalidation import CrossValidationStatus
from crossfold_operator.api.trainrun import TrainRunStatus
from crossfold_operator.api.tune import TuneStatus
from crossfold_operator.events import Event, between

BEST = {"trial": 3, "crossValidation": "t-cv3", "score": "0.8123", "std": "0.011"}
CRASH = {"class": "Crash", "message": "KeyError"}


def condition(kind: str, status: str, reason: str, message: str = "why") -> dict[str, str]:
    when = "2026-01-01T00:00:00Z"
    return {"type": kind, "status": status, "reason": reason, "message": message, "lastTransitionTime": when}


INVALID = {"conditions": [condition("Valid", "False", "InvalidSpec", "spec.x: no")]}
BROKEN = {"conditions": [condition("Degraded", "True", "NameConflict", "taken")]}
OTHER = {"conditions": [condition("Degraded", "True", "ImagePull", "no image")]}
DONE = {
    "phase": "Complete",
    "conditions": [condition("Complete", "True", "MaxTrialsReached", "all 4 trials have ended")],
}
LOST = {"phase": "Failed", "conditions": [condition("Failed", "True", "NoScore", "none of 4 trials")]}


@pytest.mark.parametrize(
    ("model", "old", "new", "events"),
    [
        # Nothing happened.
        *[(model, {}, {}, []) for model in (TuneStatus, CrossValidationStatus, TrainRunStatus)],
        (TuneStatus, {}, {"phase": "Running"}, []),
        (TuneStatus, BROKEN, BROKEN, []),
        (TuneStatus, DONE, DONE, []),
        # Conditions, of all kinds alike.
        *[
            (model, {}, INVALID, [(True, "InvalidSpec", "spec.x: no")])
            for model in (TuneStatus, CrossValidationStatus, TrainRunStatus)
        ],
        (TuneStatus, {}, BROKEN, [(True, "NameConflict", "taken")]),
        (TuneStatus, BROKEN, OTHER, [(True, "ImagePull", "no image")]),
        (TuneStatus, BROKEN, {}, []),
        (TuneStatus, {}, {"conditions": [condition("Degraded", "False", "AsExpected")]}, []),
        # Tune
        (TuneStatus, {}, {"best": BEST}, [(False, "NewBest", "trial 3 is the best so far: 0.812±0.011")]),
        (TuneStatus, {"best": BEST}, {"best": BEST}, []),
        (TuneStatus, {"best": {**BEST, "trial": 1}}, {"best": BEST}, [(False, "NewBest", None)]),
        (TuneStatus, {"best": BEST}, {}, []),
        (TuneStatus, {"phase": "Running"}, DONE, [(False, "MaxTrialsReached", "all 4 trials have ended")]),
        (TuneStatus, {"phase": "Running"}, LOST, [(True, "NoScore", "none of 4 trials")]),
        (TuneStatus, {"phase": "Running"}, {"phase": "Suspended"}, [(False, "Suspended", "phase Suspended")]),
        (TuneStatus, {"phase": "Suspended"}, {"phase": "Running"}, [(False, "Resumed", "phase Running")]),
        # CrossValidation
        (CrossValidationStatus, {}, {"phase": "Running"}, []),
        (
            CrossValidationStatus,
            {"phase": "Running"},
            {"phase": "Complete", "score": "0.5", "std": "0.1", "summary": {"runs": "3/3"}},
            [(False, "TrialFinished", "Complete after 3/3 runs: score 0.500±0.100")],
        ),
        (
            CrossValidationStatus,
            {"phase": "Running"},
            {"phase": "Failed", "summary": {"runs": "1/3", "reason": "c-f1s42: Crash: KeyError"}},
            [(True, "TrialFinished", "Failed after 1/3 runs: c-f1s42: Crash: KeyError")],
        ),
        (CrossValidationStatus, {"phase": "Failed"}, {"phase": "Failed"}, []),
        # TrainRun
        (
            TrainRunStatus,
            {},
            {"ended": 1, "failure": CRASH},
            [(True, "Retrying", "attempt 1 ended (Crash): KeyError")],
        ),
        (
            TrainRunStatus,
            {"ended": 1, "failure": CRASH},
            {"ended": 2, "failure": {"class": "Preempted", "message": "node drained"}},
            [(False, "Preempted", "attempt 2 ended (Preempted): node drained")],
        ),
        (TrainRunStatus, {"ended": 1, "failure": CRASH}, {"ended": 1, "failure": CRASH, "phase": "Running"}, []),
        (
            TrainRunStatus,
            {"ended": 1, "failure": CRASH},
            {"ended": 2, "failure": CRASH, "phase": "Failed", "summary": {"reason": "Crash: KeyError"}},
            [(True, "RunFailed", "Crash: KeyError")],
        ),
        (
            TrainRunStatus,
            {"phase": "Running"},
            {"phase": "Succeeded", "stable": True, "summary": {"score": "0.500", "epoch": "9/12"}},
            [(False, "Succeeded", "score 0.500, epoch 9/12")],
        ),
        (
            TrainRunStatus,
            {"phase": "Running"},
            {"phase": "Succeeded", "stable": False, "summary": {"reason": "the loss is not finite"}},
            [(True, "Succeeded", "score no score (the loss is not finite), epoch ")],
        ),
        (
            TrainRunStatus,
            {"phase": "Running"},
            {"phase": "Stopped", "summary": {"reason": "Stopped: enough"}},
            [(False, "Stopped", "Stopped: enough")],
        ),
    ],
)
def test_between(
    model: Any, old: dict[str, Any], new: dict[str, Any], events: list[tuple[bool, str, str | None]]
) -> None:
    found = between(model.model_validate(old), model.model_validate(new))
    assert [(e.warning, e.reason) for e in found] == [(warning, reason) for warning, reason, _ in events]
    for event, (_, _, message) in zip(found, events, strict=True):
        assert isinstance(event, Event)
        assert message is None or event.message == message


def test_two_kinds_do_not_mix() -> None:
    with pytest.raises(TypeError, match="TuneStatus cannot become TrainRunStatus"):
        between(TuneStatus(), TrainRunStatus())
