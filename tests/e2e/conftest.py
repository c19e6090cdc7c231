"""The installed chart, the example data in a real S3 server, and a namespace that reaches both."""

import copy
import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from devcluster import install, s3
from devcluster.paths import default_state
from tests.conftest import ROOT, Kubectl

QUICKSTART = ROOT / "examples" / "quickstart"
OWN = ("tune", "crossvalidation", "trainrun")
Obj = dict[str, Any]
ENDLESS = {"maxEpochs": 10_000, "checkValEveryNEpoch": 1, "earlyStoppingPatience": None}
"""Settings of a training that ends when it is ended."""


def full(kind: str) -> str:
    """A kind with its group: a short name may mean another group's."""
    return f"{kind}.crossfold.dev" if kind.removesuffix("s") in OWN else kind


@pytest.fixture(scope="session")
def operator(images: dict[str, str]) -> None:
    """The chart, installed with the images of this working tree."""
    install.install(default_state())


@pytest.fixture(scope="session")
def data(cluster_environment: dict[str, str]) -> Obj:
    """The quickstart's data set in the first S3 server; what a spec says of it."""
    state = default_state()
    server = s3.servers(state)["data"]
    uri = f"s3://{server.bucket}/landsat"
    subprocess.run(
        [sys.executable, QUICKSTART / "make_dataset.py", uri, "--endpoint", server.endpoint, "--region", server.region],
        env=cluster_environment | {"AWS_ACCESS_KEY_ID": server.access_key, "AWS_SECRET_ACCESS_KEY": server.secret_key},
        check=True,
    )
    return {"uri": uri, "endpoint": "http://s3-data:9000", "region": server.region, "secretRef": {"name": "s3-data"}}


@dataclass
class World:
    """A namespace with the Secrets of both S3 servers, and the ways to look into it."""

    namespace: str
    kubectl: Kubectl
    template: Obj
    """Spec of a small but real training: the quickstart's data, model and places, two epochs."""

    def apply(self, kind: str, name: str, spec: Obj) -> None:
        self.kubectl("create", "-n", self.namespace, "-f", "-", stdin=self.manifest(kind, name, spec))

    def manifest(self, kind: str, name: str, spec: Obj) -> Obj:
        return {"apiVersion": "crossfold.dev/v1alpha1", "kind": kind, "metadata": {"name": name}, "spec": spec}

    def train_run(self, **changes: Any) -> Obj:
        """Spec of a TrainRun."""
        common = copy.deepcopy(self.template)
        hyperparameters = [{"name": "learning_rate", "value": 3e-3}, *common.pop("fixed")]
        return {**common, "folds": 3, "hyperparameters": hyperparameters, **changes}

    def grid(self, **changes: Any) -> Obj:
        """Spec of a Tune over two learning rates and two folds."""
        parameters = [{"name": "learning_rate", "type": "Categorical", "values": [1e-4, 3e-3]}]
        return {
            **copy.deepcopy(self.template),
            "parameters": parameters,
            "algorithm": {"name": "Grid"},
            "maxTrials": 2,
            "parallelism": 2,
            "crossValidation": {"folds": 3, "runFolds": 2},
            **changes,
        }

    def get(self, kind: str, name: str) -> Obj:
        found: Obj = json.loads(self.kubectl("get", full(kind), name, "-n", self.namespace, "-o", "json"))
        return found

    def list(self, kind: str, *selector: str) -> list[Obj]:
        found: list[Obj] = json.loads(self.kubectl("get", full(kind), "-n", self.namespace, *selector, "-o", "json"))[
            "items"
        ]
        return found

    def wait(self, kind: str, name: str, until: Callable[[Obj], Any], seconds: float = 240) -> Obj:
        """The object as soon as its status (and object) satisfies the condition."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            obj = self.get(kind, name)
            obj.setdefault("status", {})
            if until(obj):
                return obj
            time.sleep(0.5)
        operator_log = self.kubectl(
            "logs", "-n", install.NAMESPACE, f"deploy/{install.RELEASE}", "--tail=30", check=False
        )
        pods = self.kubectl("get", "pods,jobs,trainruns.crossfold.dev", "-n", self.namespace, "-o", "wide", check=False)
        status = json.dumps(obj["status"], indent=1)
        raise AssertionError(f"{kind} {name} after {seconds} s:\n{status}\n{pods}\n{operator_log}")

    def phase(self, kind: str, name: str, *phases: str, seconds: float = 240) -> Obj:
        return self.wait(kind, name, lambda obj: obj["status"].get("phase") in phases, seconds)

    def artifacts(self, uri: str) -> Path:
        """The folder behind an artifact URI: to this S3 server a bucket is a folder."""
        return default_state().s3 / "artifacts" / uri.removeprefix("s3://")


@pytest.fixture
def world(operator: None, data: Obj, namespace: str, kubectl: Kubectl) -> Iterator[World]:
    """A fresh namespace in which everything is there to train."""
    install.connect(default_state(), namespace)
    quickstart = yaml.safe_load((QUICKSTART / "tune.yaml").read_text())["spec"]
    template = {key: quickstart[key] for key in ("objective", "artifacts", "fixed", "template")}
    template["data"] = data
    template["trainer"] = {"maxEpochs": 2, "checkValEveryNEpoch": 1}
    template["template"]["resources"] = {"requests": {"cpu": "100m"}, "limits": {"cpu": "1", "memory": "4Gi"}}
    yield World(namespace, kubectl, template)
    for kind in ("tunes", "crossvalidations", "trainruns"):
        kubectl("delete", full(kind), "--all", "-n", namespace, "--wait=false", check=False)


def condition(obj: Obj, kind: str) -> Obj:
    """A condition of an object, or an empty one."""
    return next((c for c in obj["status"].get("conditions", ()) if c["type"] == kind), {})
