"""Whatever the API server lets through: a Reconciler survives it, comes to rest, and writes statuses that are taken."""

import copy
import math
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from crossfold_operator import names
from crossfold_operator.cluster.base import Key, Obj, key_of
from crossfold_operator.crdgen import KINDS
from crossfold_operator.names import API_VERSIONS, OWN_KINDS, Kind
from crossfold_operator.objects import owner_reference
from tests.fakes import anything, world
from tests.fakes.memory_cluster import MemoryCluster
from tests.fakes.world import NAMESPACE, World

THOROUGH = settings(
    max_examples=80,
    suppress_health_check=[
        HealthCheck.too_slow,
        HealthCheck.data_too_large,
        HealthCheck.large_base_example,
        # Names that differ and texts that match a pattern are drawn and thrown away now and then.
        HealthCheck.filter_too_much,
    ],
)
BASES = {
    Kind.TUNE: world.tune()["spec"] | {"maxTrials": 3},
    Kind.CROSS_VALIDATION: world.cross_validation()["spec"],
    Kind.TRAIN_RUN: world.train_run()["spec"],
}
SPECS = {kind: anything.specs(kind, BASES[kind]) for kind in OWN_KINDS}
STATUSES = {kind: anything.statuses(kind) for kind in OWN_KINDS}


def put(cluster: MemoryCluster, kind: Kind, name: str, owner: Obj | None = None, **content: Any) -> Obj:
    """An object as the server may hold it: with its defaults, whatever the rules of today say about it."""
    from crossfold_operator.cluster import admission

    meta: Obj = {"name": name, "namespace": NAMESPACE, "generation": 1, "creationTimestamp": cluster.clock.text}
    if content.pop("deleting", False):
        meta["deletionTimestamp"] = cluster.clock.text
    if labels := content.pop("labels", None):
        meta["labels"] = labels
    if owner is not None:
        meta["ownerReferences"] = [owner_reference(owner)]
    obj = {"apiVersion": API_VERSIONS[kind], "kind": str(kind), "metadata": meta, **copy.deepcopy(content)}
    if kind in OWN_KINDS:
        obj = admission._defaulted(obj, admission.schema_of_kind(kind))
    return cluster.replace(obj)


async def come_to_rest(cluster: MemoryCluster) -> None:
    """Reconcile everything until nothing is left to do; then nothing more is written, and every status is valid."""
    cluster.collect = lambda: False  # type: ignore[method-assign] -- objects stay as they were drawn
    it = World(cluster)
    await it.settle(limit=5_000)
    written, told = len(cluster.writes), len(cluster.events)
    asked = len(cluster.calls)
    it.restart()
    await it.settle(limit=2_000)
    again = [call for call in cluster.calls[asked:] if call[0] != "create"]
    assert again == [], again
    assert len(cluster.writes) == written
    assert len(cluster.events) == told
    for kind in OWN_KINDS:
        for obj in cluster.of(kind):
            status = obj.get("status", {})
            model: Any = KINDS[kind].model_fields["status"].annotation.__args__[0]
            model.model_validate(status)
            # A run that has ended stays as it is, whatever it is.
            ended = kind is Kind.TRAIN_RUN and status.get("phase") in names.TERMINAL_TRAIN_RUN
            if not obj["metadata"].get("deletionTimestamp") and not ended:
                assert {c["type"] for c in status["conditions"]} >= {"Valid"}


@THOROUGH
@given(data=st.data())
async def test_any_train_run_with_any_jobs(data: st.DataObject) -> None:
    cluster = MemoryCluster()
    cluster.clock.advance(data.draw(st.sampled_from([0, 30, 1000])))
    run = put(
        cluster,
        Kind.TRAIN_RUN,
        "r",
        spec=data.draw(SPECS[Kind.TRAIN_RUN], "spec"),
        status=data.draw(STATUSES[Kind.TRAIN_RUN], "status"),
    )
    digest = await _digest(run)
    for name in data.draw(st.sets(st.sampled_from(["r", "r-a2", "r-a3", "r-a99", "r-a02", "r-other"]), max_size=3)):
        job = put(
            cluster,
            Kind.JOB,
            name,
            run,
            spec={},
            status=data.draw(anything.job_statuses(), "job"),
            deleting=data.draw(st.integers(0, 5)) == 0,
        )
        for number in range(data.draw(st.integers(0, 2))):
            status = data.draw(anything.pod_statuses(), "pod")
            _fill_in(status, digest)
            labels = data.draw(
                st.sampled_from([{names.LABEL_TRAIN_RUN: "r"}, {names.LABEL_TRAIN_RUN: "x"}, {"a": "b"}])
            )
            deleting = data.draw(st.integers(0, 5)) == 0
            put(cluster, Kind.POD, f"{name}-{number}", job, spec={}, status=status, labels=labels, deleting=deleting)
    for name in data.draw(st.sets(st.sampled_from(["r", "r-0"]))):
        warning = st.tuples(st.sampled_from(["FailedMount", "FailedCreate", "Else"]), anything.TEXT)
        cluster.scripted_warnings[name] = data.draw(st.lists(warning, max_size=2))
    await come_to_rest(cluster)


async def _digest(run: Obj) -> str:
    """The digest that a result must carry; anything where the spec makes no configuration."""
    from pydantic import ValidationError

    from crossfold_operator.api.trainrun import TrainRunSpec
    from crossfold_operator.objects import run_config

    try:
        return run_config(run, TrainRunSpec.model_validate(run["spec"])).digest
    except (ValidationError, ValueError):
        return "0" * 64


def _fill_in(status: Obj, digest: str) -> None:
    for container in status.get("containerStatuses", ()):
        terminated = container["state"].get("terminated", {})
        if "message" in terminated:
            terminated["message"] = terminated["message"].replace("DIGEST", digest)


@THOROUGH
@given(data=st.data())
async def test_any_cross_validation_with_any_runs(data: st.DataObject) -> None:
    cluster = MemoryCluster()
    kind = Kind.CROSS_VALIDATION
    cv = put(cluster, kind, "c", spec=data.draw(SPECS[kind], "spec"), status=data.draw(STATUSES[kind], "status"))
    _runs(cluster, data, cv)
    await come_to_rest(cluster)


@THOROUGH
@given(data=st.data())
async def test_any_tune_with_any_trials(data: st.DataObject) -> None:
    cluster = MemoryCluster()
    kind = Kind.TUNE
    tune = put(cluster, kind, "t", spec=data.draw(SPECS[kind], "spec"), status=data.draw(STATUSES[kind], "status"))
    for name in data.draw(st.sets(st.sampled_from(["t-cv0", "t-cv1", "t-cv2", "t-cv7", "t-cv01", "t-x"]), max_size=3)):
        cv = put(
            cluster,
            Kind.CROSS_VALIDATION,
            name,
            tune,
            spec=data.draw(SPECS[Kind.CROSS_VALIDATION], "cv spec"),
            status=data.draw(STATUSES[Kind.CROSS_VALIDATION], "cv status"),
            labels=data.draw(st.sampled_from([{names.LABEL_TUNE: "t", names.LABEL_TRIAL: "0"}, {"a": "b"}])),
            deleting=data.draw(st.integers(0, 5)) == 0,
        )
        _runs(cluster, data, cv)
    await come_to_rest(cluster)


def _runs(cluster: MemoryCluster, data: st.DataObject, cv: Obj) -> None:
    for fold in data.draw(st.sets(st.integers(0, 3), max_size=2)):
        run = put(
            cluster,
            Kind.TRAIN_RUN,
            f"{cv['metadata']['name']}-f{fold}s42",
            cv,
            spec=data.draw(SPECS[Kind.TRAIN_RUN], "run spec"),
            status=data.draw(STATUSES[Kind.TRAIN_RUN], "run status"),
            deleting=data.draw(st.integers(0, 5)) == 0,
        )
        if data.draw(st.booleans()):
            put(cluster, Kind.JOB, run["metadata"]["name"], run, spec={}, status=data.draw(anything.job_statuses()))


@pytest.mark.parametrize("exit_code", [0, 1, 78])
@pytest.mark.parametrize("words", anything.LAST_WORDS, ids=range(len(anything.LAST_WORDS)))
async def test_any_last_words(words: str, exit_code: int) -> None:
    cluster = MemoryCluster()
    it = World(cluster)
    cluster.apply(world.cross_validation(crossValidation={"folds": 2}, retries={"infrastructure": 0, "crash": 0}))

    def script(name: str, attempt: int) -> world.Ending:
        job = cluster.objects[Key(Kind.JOB, NAMESPACE, name)]
        return world.Ending(exit_code=exit_code, message=words.replace("DIGEST", world.config_of(job).digest))

    it.script = script
    await it.run()
    status = cluster.status(Kind.CROSS_VALIDATION, "c")
    assert status["phase"] in names.TERMINAL_CROSS_VALIDATION
    if status["phase"] == "Complete":
        assert math.isfinite(float(status["score"]))
    await come_to_rest(cluster)


def test_a_key_of_anything_is_understood() -> None:
    """What wakes a key never raises, whoever owns the object."""
    from crossfold_operator.observe.metadata import wakes

    owner = {"apiVersion": "v1", "kind": "ReplicaSet", "name": "a", "uid": "b", "controller": True}
    for kind in Kind:
        meta = {"name": "x", "namespace": "n", "ownerReferences": [owner]}
        obj = {"apiVersion": API_VERSIONS[kind], "kind": str(kind), "metadata": meta}
        own = [key_of(obj)] if kind in OWN_KINDS else []
        assert [Key(*key) for key in wakes(obj)] == own
