"""What the CRDs do beside judging: defaults, nulls, columns, scale, explain, upgrade."""

import copy
import json
import time
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from crossfold_operator.cluster.client import MERGE_PATCH, ApiError
from crossfold_operator.crdgen import crd
from crossfold_operator.names import OWN_KINDS, PLURALS, Kind
from tests.crds.cases import NULL, manifest, template
from tests.crds.conftest import Api

pytestmark = pytest.mark.cluster

GROUP = f"copy-{uuid.uuid4().hex[:8]}.crossfold.dev"
"""The group of the copies, which no operator watches and no other test run has."""
PLURAL = {kind: f"copied{PLURALS[kind]}" for kind in OWN_KINDS}


def _copy(kind: Kind) -> dict[str, Any]:
    content = copy.deepcopy(crd(kind))
    content["metadata"]["name"] = f"{PLURAL[kind]}.{GROUP}"
    content["spec"]["group"] = GROUP
    # Names of their own: whoever types `kubectl get tunes` meanwhile means the real ones.
    content["spec"]["names"] = {
        "kind": f"Copied{kind}",
        "listKind": f"Copied{kind}List",
        "plural": PLURAL[kind],
        "singular": f"copied{kind}".lower(),
    }
    return content


class Copies:
    """Objects of the copied CRDs, and the CRDs themselves."""

    def __init__(self, api: Api, kubectl: Any) -> None:
        self.namespace = api.namespace
        self._api = api
        self._kubectl = kubectl

    def install(self, *contents: dict[str, Any]) -> None:
        """Apply CRDs and wait until the API server serves them."""
        text = json.dumps({"apiVersion": "v1", "kind": "List", "items": list(contents)})
        self._kubectl("apply", "--server-side", "--force-conflicts", "-f", "-", stdin=text)
        found = [f"crd/{content['metadata']['name']}" for content in contents]
        self._kubectl("wait", "--for=condition=Established", "--timeout=120s", *found)

    def remove(self) -> None:
        found = [f"crd/{PLURAL[kind]}.{GROUP}" for kind in OWN_KINDS]
        self._kubectl("delete", "--ignore-not-found", "--timeout=60s", *found, check=False)

    def create(self, kind: Kind, name: str, spec: dict[str, Any] | None = None) -> dict[str, Any]:
        obj = manifest(kind, spec or {}, name)
        obj |= {"apiVersion": f"{GROUP}/v1alpha1", "kind": f"Copied{kind}"}
        obj["metadata"]["namespace"] = self.namespace
        return until(lambda: self._api.request("POST", self._path(kind), obj, fieldValidation="Strict"))

    def write(self, kind: Kind, name: str, status: dict[str, Any], **more: Any) -> dict[str, Any]:
        return self.request("PATCH", kind, f"{name}/status", {"status": status, **more})

    def request(self, verb: str, kind: Kind, name: str, patch: Any = None) -> dict[str, Any]:
        path = f"{self._path(kind)}/{name}"
        return self._api.request(verb, path, patch, content_type=MERGE_PATCH, fieldValidation="Strict")

    def _path(self, kind: Kind) -> str:
        return f"/apis/{GROUP}/v1alpha1/namespaces/{self.namespace}/{PLURAL[kind]}"


@pytest.fixture(scope="module")
def copies(api: Api, kubectl: Any) -> Iterator[Copies]:
    """Copies of the CRDs under another group."""
    made = Copies(api, kubectl)
    made.install(*(_copy(kind) for kind in OWN_KINDS))
    yield made
    made.remove()


def until(call: Callable[[], dict[str, Any]], seconds: float = 60) -> dict[str, Any]:
    """Call until it succeeds: the API server takes a moment to go by a new CRD."""
    end = time.monotonic() + seconds
    while True:
        try:
            return call()
        except (ApiError, LookupError):
            if time.monotonic() > end:
                raise
            time.sleep(0.2)


def test_defaults_are_stored(api: Api) -> None:
    spec = api.create(manifest(Kind.TUNE, {"maxTrials": None, "suspend": True}, "defaults"))["spec"]
    assert spec["maxTrials"] == 20
    assert spec["crossValidation"] == {"folds": 3, "foldMethod": "RegionStratified"}
    assert spec["trainer"]["maxEpochs"] == 100
    assert spec["trainer"]["earlyStoppingPatience"] == 5
    assert spec["retries"] == {"crash": 1, "infrastructure": 5, "outOfMemory": "Fail"}
    assert spec["template"]["shmSize"] == "2Gi"
    assert spec["template"]["image"] == ""
    assert "maxFailedTrials" not in spec


def test_null_means_default_except_where_null_means_something(api: Api) -> None:
    nulls = {"trainer": {"maxEpochs": NULL, "earlyStoppingPatience": NULL}, "retries": NULL, "maxTrials": NULL}
    created = api.create(manifest(Kind.TUNE, nulls, "nulls"), dry=True)
    assert created["spec"]["trainer"]["maxEpochs"] == 100
    assert created["spec"]["trainer"]["earlyStoppingPatience"] is None
    assert created["spec"]["retries"] == {"crash": 1, "infrastructure": 5, "outOfMemory": "Fail"}
    assert created["spec"]["maxTrials"] == 20


def test_a_null_among_values_is_kept(api: Api) -> None:
    choices = [None, "imagenet"]
    parameters = [{"name": "model_encoder_weights", "type": "Categorical", "values": choices}]
    created = api.create(manifest(Kind.TUNE, {"parameters": parameters}, "null-value"), dry=True)
    assert created["spec"]["parameters"][0]["values"] == choices


def test_numbers_come_back_as_they_went_in(api: Api) -> None:
    values = [1e-5, 0.1, 3, 2**53, 1e22, 0.30000000000000004]
    parameters = [{"name": "x-a", "type": "Categorical", "values": values}]
    created = api.create(manifest(Kind.TUNE, {"parameters": parameters}, "numbers"), dry=True)
    assert created["spec"]["parameters"][0]["values"] == values


# An operator may be watching the real resources: what needs a status of its own is tried on copies of the CRDs.


def test_a_status_is_stored_as_it_was_written(copies: Copies) -> None:
    """A default in a status would come back with every read, and be taken out again with every write."""
    for kind in OWN_KINDS:
        copies.create(kind, "status")
        status: dict[str, Any] = {"observedGeneration": 1, "usage": {"runSeconds": 0}, "summary": {}}
        assert copies.write(kind, "status", status)["status"] == status


def test_a_status_that_its_schema_does_not_take_is_refused(copies: Copies) -> None:
    copies.create(Kind.TUNE, "bad-status")
    with pytest.raises(ApiError, match=r"422.*status\.phase: Unsupported value"):
        copies.write(Kind.TUNE, "bad-status", {"phase": "Bored"})
    with pytest.raises(ApiError, match=r'unknown field "status\.mood"'):
        copies.write(Kind.TUNE, "bad-status", {"mood": "good"})


def test_writing_a_status_leaves_the_spec_and_its_generation(copies: Copies) -> None:
    before = copies.create(Kind.TUNE, "generation")
    written = copies.write(Kind.TUNE, "generation", {"phase": "Running"}, spec={"maxTrials": 9})
    assert written["metadata"]["generation"] == 1
    assert written["spec"] == before["spec"]


def test_columns(copies: Copies, kubectl: Any) -> None:
    for kind in OWN_KINDS:
        copies.create(kind, "columns")
    status = {
        "phase": "Running",
        "trials": {"failed": 2, "pruned": 11},
        "summary": {
            "trials": "33/100",
            "best": "0.812±0.011",
            "gpu": "41.2h",
            "saved": "36%",
            "eta": "5h",
            "objective": "Maximize val/x",
        },
    }
    copies.write(Kind.TUNE, "columns", status)

    def shown(kind: Kind, *more: str) -> list[str]:
        return kubectl("get", f"{PLURAL[kind]}.{GROUP}", "columns", "-n", copies.namespace, *more).splitlines()

    head, row = shown(Kind.TUNE)
    assert head.split() == ["NAME", "PHASE", "TRIALS", "BEST", "PRUNED", "FAILED", "GPU", "SAVED", "ETA", "AGE"]
    assert row.split()[:9] == ["columns", "Running", "33/100", "0.812±0.011", "11", "2", "41.2h", "36%", "5h"]
    head, row = shown(Kind.TUNE, "-o", "wide")
    assert {"OBJECTIVE", "ALGORITHM", "REASON"} <= set(head.split())
    assert "Random" in row
    assert shown(Kind.CROSS_VALIDATION)[0].split() == ["NAME", "PHASE", "RUNS", "SCORE", "STD", "GPU", "AGE"]
    assert shown(Kind.TRAIN_RUN)[0].split() == ["NAME", "PHASE", "EPOCH", "SCORE", "TRY", "PREEMPTED", "AGE"]


def test_scale_sets_parallelism(copies: Copies, kubectl: Any) -> None:
    copies.create(Kind.TUNE, "scaled")
    copies.write(Kind.TUNE, "scaled", {"runs": {"running": 2}})
    kubectl("scale", f"{PLURAL[Kind.TUNE]}.{GROUP}/scaled", "--replicas=5", "-n", copies.namespace)
    assert copies.request("GET", Kind.TUNE, "scaled")["spec"]["parallelism"] == 5
    scale = copies.request("GET", Kind.TUNE, "scaled/scale")
    assert (scale["spec"]["replicas"], scale["status"]["replicas"]) == (5, 2)


def test_names_for_short(api: Api, kubectl: Any) -> None:
    """Only Tunes are in the category all: a Tune may have 50,000 runs."""
    for kind in OWN_KINDS:
        api.create(manifest(kind, {"suspend": True}, "category"))
    shown = kubectl("get", "all", "-n", api.namespace, "-o", "name").split()
    assert "tune.crossfold.dev/category" in shown
    assert not [name for name in shown if name.startswith(("trainrun", "crossvalidation"))]
    for name in ("crossfold", "tn,cv,tr", "tune,crossvalidation,trainrun"):
        shown = kubectl("get", name, "-n", api.namespace, "-o", "name").split()
        assert {f"{str(kind).lower()}.crossfold.dev/category" for kind in OWN_KINDS} <= set(shown)


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("tune.spec.objective", ["What a run is scored by.", "metrics", "-required-", "Harmonic"]),
        ("tune.spec.parameters", ["The search space.", "Distance between values, counted from min"]),
        ("tune.spec.maxFailedTrials", ["Failed trials that are put up with"]),
        ("crossvalidation.spec.crossValidation.randomSeeds", ["42, 21, 69"]),
        ("trainrun.spec.template.resources.limits", ["Most that the container may use"]),
        ("tune.status.best", ["The best trial.", "parameters"]),
    ],
)
def test_explain_reads_well(api: Api, kubectl: Any, path: str, words: list[str]) -> None:
    text = " ".join(kubectl("explain", path).split())
    for word in words:
        assert word in text
    assert "<no description>" not in text


def test_kubectl_apply_refuses_an_unknown_field(api: Api, kubectl: Any) -> None:
    typo = manifest(Kind.TUNE, {"maxTrial": 5}, "typo")
    typo["metadata"]["namespace"] = api.namespace
    said = kubectl("apply", "-f", "-", stdin=json.dumps(typo), check=False)
    assert 'unknown field "spec.maxTrial"' in said
    said = kubectl("apply", "--validate=false", "--dry-run=server", "-o", "json", "-f", "-", stdin=json.dumps(typo))
    assert "maxTrial" not in json.loads(said)["spec"]


def test_applying_the_same_manifest_again_changes_nothing(api: Api, kubectl: Any) -> None:
    space = [{"name": "gamma", "type": "Float", "min": 0.5, "max": 0.9}]
    once = manifest(Kind.TUNE, {"parameters": space, "suspend": True}, "again")
    once["metadata"]["namespace"] = api.namespace
    kubectl("apply", "-f", "-", stdin=json.dumps(once))
    assert "unchanged" in kubectl("apply", "-f", "-", stdin=json.dumps(once))
    assert "serverside-applied" in kubectl(
        "apply", "--server-side", "--force-conflicts", "-f", "-", stdin=json.dumps(once)
    )
    assert api.get(Kind.TUNE, "again")["metadata"]["generation"] == 1


# Upgrade ---------------------------------------------------------------------------------------------------------------


def _earlier() -> dict[str, Any]:
    """A CRD as an earlier release may have had it: without fields that came later, and with fewer rules."""
    content = _copy(Kind.TUNE)
    schema = content["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]
    for parent, field in (
        (schema["spec"], "tracking"),
        (schema["spec"], "retries"),
        (schema["spec"]["properties"]["trainer"], "detectAnomaly"),
        (schema["status"], "usage"),
    ):
        del parent["properties"][field]
        parent.get("default", {}).pop(field, None)
        rules = parent.get("x-kubernetes-validations", [])
        parent["x-kubernetes-validations"] = [rule for rule in rules if f"self.{field}" not in rule["rule"]]
    # A bound that the present release draws tighter.
    schema["spec"]["properties"]["maxTrials"]["maximum"] = 50_000
    for node in (schema["spec"], schema["spec"]["properties"]["trainer"], schema["status"]):
        if not node["x-kubernetes-validations"]:
            del node["x-kubernetes-validations"]
    return content


def test_an_upgrade_of_the_crd_keeps_objects_and_their_use(copies: Copies) -> None:
    copies.install(_earlier())
    # The API server goes by the earlier CRD when it knows no tracking.
    until(lambda: _refuses_tracking(copies))
    stored = copies.create(Kind.TUNE, "old", {"maxTrials": 20_000, **template(env=[{"name": "A", "value": "b"}])})
    before = copies.write(Kind.TUNE, "old", {"phase": "Running"})
    assert "tracking" not in before["spec"]

    copies.install(_copy(Kind.TUNE))
    now = until(lambda: _with_tracking(copies.request("GET", Kind.TUNE, "old")))
    # Kept as it was, with the defaults of what is new.
    assert now["metadata"]["uid"] == stored["metadata"]["uid"]
    assert now["metadata"]["generation"] == stored["metadata"]["generation"]
    assert now["status"] == {"phase": "Running"}
    assert now["spec"]["tracking"] == {"tensorboard": True, "graph": False}
    assert now["spec"]["trainer"]["detectAnomaly"] is False
    assert now["spec"]["retries"] == {"crash": 1, "infrastructure": 5, "outOfMemory": "Fail"}
    changed = ("tracking", "retries", "trainer")
    assert {k: v for k, v in now["spec"].items() if k not in changed} == {
        k: v for k, v in before["spec"].items() if k not in changed
    }
    # It can be worked with, although it is past a bound that is tighter now.
    written = copies.write(Kind.TUNE, "old", {"usage": {"runSeconds": 5}})
    assert written["status"] == {"phase": "Running", "usage": {"runSeconds": 5}}
    for change in ({"suspend": True}, {"parallelism": 3}, {"retries": {"crash": 3}}):
        copies.request("PATCH", Kind.TUNE, "old", {"spec": change})
    # And what was frozen stays frozen.
    for change in ({"tracking": {"tensorboard": False}}, {"data": {"uri": "s3://other"}}, template(env=[])):
        with pytest.raises(ApiError, match="cannot be changed"):
            copies.request("PATCH", Kind.TUNE, "old", {"spec": change})


def _refuses_tracking(copies: Copies) -> dict[str, Any]:
    try:
        copies.request("PATCH", Kind.TUNE, "columns", {"spec": {"tracking": {"tensorboard": True}}})
    except ApiError as error:
        if "unknown field" in error.message:
            return {}
        raise
    raise LookupError("spec.tracking is known")


def _with_tracking(obj: dict[str, Any]) -> dict[str, Any]:
    if "tracking" not in obj["spec"]:
        raise LookupError("the API server still goes by the earlier CRD: no spec.tracking")
    return obj
