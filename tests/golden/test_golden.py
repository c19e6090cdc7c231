"""Objects in, one reconcile, children and status out: each folder here is a case.

``input.yaml`` holds the object that is reconciled, and after it what else is there. ``children.yaml`` holds what the
reconcile created, patched and deleted, ``status.yaml`` the status that it wrote. Written anew with
``UPDATE_GOLDEN=1 pytest tests/golden``, which compares nothing and skips: the difference is to be read before it is
committed.
"""

import difflib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from crossfold_operator.cluster import admission
from crossfold_operator.cluster.base import Obj, key_of
from crossfold_operator.names import OWN_KINDS, Kind
from crossfold_operator.reconcile.reconciler import Reconciler
from crossfold_operator.settings import Settings
from tests.conftest import in_ci
from tests.fakes.memory_cluster import MemoryCluster
from tests.fakes.world import config_of, result_of

HERE = Path(__file__).parent
CASES = sorted(path.parent.name for path in HERE.glob("*/input.yaml"))


def updating(environment: Mapping[str, str]) -> bool:
    """Whether the files are written anew instead of compared with: by hand only.

    Raises:
        pytest.UsageError: that is asked for in CI, where it would accept anything.
    """
    wanted = environment.get("UPDATE_GOLDEN") == "1"
    if wanted and in_ci(environment):
        raise pytest.UsageError("UPDATE_GOLDEN=1 is refused where CI is set: write the files by hand, and commit them")
    return wanted


UPDATE = updating(os.environ)


def load(case: str) -> list[Obj]:
    """The objects of a case, completed as the API server would."""
    objects = list(yaml.safe_load_all((HERE / case / "input.yaml").read_text()))
    for obj in objects:
        meta = {"namespace": "default", "generation": 1, "creationTimestamp": "2025-12-31T23:00:00Z"}
        obj["metadata"] = {**meta, "uid": f"uid-of-{obj['metadata']['name']}"} | obj["metadata"]
        for owner in obj["metadata"].get("ownerReferences", ()):
            owner |= {"uid": f"uid-of-{owner['name']}", "controller": True}
    return objects


async def reconcile(case: str) -> tuple[Obj, Obj]:
    """What one reconcile makes of a case: children and status."""
    objects = load(case)
    cluster = MemoryCluster()
    before = {}
    for obj in objects:
        if Kind(obj["kind"]) in OWN_KINDS:
            admitted, problems = admission.admit(obj)
            assert problems == [], f"{key_of(obj)} of {case} would be refused"
            obj = admitted  # noqa: PLW2901
        else:
            obj = _with_result(obj, objects[0])  # noqa: PLW2901
        before[key_of(obj)] = cluster.replace(obj)
    root = key_of(objects[0])
    settings = Settings(trainer_image="registry/trainer@sha256:1234", progress_url="http://crossfold.ops.svc:8080")
    await Reconciler(cluster, settings, cluster.clock, live=lambda uid: None)(root)
    status = cluster.objects[root].get("status", {})
    created = [_told(cluster.objects[key]) for verb, key in cluster.writes if verb == "create"]
    patched = {
        str(key): {
            name: value for name, value in cluster.objects[key]["spec"].items() if obj["spec"].get(name) != value
        }
        for key, obj in before.items()
        if key in cluster.objects and cluster.objects[key].get("spec") != obj.get("spec")
    }
    deleted = [str(key) for verb, key in cluster.writes if verb == "delete"]
    events = [f"{name}: {reason}: {message}" for name, reason, message in cluster.events]
    return {"created": created, "patched": patched, "deleted": deleted, "events": events}, status


def _with_result(pod: Obj, run: Obj) -> Obj:
    """A pod whose message is HONEST says the result of its run's configuration."""
    for container in pod.get("status", {}).get("containerStatuses", ()):
        terminated = container["state"].get("terminated", {})
        if terminated.get("message") == "HONEST":
            terminated["message"] = result_of(_config(run)).message()
    return pod


def _config(run: Obj) -> Any:
    from crossfold_operator import objects
    from crossfold_operator.api.trainrun import TrainRunSpec

    spec = TrainRunSpec.model_validate(run["spec"])
    config = objects.run_config(run, spec)
    return config_of(objects.job(run, spec, config, 1, "image"))


def _told(obj: Obj) -> Obj:
    """A created object, without what the server gave it; the configuration of a Job as the mapping that it is."""
    meta = {
        k: v
        for k, v in obj["metadata"].items()
        if k not in ("uid", "resourceVersion", "generation", "creationTimestamp")
    }
    told = json.loads(json.dumps({**obj, "metadata": meta}))
    for owner in meta.get("ownerReferences", ()):
        # An owner of this very reconcile got its UID from the server.
        told["metadata"]["ownerReferences"][0]["uid"] = owner["uid"] if owner["uid"].startswith("uid-of-") else "<ANY>"
    if told["kind"] == "Job":
        (container,) = told["spec"]["template"]["spec"]["containers"]
        for variable in container["env"]:
            if variable["name"] == "CROSSFOLD_CONFIG":
                variable["value"] = json.loads(variable["value"])
    elif told["kind"] in OWN_KINDS:
        told["spec"] = _without_defaults(told)
    return told


def _without_defaults(obj: Obj) -> Obj:
    """Only what the operator wrote: what the API server adds by itself is known from the CRD."""
    schema = admission.schema_of_kind(Kind(obj["kind"]))["properties"]["spec"]
    return _pruned(obj["spec"], schema)


def _pruned(value: Any, schema: Any) -> Any:
    if isinstance(value, list):
        return [_pruned(item, schema.get("items", {})) for item in value]
    if not isinstance(value, dict) or "properties" not in schema:
        return value
    fields = {name: _pruned(item, schema["properties"].get(name, {})) for name, item in value.items()}
    return {
        name: item
        for name, item in fields.items()
        if item != {}
        and ("default" not in schema["properties"].get(name, {}) or item != schema["properties"][name]["default"])
    }


class _Dumper(yaml.SafeDumper):
    def ignore_aliases(self, data: Any) -> bool:
        return True


def _text(content: Any) -> str:
    return yaml.dump(content, Dumper=_Dumper, sort_keys=True, allow_unicode=True, width=110)


@pytest.mark.parametrize("case", CASES)
async def test_golden(case: str) -> None:
    children, status = await reconcile(case)
    written: list[str] = []
    for name, content in (("children", children), ("status", status)):
        path = HERE / case / f"{name}.yaml"
        wanted = yaml.safe_load(path.read_text()) if path.exists() else None
        if content != wanted and UPDATE:
            path.write_text(_text(content))
            written.append(f"{case}/{name}.yaml")
        elif content != wanted:
            lines = difflib.unified_diff(
                _text(wanted).splitlines(), _text(content).splitlines(), f"{case}/{name}.yaml", "now", lineterm="", n=6
            )
            pytest.fail("\n".join(lines), pytrace=False)
    if UPDATE:
        pytest.skip(f"compared with nothing; written anew: {', '.join(written) or 'none'}")


def test_there_are_cases_of_every_kind() -> None:
    kinds = {load(case)[0]["kind"] for case in CASES}
    assert kinds == {str(kind) for kind in OWN_KINDS}


@pytest.mark.parametrize(
    ("environment", "update"),
    [
        ({}, False),
        ({"UPDATE_GOLDEN": "1"}, True),
        ({"UPDATE_GOLDEN": "1", "CI": "false"}, True),
        ({"CI": "true"}, False),
    ],
)
def test_files_are_written_anew_by_hand_only(environment: dict[str, str], update: bool) -> None:
    assert updating(environment) is update
    with pytest.raises(pytest.UsageError, match="CI"):
        updating({"UPDATE_GOLDEN": "1", "CI": "true"})
