"""What every implementation of the Cluster protocol keeps, on objects that somebody else may change as well."""

import asyncio
import copy
from collections import Counter
from typing import Any

import pytest

from crossfold_operator.cluster.base import Key, Obj, Refused, key_of
from crossfold_operator.names import API_VERSION, LABEL_MANAGED_BY, Kind
from tests.conformance.conftest import World
from tests.waiting import until

MANAGED = {LABEL_MANAGED_BY: "crossfold"}


def run(world: World, name: str = "a", owner: Obj | None = None, **spec: Any) -> Obj:
    """A TrainRun."""
    return {
        "apiVersion": API_VERSION,
        "kind": "TrainRun",
        "metadata": {"name": name, "namespace": world.namespace, "labels": MANAGED, **owned(owner)},
        "spec": {
            "objective": {"metrics": [{"name": "val/JaccardIndex"}]},
            "data": {"uri": "s3://bucket/data"},
            "artifacts": {"uri": "s3://bucket/artifacts"},
            **spec,
        },
    }


def job(world: World, name: str, owner: Obj | None = None) -> Obj:
    """A Job whose pod neither fails nor succeeds."""
    container = {"name": "trainer", "image": "crossfold.invalid/none", "imagePullPolicy": "Never"}
    pod = {"restartPolicy": "Never", "terminationGracePeriodSeconds": 1, "containers": [container]}
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": name, "namespace": world.namespace, "labels": {**MANAGED, "x": name}, **owned(owner)},
        "spec": {"backoffLimit": 0, "template": {"metadata": {"labels": {**MANAGED, "x": name}}, "spec": pod}},
    }


def owned(owner: Obj | None) -> dict[str, Any]:
    if owner is None:
        return {}
    meta = owner["metadata"]
    reference = {
        "apiVersion": owner["apiVersion"],
        "kind": owner["kind"],
        "name": meta["name"],
        "uid": meta["uid"],
        "controller": True,
        "blockOwnerDeletion": True,
    }
    return {"ownerReferences": [reference]}


def uid(obj: Obj) -> str:
    return str(obj["metadata"]["uid"])


async def made(world: World, manifest: Obj) -> Obj:
    creation = await world.cluster.create(manifest)
    assert not creation.existed
    return creation.obj


# Creating -----------------------------------------------------------------------------------------------------------


async def test_a_created_object_is_known_at_once(world: World) -> None:
    obj = await made(world, run(world))
    assert uid(obj)
    assert world.cluster.get(key_of(obj)) == obj
    assert (obj["kind"], obj["apiVersion"]) == ("TrainRun", API_VERSION)
    assert [key_of(c) for c in world.changes] == [key_of(obj)]


async def test_defaults_of_the_schema_are_filled_in(world: World) -> None:
    obj = await made(world, run(world))
    assert (obj["spec"]["seed"], obj["spec"]["folds"], obj["spec"]["retries"]) == (
        42,
        5,
        {"crash": 1, "infrastructure": 5, "outOfMemory": "Fail"},
    )


async def test_a_taken_name_brings_who_has_it(world: World) -> None:
    obj = await made(world, run(world, seed=1))
    again = await world.cluster.create(run(world, seed=2))
    assert again.existed
    assert uid(again.obj) == uid(obj)
    assert again.obj["spec"]["seed"] == 1


async def test_of_many_creates_of_a_name_one_creates(world: World) -> None:
    creations = await asyncio.gather(*(world.cluster.create(run(world)) for _ in range(8)))
    assert [c.existed for c in creations].count(False) == 1
    assert len({uid(c.obj) for c in creations}) == 1


async def test_an_invalid_object_is_refused_with_its_field(world: World) -> None:
    with pytest.raises(Refused) as refused:
        await world.cluster.create(run(world, seed=-1))
    assert refused.value.code == 422
    assert "spec.seed" in refused.value.message
    assert world.cluster.get(Key(Kind.TRAIN_RUN, world.namespace, "a")) is None


async def test_a_rule_across_fields_is_kept(world: World) -> None:
    with pytest.raises(Refused, match="fold must be below folds"):
        await world.cluster.create(run(world, fold=7, folds=3))


# Reading ------------------------------------------------------------------------------------------------------------


async def test_nothing_is_none(world: World) -> None:
    assert world.cluster.get(Key(Kind.TUNE, world.namespace, "none")) is None
    assert world.cluster.children(Kind.JOB, "no-such-uid") == []


async def test_children_are_found_by_their_controller_and_sorted(world: World) -> None:
    parent, other = await made(world, run(world, "p")), await made(world, run(world, "q"))
    for name in ("c", "a", "b"):
        await made(world, run(world, name, parent))
    await made(world, run(world, "z", other))
    assert [c["metadata"]["name"] for c in world.cluster.children(Kind.TRAIN_RUN, uid(parent))] == ["a", "b", "c"]
    assert {"a", "b", "c"} <= {run["metadata"]["name"] for run in world.cluster.all(Kind.TRAIN_RUN)}
    assert world.cluster.children(Kind.JOB, uid(parent)) == []


async def test_a_job_gets_a_pod_with_the_labels_of_its_template(world: World) -> None:
    parent = await made(world, run(world, "p"))
    created = await made(world, job(world, "j", parent))
    assert [key_of(c).name for c in world.cluster.children(Kind.JOB, uid(parent))] == ["j"]
    await until(lambda: world.cluster.children(Kind.POD, uid(created)), "the Job's pod")
    (pod,) = world.cluster.children(Kind.POD, uid(created))
    assert pod["metadata"]["labels"]["x"] == "j"
    assert (pod["kind"], pod["apiVersion"]) == ("Pod", "v1")
    await until(lambda: any(c["kind"] == "Pod" for c in world.changes), "news of the pod")


async def test_a_service_is_found_by_its_owner_and_goes_with_it(world: World) -> None:
    parent = await made(world, run(world, "p"))
    manifest = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "p", "namespace": world.namespace, "labels": MANAGED, **owned(parent)},
        "spec": {
            "clusterIP": "None",
            "publishNotReadyAddresses": True,
            "selector": {"x": "p"},
            "ports": [{"name": "rendezvous", "port": 29500}],
        },
    }
    service = await made(world, manifest)
    assert world.cluster.children(Kind.SERVICE, uid(parent)) == [service]
    again = await world.cluster.create(manifest)
    assert (again.existed, uid(again.obj)) == (True, uid(service))
    await world.someone_deletes(key_of(service))
    await until(lambda: not world.cluster.children(Kind.SERVICE, uid(parent)), "that the Service is gone")
    await made(world, manifest)


async def test_a_new_process_knows_what_there_is_before_it_starts(world: World) -> None:
    parent = await made(world, run(world, "p"))
    child = await made(world, run(world, "c", parent))
    patched = await world.cluster.patch(key_of(child), uid(child), {"status": {"attempt": 2}}, status=True)
    again = await world.reopen()
    assert again.get(key_of(parent)) == parent
    assert again.get(key_of(child)) == patched
    assert again.children(Kind.TRAIN_RUN, uid(parent)) == [patched]


# Patching -----------------------------------------------------------------------------------------------------------


async def test_a_patch_merges_and_is_known_at_once(world: World) -> None:
    obj = await made(world, run(world))
    key = key_of(obj)
    patched = await world.cluster.patch(key, uid(obj), {"spec": {"suspend": True}, "metadata": {"labels": {"y": "1"}}})
    assert patched is not None
    assert world.cluster.get(key) == patched
    assert patched["spec"]["suspend"] is True
    assert patched["spec"]["data"] == obj["spec"]["data"]
    assert patched["metadata"]["labels"] == {**MANAGED, "y": "1"}
    assert patched["metadata"]["generation"] == obj["metadata"]["generation"] + 1


async def test_null_removes(world: World) -> None:
    obj = await made(world, run(world))
    key = key_of(obj)
    await world.cluster.patch(key, uid(obj), {"status": {"job": "j", "node": "n"}}, status=True)
    patched = await world.cluster.patch(key, uid(obj), {"status": {"job": None}}, status=True)
    assert patched is not None
    assert "job" not in patched["status"]
    assert patched["status"]["node"] == "n"


async def test_a_status_patch_leaves_the_spec_and_its_generation(world: World) -> None:
    obj = await made(world, run(world))
    patched = await world.cluster.patch(
        key_of(obj), uid(obj), {"status": {"attempt": 3}, "spec": {"suspend": True}}, status=True
    )
    assert patched is not None
    assert patched["status"]["attempt"] == 3
    assert patched["spec"] == obj["spec"]
    assert patched["metadata"]["generation"] == obj["metadata"]["generation"]


async def test_a_plain_patch_leaves_the_status(world: World) -> None:
    obj = await made(world, run(world))
    patched = await world.cluster.patch(key_of(obj), uid(obj), {"status": {"attempt": 3}, "spec": {"suspend": True}})
    assert patched is not None
    assert "attempt" not in patched.get("status", {})


@pytest.mark.parametrize("status", [False, True])
async def test_a_patch_of_another_object_of_the_name_does_nothing(world: World, status: bool) -> None:
    obj = await made(world, run(world))
    patch = {"status": {"attempt": 3}} if status else {"spec": {"suspend": True}}
    assert await world.cluster.patch(key_of(obj), "another-uid", patch, status=status) is None
    assert world.cluster.get(key_of(obj)) == obj


@pytest.mark.parametrize("status", [False, True])
async def test_a_patch_of_nothing_is_none(world: World, status: bool) -> None:
    key = Key(Kind.TRAIN_RUN, world.namespace, "none")
    assert await world.cluster.patch(key, "uid", {"metadata": {"labels": {"a": "b"}}}, status=status) is None


async def test_what_is_immutable_is_refused(world: World) -> None:
    obj = await made(world, run(world))
    with pytest.raises(Refused) as refused:
        await world.cluster.patch(key_of(obj), uid(obj), {"spec": {"seed": 7}})
    assert refused.value.code == 422
    assert world.cluster.get(key_of(obj)) == obj


async def test_an_invalid_status_is_refused(world: World) -> None:
    obj = await made(world, run(world))
    with pytest.raises(Refused):
        await world.cluster.patch(key_of(obj), uid(obj), {"status": {"attempt": -1}}, status=True)


async def test_what_was_handed_out_never_changes(world: World) -> None:
    obj = await made(world, run(world))
    before = copy.deepcopy(obj)
    await world.cluster.patch(key_of(obj), uid(obj), {"spec": {"suspend": True}})
    await world.cluster.patch(key_of(obj), uid(obj), {"status": {"attempt": 1}}, status=True)
    await world.cluster.delete(key_of(obj), uid(obj))
    assert obj == before


# Deleting -----------------------------------------------------------------------------------------------------------


async def test_deleting_nothing_or_another_object_is_no_error(world: World) -> None:
    obj = await made(world, run(world))
    await world.cluster.delete(Key(Kind.TRAIN_RUN, world.namespace, "none"), "uid")
    await world.cluster.delete(key_of(obj), "another-uid")
    assert world.cluster.get(key_of(obj)) == obj


async def test_deletion_waits_for_the_dependents(world: World) -> None:
    parent = await made(world, run(world, "p"))
    child = await made(world, job(world, "j", parent))
    await until(lambda: world.cluster.children(Kind.POD, uid(child)), "the Job's pod")
    (pod,) = world.cluster.children(Kind.POD, uid(child))
    await world.cluster.delete(key_of(parent), uid(parent))
    seen = world.cluster.get(key_of(parent))
    assert seen is None or seen["metadata"]["deletionTimestamp"]
    await until(lambda: world.cluster.get(key_of(parent)) is None, "the parent's end")
    assert world.cluster.get(key_of(child)) is None
    assert world.cluster.get(key_of(pod)) is None
    assert {"TrainRun", "Job", "Pod"} <= {c["kind"] for c in world.changes if c["metadata"].get("deletionTimestamp")}


async def test_a_name_is_free_again_after_a_deletion(world: World) -> None:
    first = await made(world, run(world))
    await world.cluster.delete(key_of(first), uid(first))
    await until(lambda: world.cluster.get(key_of(first)) is None, "the end of the first")
    second = await made(world, run(world))
    assert uid(second) != uid(first)
    assert await world.cluster.patch(key_of(first), uid(first), {"spec": {"suspend": True}}) is None


async def test_a_created_name_under_deletion_is_told_as_such(world: World) -> None:
    parent = await made(world, run(world, "p"))
    child = await made(world, job(world, "j", parent))
    await until(lambda: world.cluster.children(Kind.POD, uid(child)), "the Job's pod")
    await world.cluster.delete(key_of(child), uid(child))
    again = await world.cluster.create(job(world, "j", parent))
    assert not again.existed or (uid(again.obj) == uid(child) and again.obj["metadata"]["deletionTimestamp"])


# Others -------------------------------------------------------------------------------------------------------------


async def test_what_somebody_else_changes_is_seen(world: World) -> None:
    obj = await made(world, run(world))
    await world.someone_patches(key_of(obj), {"spec": {"suspend": True}})
    await until(lambda: (world.cluster.get(key_of(obj)) or obj)["spec"]["suspend"], "the change")
    assert world.changes[-1]["spec"]["suspend"]
    # Nothing stands in the way of a status that is judged by what is seen now.
    assert await world.cluster.patch(key_of(obj), uid(obj), {"status": {"attempt": 1}}, status=True) is not None


async def test_what_somebody_else_deletes_is_seen(world: World) -> None:
    obj = await made(world, run(world))
    await world.someone_deletes(key_of(obj))
    await until(lambda: world.cluster.get(key_of(obj)) is None, "the deletion")
    assert key_of(world.changes[-1]) == key_of(obj)
    assert not (await world.cluster.create(run(world))).existed


async def test_each_version_is_reported_once(world: World) -> None:
    obj = await made(world, run(world))
    for n in range(3):
        await world.cluster.patch(key_of(obj), uid(obj), {"status": {"attempt": n}}, status=True)
    await world.someone_patches(key_of(obj), {"metadata": {"labels": {"last": "1"}}})
    await until(lambda: "last" in world.changes[-1]["metadata"]["labels"], "the last change")
    versions = Counter(c["metadata"]["resourceVersion"] for c in world.changes if key_of(c) == key_of(obj))
    assert set(versions.values()) == {1}
    assert len(versions) == 5


async def test_events_never_raise(world: World) -> None:
    obj = await made(world, run(world))
    cluster = world.cluster
    await cluster.event(obj, warning=False, reason="TrialAsked", message="trial 1")
    await cluster.event(obj, warning=False, reason="TrialAsked", message="trial 1")
    await cluster.event(obj, warning=True, reason="Pruned", message="é" * 10_000)
    await cluster.event(
        {**obj, "metadata": {**obj["metadata"], "namespace": "none"}}, warning=True, reason="Lost", message=""
    )


async def test_warnings_are_the_clusters_own(world: World) -> None:
    obj, other = await made(world, run(world)), await made(world, run(world, "b"))
    await world.cluster.event(obj, warning=True, reason="Pruned", message="ours")
    wanted = await world.someone_warns(obj, "FailedMount", "no such Secret")
    await world.someone_warns(other, "FailedMount", "of another object")
    assert await world.cluster.warnings(obj) == wanted
