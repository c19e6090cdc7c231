"""One training in two real pods: it makes the run of one pod, and goes on when one of them is lost."""

import csv
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.conftest import Kubectl
from tests.e2e.conftest import Obj, World

pytestmark = [pytest.mark.cluster, pytest.mark.images, pytest.mark.timeout(900)]

CALM = 1e-4
"""A learning rate at which rounding stays small: AdamW makes full steps of gradients that are 0 but for rounding."""


def spec_of(world: World, **trainer: Any) -> Obj:
    """Two epochs on batches of 4, which two nodes share."""
    spec = world.train_run(trainer={"maxEpochs": 2, "checkValEveryNEpoch": 1, **trainer})
    spec["objective"] = {"metrics": [{"name": "val/loss"}]}
    others = [item for item in spec["hyperparameters"] if item["name"] != "learning_rate"]
    spec["hyperparameters"] = [{"name": "learning_rate", "value": CALM}, *others]
    return spec


def losses(folder: Path) -> list[float]:
    with (folder / "metrics.csv").open() as file:
        return [float(row[name]) for row in csv.DictReader(file) for name in ("train/loss", "val/loss")]


def weights(folder: Path) -> dict[str, torch.Tensor]:
    content: Obj = torch.load(folder / "checkpoints" / "best.ckpt", weights_only=True)
    return dict(content["state_dict"])


def test_two_pods_make_the_run_of_one(world: World, kubectl: Kubectl) -> None:
    runs = {"one": {}, "replicas": {"nodes": 2}, "shards": {"nodes": 2, "strategy": "FSDP"}}
    for name, trainer in runs.items():
        world.apply("TrainRun", name, spec_of(world, **trainer))
    done = {name: world.phase("trainrun", name, "Succeeded", "Failed", seconds=400)["status"] for name in runs}
    assert {status["phase"] for status in done.values()} == {"Succeeded"}, done
    assert {status["digest"] for status in done.values()} == {done["one"]["digest"]}
    folders = {name: world.artifacts(status["artifactUri"]) for name, status in done.items()}
    one = weights(folders["one"])
    for name in ("replicas", "shards"):
        status = done[name]
        assert status["attempt"] == 1
        assert (status["epochs"], status["step"]) == (done["one"]["epochs"], done["one"]["step"])
        assert float(status["score"]) == pytest.approx(float(done["one"]["score"]), rel=2e-2)
        assert losses(folders[name]) == pytest.approx(losses(folders["one"]), rel=2e-2)
        other = weights(folders[name])
        assert one.keys() == other.keys()
        assert all(torch.allclose(one[key].float(), other[key].float(), atol=2e-2) for key in one)
        pods = world.list("pods", "-l", f"crossfold.dev/train-run={name}")
        assert sorted(p["metadata"]["labels"]["batch.kubernetes.io/job-completion-index"] for p in pods) == ["0", "1"]
        assert {p["status"]["phase"] for p in pods} == {"Succeeded"}
    assert not world.list("services", "-l", "crossfold.dev/train-run=one")
    (service,) = world.list("services", "-l", "crossfold.dev/train-run=shards")
    assert (service["metadata"]["name"], service["spec"]["clusterIP"]) == ("shards", "None")
    kubectl(
        "delete", "trainrun.crossfold.dev", "shards", "-n", world.namespace, "--cascade=foreground", "--timeout=60s"
    )
    assert not world.list("services", "-l", "crossfold.dev/train-run=shards")


def test_a_pod_that_goes_ends_all_and_the_run_goes_on(world: World, kubectl: Kubectl) -> None:
    world.apply("TrainRun", "pair", spec_of(world, nodes=2, maxEpochs=12))
    first = world.wait("trainrun", "pair", lambda r: r["status"].get("epoch"))["status"]
    assert first["phase"] == "Running"
    index = "batch.kubernetes.io/job-completion-index=1"
    kubectl("delete", "pod", "-l", f"crossfold.dev/train-run=pair,{index}", "-n", world.namespace, "--wait=false")
    status = world.phase("trainrun", "pair", "Succeeded", "Failed", seconds=400)["status"]
    assert (status["phase"], status["attempt"], status["preemptions"]) == ("Succeeded", 2, 1)
    assert (status["crashes"], status["infrastructureFailures"], status["epochs"]) == (0, 0, 12)
