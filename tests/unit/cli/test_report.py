from pathlib import Path
from typing import Any

from crossfold_cli.report import succeeded, summary

OBJECTIVE = {"metrics": [{"name": "val/JaccardIndex"}]}


def test_a_complete_tune() -> None:
    tune = {
        "kind": "Tune",
        "metadata": {"name": "a"},
        "spec": {"objective": OBJECTIVE, "maxTrials": 3},
        "status": {
            "phase": "Complete",
            "conditions": [
                {
                    "type": "Complete",
                    "status": "True",
                    "reason": "MaxTrialsReached",
                    "message": "all 3 trials have ended",
                }
            ],
            "trials": {"complete": 2, "unstable": 1, "failed": 0},
            "runs": {"succeeded": 9},
            "best": {
                "trial": 1,
                "crossValidation": "a-cv1",
                "score": "0.75",
                "std": "0.01",
                "parameters": [
                    {"name": "learning_rate", "value": 0.00123456},
                    {"name": "augment", "value": []},
                    {"name": "focal_loss_alpha"},
                ],
                "artifactUri": "/artifacts/default/a/a-cv1",
            },
        },
    }
    assert succeeded(tune)
    assert summary(tune, [], lambda _: None, "crossfold run a.yaml --set spec.maxTrials=6").splitlines() == [
        "Tune a is Complete: all 3 trials have ended",
        "  trials      2 complete, 1 unstable, 9 runs succeeded",
        "  best        trial 1, a-cv1",
        "  score       0.7500 ± 0.0100 (val/JaccardIndex)",
        "  parameters  learning_rate=0.001235, augment=[], focal_loss_alpha=null",
        "  artifacts   /artifacts/default/a/a-cv1",
        "  go on       crossfold run a.yaml --set spec.maxTrials=6",
        "  curves      tensorboard --logdir /artifacts/default/a/a-cv1",
    ]


def failed_run(name: str, message: str) -> dict[str, Any]:
    return {
        "kind": "TrainRun",
        "metadata": {"name": name},
        "spec": {},
        "status": {"phase": "Failed", "failure": {"class": "Crash", "message": message}},
    }


def test_failures_are_grouped_by_what_they_say() -> None:
    tune = {
        "kind": "Tune",
        "metadata": {"name": "a"},
        "spec": {"objective": OBJECTIVE},
        "status": {
            "phase": "Failed",
            "conditions": [{"type": "Failed", "status": "True", "reason": "NoScore", "message": "none of 2 trials"}],
        },
    }
    assert not succeeded(tune)
    runs = [
        failed_run("r1", "Traceback\nValueError: x"),
        failed_run("r2", "other\nValueError: x"),
        failed_run("r3", "y"),
        failed_run("r4", "z"),
        failed_run("r5", ""),
    ]
    assert summary(tune, runs, lambda run: Path("/logs") / run["metadata"]["name"], "").splitlines() == [
        "Tune a is Failed: none of 2 trials",
        "  trials      0 runs succeeded",
        "  failed      r1 and 1 more: Crash: ValueError: x",
        "  log         /logs/r1",
        "  failed      r3: Crash: y",
        "  log         /logs/r3",
        "  failed      r4: Crash: z",
        "  log         /logs/r4",
        "              and 1 other failures",
    ]


def test_the_other_kinds() -> None:
    cv = {
        "kind": "CrossValidation",
        "metadata": {"name": "a"},
        "spec": {"objective": {"metrics": [{"name": "val/Recall"}, {"name": "val/Precision"}], "combine": "Min"}},
        "status": {
            "phase": "Complete",
            "succeeded": 3,
            "expected": 3,
            "score": "0.5",
            "std": "0.1",
            "artifactUri": "/a",
        },
    }
    assert "  score       0.5000 ± 0.1000 (Min)" in summary(cv, [], lambda _: None, "").splitlines()
    run = {
        "kind": "TrainRun",
        "metadata": {"name": "a"},
        "spec": {"objective": OBJECTIVE},
        "status": {"phase": "Succeeded", "score": "0.5", "checkpointUri": "/a/best.ckpt", "artifactUri": "/a"},
    }
    assert "  checkpoint  /a/best.ckpt" in summary(run, [], lambda _: None, "").splitlines()
    assert summary({"kind": "TrainRun", "metadata": {"name": "a"}, "spec": {}}, [], lambda _: None, "").startswith(
        "TrainRun a is Pending"
    )
