"""Trainers of one's own: any container that keeps the contract, in Python without libraries and in shell."""

from typing import Any

import pytest
import yaml

from tests.conftest import ROOT
from tests.e2e.conftest import Obj, World, condition

pytestmark = [pytest.mark.cluster, pytest.mark.images, pytest.mark.timeout(600)]

EXAMPLE = ROOT / "examples" / "any-container"
INTERRUPTED = """\
import os, signal, sys
from crossfold_trainer.contract.run import main
def train(run):
    if run.config.attempt == 1:
        signal.pause()
    return {"val/RMSE": 0.5}
main(train)
"""


@pytest.fixture
def code(world: World) -> World:
    """The namespace, with the example's code in a ConfigMap."""
    files = [f"--from-file={EXAMPLE / name}" for name in ("train.py", "train.sh")]
    world.kubectl("create", "configmap", "own-trainer", *files, "-n", world.namespace)
    return world


def spec(name: str, image: str, **changes: Any) -> Obj:
    """An example's spec, in an image that is at hand."""
    found: Obj = yaml.safe_load((EXAMPLE / f"{name}.yaml").read_text())["spec"]
    return {**found, "template": {**found["template"], "image": image}, **changes}


@pytest.mark.parametrize("language", ["python", "shell"])
def test_a_search_over_a_container_without_torch(code: World, images: dict[str, str], language: str) -> None:
    code.apply("Tune", language, spec(language, images["operator"]))
    status = code.phase("tune", language, "Complete", "Failed")["status"]
    assert status["phase"] == "Complete", status
    assert status["trials"]["asked"] == 6
    best = status["best"]
    assert 0 < float(best["score"]) < 1
    scores = [float(trial["score"]) for trial in status["top"]]
    assert scores == sorted(scores), "less is better"
    assert len(set(scores)) > 1, "hyperparameters reach the program"


def test_a_metric_that_is_not_reported_ends_the_search_at_once(code: World, images: dict[str, str]) -> None:
    wrong = {"metrics": [{"name": "val/Accuracies", "direction": "Maximize"}]}
    code.apply("Tune", "wrong", spec("shell", images["operator"], objective=wrong))
    found = code.wait("tune", "wrong", lambda obj: condition(obj, "Degraded").get("reason") == "ConfigError")
    message = condition(found, "Degraded")["message"]
    assert "val/Accuracies" in message
    assert "val/RMSE" in message
    assert code.phase("tune", "wrong", "Failed")["status"]["trials"]["asked"] <= 4, "the others are not burnt"


def test_a_container_that_is_ended_goes_on_in_the_next_attempt(world: World, images: dict[str, str]) -> None:
    run = world.train_run(
        objective={"metrics": [{"name": "val/RMSE", "direction": "Minimize"}]},
        hyperparameters=[{"name": "x-any", "value": 1}],
        template={
            "image": images["operator"],
            "command": ["python", "-c", INTERRUPTED],
            "terminationGracePeriodSeconds": 20,
            "env": [{"name": "NODE", "valueFrom": {"fieldRef": {"fieldPath": "spec.nodeName"}}}],
            "initContainers": [{"name": "before", "image": images["operator"], "command": ["sh", "-c", "true"]}],
        },
    )
    world.apply("TrainRun", "own", run)
    world.phase("trainrun", "own", "Running")
    world.kubectl("delete", "pod", "-l", "crossfold.dev/train-run=own", "-n", world.namespace, "--wait=false")
    status = world.phase("trainrun", "own", "Succeeded", "Failed")["status"]
    assert (status["phase"], status["preemptions"], status["score"]) == ("Succeeded", 1, "0.5"), status
