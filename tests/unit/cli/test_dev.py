from typing import Any

import pytest

from crossfold_cli.dev import tiny

TRAINER = {
    "maxEpochs": 2,
    "checkValEveryNEpoch": 1,
    "limitTrainBatches": 2,
    "limitValBatches": 2,
    "detectAnomaly": True,
}


@pytest.mark.parametrize(
    ("kind", "spec", "expected"),
    [
        ("Tune", {}, {"crossValidation": {"runFolds": 2}, "maxTrials": 2}),
        (
            "Tune",
            {"maxTrials": 1, "crossValidation": {"folds": 1}},
            {"crossValidation": {"folds": 1, "runFolds": 1}, "maxTrials": 1},
        ),
        (
            "Tune",
            {"maxFailedTrials": 9, "crossValidation": {"folds": 5, "seeds": [3, 4]}},
            {"maxFailedTrials": 2, "crossValidation": {"folds": 5, "runFolds": 2, "seeds": [3]}, "maxTrials": 2},
        ),
        (
            "Tune",
            {"pruning": {"method": "ASHA", "minEpochs": 9, "reductionFactor": 3}},
            {"pruning": {"method": "None"}, "crossValidation": {"runFolds": 2}, "maxTrials": 2},
        ),
        (
            "CrossValidation",
            {"crossValidation": {"randomSeeds": 9}},
            {"crossValidation": {"randomSeeds": 1, "runFolds": 2}},
        ),
        ("TrainRun", {"fold": 1}, {"fold": 1}),
        (
            "Tune",
            {"maxTrials": "x", "crossValidation": {"folds": None}},
            {"maxTrials": 2, "crossValidation": {"folds": None, "runFolds": 2}},
        ),
    ],
)
def test_tiny(kind: str, spec: dict[str, Any], expected: dict[str, Any]) -> None:
    obj, told = tiny({"kind": kind, "metadata": {"name": "a"}, "spec": spec})
    assert obj["spec"] == {"trainer": TRAINER} | expected
    assert obj["metadata"]["name"] == "a-dev"
    assert told[0] == "metadata.name=a-dev"
    assert "spec.trainer.detectAnomaly=true" in told


def test_other_settings_stay_and_the_name_stays_short_enough() -> None:
    obj, _ = tiny(
        {"kind": "TrainRun", "metadata": {"name": "a" * 40}, "spec": {"trainer": {"numWorkers": 2, "maxEpochs": 9}}}
    )
    assert obj["spec"]["trainer"] == TRAINER | {"numWorkers": 2}
    assert len(obj["metadata"]["name"]) == 40
