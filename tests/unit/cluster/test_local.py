"""LocalCluster: what an API server, a Job controller and a kubelet would do, with small shell scripts as trainers."""

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from crossfold_operator.cluster.base import Key, Obj, Refused, key_of
from crossfold_operator.cluster.folder import FolderError, merge_patch
from crossfold_operator.cluster.local import LocalCluster
from crossfold_operator.cluster.slots import Slot, gpus, slots
from crossfold_operator.names import CONTAINER, Kind
from crossfold_operator.observe.attempts import classify
from crossfold_trainer.contract.result import FailureClass
from tests.waiting import until

RUN: Obj = {
    "apiVersion": "crossfold.dev/v1alpha1",
    "kind": "TrainRun",
    "metadata": {"name": "one", "namespace": "default"},
    "spec": {
        "objective": {"metrics": [{"name": "val/JaccardIndex"}]},
        "data": {"uri": "/data"},
        "artifacts": {"uri": "/artifacts"},
    },
}
RULES = [
    {"action": "FailJob", "onExitCodes": {"containerName": CONTAINER, "operator": "In", "values": [code]}}
    for code in (78, 71, 75)
] + [{"action": "FailJob", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]}]
GRACEFUL = "trap 'echo stopping; exit 75' TERM; echo up; while :; do sleep 0.05; done"
STUBBORN = "trap '' TERM; echo up; while :; do sleep 0.05; done"


def job(script: str, name: str = "one", owner: Obj | None = None, **spec: Any) -> Obj:
    grace = spec.pop("grace", 5)
    manifest: Obj = {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": name, "namespace": "default", "labels": {"crossfold.dev/train-run": "one"}},
        "spec": {
            "backoffLimit": 0,
            "podFailurePolicy": {"rules": RULES},
            "template": {
                "metadata": {"labels": {"crossfold.dev/train-run": "one"}},
                "spec": {
                    "terminationGracePeriodSeconds": grace,
                    "containers": [
                        {
                            "name": CONTAINER,
                            "command": ["bash", "-c", script],
                            "env": [{"name": "CROSSFOLD_CONFIG", "value": "{}"}],
                        }
                    ],
                },
            },
            **spec,
        },
    }
    if owner is not None:
        reference = {k: owner[k] for k in ("apiVersion", "kind")} | {k: owner["metadata"][k] for k in ("name", "uid")}
        manifest["metadata"]["ownerReferences"] = [{**reference, "controller": True, "blockOwnerDeletion": True}]
    return manifest


class Local:
    """A cluster that notes every change."""

    def __init__(self, root: Path, number: int = 2) -> None:
        self.changes: list[Obj] = []
        self.cluster = LocalCluster(root, [Slot(i) for i in range(number)], on_change=self.changes.append)

    def now(self, obj: Obj) -> Obj | None:
        return self.cluster.get(key_of(obj))

    def pod(self, of: Obj) -> Obj:
        (pod,) = self.cluster.children(Kind.POD, of["metadata"]["uid"])
        return pod

    async def start(self, script: str, name: str = "one", **spec: Any) -> Obj:
        return (await self.cluster.create(job(script, name, **spec))).obj

    async def ended(self, of: Obj) -> dict[str, Any]:
        """The Job's last condition, once it is over."""

        def conditions() -> Any:
            return (self.now(of) or {}).get("status", {}).get("conditions", ())

        await until(lambda: len(conditions()) == 2, "the end of the Job")
        return dict(conditions()[-1])

    async def running(self, of: Obj) -> None:
        """The script says `up` when its trap is set."""
        await until(lambda: self.pod(of)["status"]["phase"] == "Running", "a pod that runs")
        await until(lambda: "up" in self.cluster.log_of(self.pod(of)).read_text(), "that its script is up")


@pytest.fixture
async def local(tmp_path: Path) -> AsyncIterator[Local]:
    local = Local(tmp_path / "state")
    await local.cluster.start()
    yield local
    local.cluster.kill()
    await local.cluster.stop()


def state(pod: Obj) -> dict[str, Any]:
    (status,) = pod["status"]["containerStatuses"]
    return dict(status["state"]["terminated"])


async def test_a_job_that_succeeds(local: Local) -> None:
    created = await local.start('echo hello; echo -n said > "$CROSSFOLD_TERMINATION_LOG"')
    condition = await local.ended(created)
    assert (condition["type"], condition["reason"]) == ("Complete", "CompletionsReached")
    pod = local.pod(created)
    assert pod["status"]["phase"] == "Succeeded"
    assert state(pod)["exitCode"] == 0
    assert state(pod)["reason"] == "Completed"
    assert state(pod)["message"] == "said"
    assert state(pod)["finishedAt"].endswith("Z")
    assert pod["metadata"]["labels"]["job-name"] == "one"
    assert pod["metadata"]["labels"]["crossfold.dev/train-run"] == "one"
    assert local.cluster.log_of(pod).read_text() == "hello\n"
    job_now = local.now(created)
    assert job_now is not None
    assert job_now["status"]["succeeded"] == 1
    assert job_now["metadata"]["generation"] == 1


@pytest.mark.parametrize(
    ("script", "exit_code", "reason", "message", "failure_class"),
    [
        (
            "exit 78",
            78,
            "PodFailurePolicy",
            "failed with exit code 78 matching FailJob rule at index 0",
            FailureClass.CONFIG,
        ),
        (
            "exit 71",
            71,
            "PodFailurePolicy",
            "failed with exit code 71 matching FailJob rule at index 1",
            FailureClass.OUT_OF_MEMORY,
        ),
        (
            "exit 75",
            75,
            "PodFailurePolicy",
            "failed with exit code 75 matching FailJob rule at index 2",
            FailureClass.PREEMPTED,
        ),
        (
            "echo boom; exit 3",
            3,
            "BackoffLimitExceeded",
            "Job has reached the specified backoff limit",
            FailureClass.CRASH,
        ),
        ("kill -9 $$", 137, "BackoffLimitExceeded", "Job has reached the specified backoff limit", FailureClass.CRASH),
    ],
)
async def test_a_job_that_fails(
    local: Local, *, script: str, exit_code: int, reason: str, message: str, failure_class: FailureClass
) -> None:
    created = await local.start(script)
    condition = await local.ended(created)
    assert (condition["type"], condition["reason"]) == ("Failed", reason)
    assert condition["message"].endswith(message)
    pod = local.pod(created)
    assert state(pod)["exitCode"] == exit_code
    assert state(pod)["reason"] == "Error"
    if reason == "PodFailurePolicy":
        assert condition["message"].startswith(f"Container trainer for pod default/{pod['metadata']['name']} failed")
    assert classify(condition, [pod]).failure_class is failure_class


async def test_the_last_lines_of_the_log_take_the_place_of_a_message(local: Local) -> None:
    created = await local.start("for i in $(seq 1000); do echo line $i; done; exit 1")
    await local.ended(created)
    lines = state(local.pod(created))["message"].splitlines()
    assert lines[-1] == "line 1000"
    assert len(lines) == 80


async def test_a_message_of_its_own_goes_first(local: Local) -> None:
    created = await local.start('echo noise; echo -n mine > "$CROSSFOLD_TERMINATION_LOG"; exit 1')
    await local.ended(created)
    assert state(local.pod(created))["message"] == "mine"


async def test_the_environment(local: Local, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FROM_OUTSIDE", "yes")
    created = await local.start('echo "$CROSSFOLD_CONFIG $FROM_OUTSIDE $CROSSFOLD_CREDENTIALS"')
    await local.ended(created)
    said = local.cluster.log_of(local.pod(created)).read_text()
    assert said.startswith("{} yes /")
    assert said.endswith("/credentials\n")


async def test_a_gpu_each(tmp_path: Path) -> None:
    local = Local(tmp_path)
    local.cluster = LocalCluster(tmp_path, [Slot(0, "0"), Slot(1, "GPU-b")])
    await local.cluster.start()
    script = "echo $CUDA_VISIBLE_DEVICES; while :; do sleep 0.05; done"
    jobs = [(await local.cluster.create(job(script, f"j{i}"))).obj for i in range(2)]
    logs = [local.cluster.log_of(local.pod(j)) for j in jobs]
    await until(lambda: all(log.exists() and log.read_text().endswith("\n") for log in logs), "a line of each")
    assert sorted(log.read_text().strip() for log in logs) == ["0", "GPU-b"]
    await local.cluster.stop()


async def test_a_job_of_several_nodes_is_one_pod_that_is_all_of_them(local: Local) -> None:
    nodes = {"completions": 2, "parallelism": 2, "completionMode": "Indexed"}
    created = await local.start("echo -${JOB_COMPLETION_INDEX:-none}-", **nodes)
    assert (await local.ended(created))["type"] == "Complete"
    assert local.cluster.log_of(local.pod(created)).read_text() == "-none-\n"
    assert created["spec"]["completions"] == 1


async def test_slots_are_a_queue(local: Local) -> None:
    first, second = await local.start(GRACEFUL, "a"), await local.start(GRACEFUL, "b")
    third = await local.start("true", "c")
    await local.running(first)
    await local.running(second)
    (condition,) = local.pod(third)["status"]["conditions"]
    assert (condition["type"], condition["status"], condition["reason"]) == ("PodScheduled", "False", "Unschedulable")
    assert condition["message"] == "2 of 2 slots are taken"
    await local.cluster.delete(key_of(first), first["metadata"]["uid"])
    assert (await local.ended(third))["type"] == "Complete"


async def test_a_deadline(local: Local) -> None:
    created = await local.start(STUBBORN, activeDeadlineSeconds=1, grace=1)
    condition = await local.ended(created)
    assert (condition["type"], condition["reason"]) == ("Failed", "DeadlineExceeded")
    assert classify(condition, [local.pod(created)]).failure_class is FailureClass.TIMEOUT


async def test_a_program_that_does_not_exist_keeps_the_pod_waiting(local: Local) -> None:
    manifest = job("")
    manifest["spec"]["template"]["spec"]["containers"][0]["command"] = ["/no/such/program"]
    created = (await local.cluster.create(manifest)).obj
    await until(lambda: "containerStatuses" in local.pod(created)["status"], "what became of the container")
    waiting = local.pod(created)["status"]["containerStatuses"][0]["state"]["waiting"]
    assert waiting == {"reason": "CreateContainerError", "message": "/no/such/program: No such file or directory"}
    await local.cluster.delete(key_of(created), created["metadata"]["uid"])
    await until(lambda: local.now(created) is None, "the end of the Job")


async def test_deleting_a_job_ends_its_process_and_the_job_stays_until_then(local: Local) -> None:
    created = await local.start("trap 'sleep 0.5; exit 75' TERM; echo up; while :; do sleep 0.05; done")
    await local.running(created)
    await local.cluster.delete(key_of(created), created["metadata"]["uid"])
    now = local.now(created)
    assert now is not None
    assert now["metadata"]["deletionTimestamp"]
    pod = local.pod(created)
    assert pod["metadata"]["deletionTimestamp"]
    await until(lambda: local.now(created) is None, "the end of the Job")
    assert local.now(pod) is None
    last_pod = next(c for c in reversed(local.changes) if c["kind"] == "Pod")
    assert state(last_pod)["exitCode"] == 75


async def test_sigkill_after_the_grace_period(local: Local) -> None:
    created = await local.start(f"sleep 1000 & echo $!; {STUBBORN}", grace=1)
    await local.running(created)
    grandchild = int(local.cluster.log_of(local.pod(created)).read_text().split()[0])
    await local.cluster.delete(key_of(created), created["metadata"]["uid"])
    await until(lambda: local.now(created) is None, "the end of the Job")
    cmdline = Path(f"/proc/{grandchild}/cmdline")
    await until(lambda: not cmdline.exists() or not cmdline.read_bytes(), "the end of the grandchild")


async def test_deleting_a_job_that_waits(local: Local) -> None:
    running = [await local.start(GRACEFUL, name) for name in ("a", "b")]
    waiting = await local.start("true", "c")
    for one in running:
        await local.running(one)
    await local.cluster.delete(key_of(waiting), waiting["metadata"]["uid"])
    await until(lambda: local.now(waiting) is None, "the end of the Job")
    assert not local.cluster.children(Kind.POD, waiting["metadata"]["uid"])


async def test_a_deleted_pod_fails_its_job(local: Local) -> None:
    created = await local.start(GRACEFUL)
    await local.running(created)
    pod = local.pod(created)
    await local.cluster.delete(key_of(pod), pod["metadata"]["uid"])
    condition = await local.ended(created)
    assert classify(condition, []).failure_class is FailureClass.PREEMPTED
    assert local.now(pod) is None


async def test_foreground_deletion_goes_down_the_tree(local: Local) -> None:
    run = (await local.cluster.create(RUN)).obj
    created = (await local.cluster.create(job(GRACEFUL, owner=run))).obj
    await local.running(created)
    await local.cluster.delete(key_of(run), run["metadata"]["uid"])
    for obj in (run, created):
        now = local.now(obj)
        assert now is not None
        assert now["metadata"]["deletionTimestamp"]
    await until(lambda: local.now(run) is None, "the end of the run")
    assert local.now(created) is None
    order = [str(c["kind"]) for c in local.changes[-3:]]
    assert order == ["Pod", "Job", "TrainRun"]


async def test_children_of_an_owner_that_is_gone_are_collected(local: Local) -> None:
    run = (await local.cluster.create(RUN)).obj
    await local.cluster.delete(key_of(run), run["metadata"]["uid"])
    assert local.now(run) is None
    created = (await local.cluster.create(job("sleep 5", owner=run))).obj
    await until(lambda: local.now(created) is None, "the end of the Job")


async def test_deleting_with_another_uid_does_nothing(local: Local) -> None:
    run = (await local.cluster.create(RUN)).obj
    await local.cluster.delete(key_of(run), "other")
    await local.cluster.delete(Key(Kind.TRAIN_RUN, "default", "none"), "other")
    assert local.now(run) == run


async def test_create_applies_defaults_and_a_second_create_finds_the_first(local: Local) -> None:
    created = await local.cluster.create(RUN)
    assert not created.existed
    assert created.obj["spec"]["folds"] == 5
    assert created.obj["metadata"]["generation"] == 1
    again = await local.cluster.create({**RUN, "spec": {**RUN["spec"], "fold": 3}})
    assert again.existed
    assert again.obj == created.obj


async def test_what_is_not_valid_is_refused(local: Local) -> None:
    with pytest.raises(Refused) as refused:
        await local.cluster.create({**RUN, "spec": {**RUN["spec"], "fold": 7}})
    assert refused.value.code == 422
    assert refused.value.message == "spec: fold must be below folds: folds are counted from 0"


async def test_patch(local: Local) -> None:
    run = (await local.cluster.create(RUN)).obj
    key, uid = key_of(run), run["metadata"]["uid"]
    status = await local.cluster.patch(
        key, uid, {"status": {"phase": "Running", "attempt": 1}, "spec": {"suspend": True}}, status=True
    )
    assert status is not None
    assert status["status"]["phase"] == "Running"
    assert status["spec"] == run["spec"]
    assert status["metadata"]["generation"] == 1
    assert local.now(run) == status
    spec = await local.cluster.patch(key, uid, {"spec": {"suspend": True}, "status": {"phase": "Failed"}})
    assert spec is not None
    assert spec["spec"]["suspend"] is True
    assert spec["metadata"]["generation"] == 2
    assert spec["status"]["phase"] == "Running"
    assert int(spec["metadata"]["resourceVersion"]) > int(status["metadata"]["resourceVersion"])
    before = len(local.changes)
    same = await local.cluster.patch(key, uid, {"spec": {"suspend": True}})
    assert same == spec
    assert len(local.changes) == before
    with pytest.raises(Refused, match=r"spec\.fold cannot be changed"):
        await local.cluster.patch(key, uid, {"spec": {"fold": 1}})
    with pytest.raises(Refused, match=r"status\.phase"):
        await local.cluster.patch(key, uid, {"status": {"phase": "Nonsense"}}, status=True)
    assert await local.cluster.patch(key, "other", {"spec": {}}) is None
    assert await local.cluster.patch(Key(Kind.TRAIN_RUN, "default", "none"), uid, {"spec": {}}) is None


async def test_apply_changes_what_may_change(local: Local) -> None:
    await local.cluster.apply(RUN)
    changed = await local.cluster.apply({**RUN, "spec": {**RUN["spec"], "suspend": True}})
    assert changed["spec"]["suspend"] is True
    back = await local.cluster.apply(RUN)
    assert back["spec"]["suspend"] is False
    assert back["metadata"]["generation"] == 3
    with pytest.raises(Refused, match=r"spec\.seed cannot be changed"):
        await local.cluster.apply({**RUN, "spec": {**RUN["spec"], "seed": 21}})


async def test_events_are_kept(local: Local, tmp_path: Path) -> None:
    run = (await local.cluster.create(RUN)).obj
    await local.cluster.event(run, warning=True, reason="Retrying", message="once more")
    (line,) = (tmp_path / "state" / "events.jsonl").read_text().splitlines()
    assert json.loads(line) | {"time": ""} == {
        "time": "",
        "type": "Warning",
        "object": "TrainRun/default/one",
        "reason": "Retrying",
        "message": "once more",
    }


# Restarts -------------------------------------------------------------------------------------------------------------


async def test_a_clean_stop_is_a_preemption_and_what_waited_goes_on(tmp_path: Path) -> None:
    first = Local(tmp_path, number=1)
    await first.cluster.start()
    running, waiting = await first.start(GRACEFUL, "a"), await first.start("true", "b")
    await first.running(running)
    await first.cluster.stop()

    second = Local(tmp_path, number=1)
    await second.cluster.start()
    assert {key_of(obj) for obj in second.changes} >= {key_of(running), key_of(waiting)}
    condition = await second.ended(running)
    assert condition["message"].endswith("exit code 75 matching FailJob rule at index 2")
    assert (await second.ended(waiting))["type"] == "Complete"
    await second.cluster.stop()


async def test_a_clean_stop_before_the_trainer_can_save_is_a_preemption_too(tmp_path: Path) -> None:
    local = Local(tmp_path)
    await local.cluster.start()
    created = await local.start("echo up; sleep 100")
    await local.running(created)
    await local.cluster.stop()
    condition = await local.ended(created)
    assert condition["message"].endswith("has condition DisruptionTarget matching FailJob rule at index 3")
    assert classify(condition, [local.pod(created)]).failure_class is FailureClass.PREEMPTED


CRASHING = """
import asyncio, os, signal, sys
from pathlib import Path
from crossfold_operator.cluster.local import LocalCluster
from crossfold_operator.cluster.slots import Slot
import json

async def main():
    cluster = LocalCluster(Path(sys.argv[1]), [Slot(0)])
    await cluster.start()
    await cluster.create(json.loads(sys.argv[2]))
    while not (Path(sys.argv[1]) / "up").exists():
        await asyncio.sleep(0.02)
    os.kill(os.getpid(), signal.SIGKILL)

asyncio.run(main())
"""


async def test_after_a_crash_the_orphan_is_ended_and_its_job_was_disrupted(tmp_path: Path) -> None:
    root = tmp_path / "state"
    script = f"echo $$ > {tmp_path}/pid; trap 'echo saved > {tmp_path}/saved; exit 75' TERM; touch {root}/up; while :; do sleep 0.05; done"
    crashed = await asyncio.to_thread(
        subprocess.run, [sys.executable, "-c", CRASHING, str(root), json.dumps(job(script))], check=False, timeout=60
    )
    assert crashed.returncode == -signal.SIGKILL
    pid = int((tmp_path / "pid").read_text())
    os.kill(pid, 0)

    local = Local(root)
    await local.cluster.start()
    assert (tmp_path / "saved").exists()
    (stored,) = local.cluster.all(Kind.JOB)
    condition = await local.ended(stored)
    assert condition["message"].endswith("has condition DisruptionTarget matching FailJob rule at index 3")
    assert classify(condition, [local.pod(stored)]).failure_class is FailureClass.PREEMPTED
    await local.cluster.stop()


async def test_a_folder_serves_one_at_a_time(tmp_path: Path) -> None:
    first, second = Local(tmp_path), Local(tmp_path)
    await first.cluster.start()
    with pytest.raises(FolderError, match=f"process {os.getpid()} works in"):
        await second.cluster.start()
    await first.cluster.stop()
    await second.cluster.start()
    await second.cluster.stop()


async def test_a_torn_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "objects" / "tunes" / "default" / "torn.json"
    path.parent.mkdir(parents=True)
    path.write_text('{"kind": "Tune"')
    with pytest.raises(FolderError, match=r"torn\.json holds no object"):
        await Local(tmp_path).cluster.start()


async def test_an_interrupted_deletion_goes_on(tmp_path: Path) -> None:
    first = Local(tmp_path)
    await first.cluster.start()
    run = (await first.cluster.create(RUN)).obj
    await first.ended((await first.cluster.create(job("true", owner=run))).obj)
    await first.cluster.stop()
    path = next((tmp_path / "objects" / "trainruns").rglob("one.json"))
    stored = json.loads(path.read_text())
    stored["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    path.write_text(json.dumps(stored))
    second = Local(tmp_path)
    await second.cluster.start()
    assert not [obj for kind in Kind for obj in second.cluster.all(kind)]
    await second.cluster.stop()


# Small parts ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("target", "patch", "expected"),
    [
        ({"a": 1, "b": 2}, {"b": None, "c": {"d": None, "e": 1}}, {"a": 1, "c": {"e": 1}}),
        ({"a": [1]}, {"a": [2, 3]}, {"a": [2, 3]}),
        ({"a": "x"}, {"a": {"b": 1}}, {"a": {"b": 1}}),
        ("x", {"a": 1}, {"a": 1}),
    ],
)
def test_merge_patch(target: Any, patch: Any, expected: Any) -> None:
    assert merge_patch(target, patch) == expected


@pytest.mark.parametrize(
    ("visible", "found"), [("0,1", ["0", "1"]), ("", []), ("-1", []), ("GPU-a, GPU-b", ["GPU-a", "GPU-b"])]
)
def test_gpus(visible: str, found: list[str]) -> None:
    assert gpus({"CUDA_VISIBLE_DEVICES": visible}) == found


def test_slots(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert slots(None, {"CUDA_VISIBLE_DEVICES": ""}) == [Slot(0)]
    assert slots(2, {"CUDA_VISIBLE_DEVICES": ""}) == [Slot(0), Slot(1)]
    assert slots(None, {"CUDA_VISIBLE_DEVICES": "3,5"}) == [Slot(0, "3"), Slot(1, "5")]
    assert slots(3, {"CUDA_VISIBLE_DEVICES": "3,5"}) == [Slot(0, "3"), Slot(1, "5"), Slot(2, "3")]
    fake = tmp_path / "nvidia-smi"
    fake.write_text("#!/bin/sh\necho 'GPU 0: A (UUID: GPU-1)'\necho 'GPU 1: A (UUID: GPU-2)'\n")
    fake.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    assert slots(None, {}) == [Slot(0, "0"), Slot(1, "1")]
    fake.write_text("#!/bin/sh\nexit 9\n")
    assert slots(None, {}) == [Slot(0)]
