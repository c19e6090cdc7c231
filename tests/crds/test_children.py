"""What the operator creates, as the golden files have it, is what a real API server accepts."""

import copy
import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from crossfold_operator.cluster import paths
from crossfold_operator.names import Kind
from tests.crds.conftest import Api

GOLDEN = Path(__file__).parents[1] / "golden"
CHILDREN = [
    pytest.param(child, id=f"{path.parent.name}-{child['kind']}-{child['metadata']['name']}")
    for path in sorted(GOLDEN.glob("*/children.yaml"))
    for child in yaml.safe_load(path.read_text())["created"]
]


@pytest.mark.cluster
@pytest.mark.parametrize("child", CHILDREN)
def test_a_child_is_accepted(api: Api, child: dict[str, Any]) -> None:
    obj = copy.deepcopy(child)
    kind = Kind(obj["kind"])
    obj["metadata"]["namespace"] = api.namespace
    for owner in obj["metadata"]["ownerReferences"]:
        owner["uid"] = "00000000-0000-0000-0000-000000000000"
    if kind is Kind.JOB:
        (container,) = obj["spec"]["template"]["spec"]["containers"]
        for variable in container["env"]:
            if isinstance(variable.get("value"), dict):
                variable["value"] = json.dumps(variable["value"])
    stored = api.request("POST", paths.collection(kind, api.namespace), obj, dryRun="All", fieldValidation="Strict")
    assert stored["metadata"]["name"] == obj["metadata"]["name"]
    if kind is Kind.JOB:
        assert stored["spec"]["podFailurePolicy"]["rules"][-1]["onPodConditions"][0]["type"] == "DisruptionTarget"


def test_there_are_children_of_every_kind() -> None:
    kinds = {param.values[0]["kind"] for param in CHILDREN}
    assert kinds == {"CrossValidation", "TrainRun", "Job", "Service"}
