"""What Jobs and pods say, read."""

from datetime import UTC, datetime
from typing import Any

import pytest

from crossfold_operator.names import Reason
from crossfold_operator.observe.attempts import (
    FAILURE_RULES,
    MESSAGE_TAIL,
    Attempt,
    AttemptState,
    classify,
    explain,
    read_attempts,
)
from crossfold_operator.observe.metadata import Obj
from crossfold_trainer.contract.exits import Exit
from crossfold_trainer.contract.result import FailureClass, RunResult

NOW = datetime(2026, 1, 1, 0, 10, tzinfo=UTC)
DIGEST = "c" * 64
BACKOFF = {"reason": "BackoffLimitExceeded", "message": "Job has reached the specified backoff limit"}


def policy(index: int, code: int = 78) -> Obj:
    text = f"Container trainer for pod d/r-x failed with exit code {code} matching FailJob rule at index {index}"
    return {"reason": "PodFailurePolicy", "message": text}


def pod(
    terminated: Obj | None = None,
    *,
    state: Obj | None = None,
    conditions: list[Obj] | None = None,
    deleting: bool = False,
    **status: Any,
) -> Obj:
    if terminated is not None:
        state = {"terminated": terminated}
    meta: Obj = {"name": "r-x", "creationTimestamp": "2026-01-01T00:00:05Z"}
    if deleting:
        meta = {**meta, "deletionTimestamp": "2026-01-01T00:05:00Z"}
    containers = [{"name": "trainer", "state": state}] if state is not None else []
    return {"metadata": meta, "status": {"containerStatuses": containers, "conditions": conditions or [], **status}}


DISRUPTED = [{"type": "DisruptionTarget", "status": "True", "reason": "PreemptionByScheduler"}]
SAID = '{"failure":{"class":"Config","message":"no such band: red"}}'


@pytest.mark.parametrize(
    ("condition", "seen", "failure_class", "exit_code", "words"),
    [
        # The pod is there.
        (policy(0), pod({"exitCode": 78, "message": SAID}), FailureClass.CONFIG, 78, "no such band: red"),
        (policy(1, 71), pod({"exitCode": 71, "message": "out of memory"}), FailureClass.OUT_OF_MEMORY, 71, "out of"),
        (policy(2, 75), pod({"exitCode": 75}), FailureClass.PREEMPTED, 75, "exit code 75"),
        (policy(3), pod({"exitCode": 143}, conditions=DISRUPTED), FailureClass.PREEMPTED, 143, "rule at index 3"),
        (BACKOFF, pod({"exitCode": 1, "message": "Traceback: KeyError"}), FailureClass.CRASH, 1, "KeyError"),
        (BACKOFF, pod({"exitCode": 1, "message": ""}), FailureClass.CRASH, 1, "exit code 1"),
        (BACKOFF, pod({"exitCode": 139}), FailureClass.CRASH, 139, "exit code 139"),
        (
            BACKOFF,
            pod({"exitCode": 137, "reason": "OOMKilled"}),
            FailureClass.HOST_OUT_OF_MEMORY,
            137,
            "spec.template.resources.limits.memory",
        ),
        (BACKOFF, pod({"exitCode": 137, "reason": "Error"}), FailureClass.CRASH, 137, "exit code 137"),
        # The policy's condition may come late: the code says the same.
        (BACKOFF, pod({"exitCode": 78, "message": "bad"}), FailureClass.CONFIG, 78, "bad"),
        (BACKOFF, pod({"exitCode": 71, "message": "m"}), FailureClass.OUT_OF_MEMORY, 71, "m"),
        (BACKOFF, pod({"exitCode": 75, "message": "m"}), FailureClass.PREEMPTED, 75, "m"),
        # Killed from outside.
        (BACKOFF, pod({"exitCode": 143}, conditions=DISRUPTED), FailureClass.PREEMPTED, 143, "deleted"),
        (BACKOFF, pod({"exitCode": 143}, deleting=True), FailureClass.PREEMPTED, 143, "deleted"),
        (BACKOFF, pod(None, deleting=True, message="Node is shutting down"), FailureClass.PREEMPTED, None, "shutting"),
        (
            BACKOFF,
            pod({"exitCode": 143}, conditions=[{"type": "DisruptionTarget", "status": "False"}]),
            FailureClass.CRASH,
            143,
            "exit code 143",
        ),
        # A container that was OOM-killed is not excused by a disruption.
        (
            BACKOFF,
            pod({"exitCode": 137, "reason": "OOMKilled"}, conditions=DISRUPTED),
            FailureClass.HOST_OUT_OF_MEMORY,
            137,
            "limits.memory",
        ),
        # No word from the container.
        (BACKOFF, pod(None), FailureClass.INFRASTRUCTURE, None, "without an exit code"),
        (BACKOFF, pod(None, message="Node was lost"), FailureClass.INFRASTRUCTURE, None, "Node was lost"),
        (BACKOFF, pod(state={"waiting": {"reason": "x"}}), FailureClass.INFRASTRUCTURE, None, "without an exit code"),
        # The pod is gone.
        (policy(0), None, FailureClass.CONFIG, 78, "rule at index 0"),
        (policy(1, 71), None, FailureClass.OUT_OF_MEMORY, 71, "exit code 71"),
        (policy(2, 75), None, FailureClass.PREEMPTED, 75, "exit code 75"),
        (
            {
                "reason": "PodFailurePolicy",
                "message": "Pod d/x has condition DisruptionTarget matching FailJob rule at index 3",
            },
            None,
            FailureClass.PREEMPTED,
            None,
            "DisruptionTarget",
        ),
        (policy(4, 3), None, FailureClass.INFRASTRUCTURE, None, "the pod is gone"),
        (BACKOFF, None, FailureClass.INFRASTRUCTURE, None, "the pod is gone"),
        ({}, None, FailureClass.INFRASTRUCTURE, None, "the pod is gone"),
        # The deadline.
        ({"reason": "DeadlineExceeded"}, None, FailureClass.TIMEOUT, None, "activeDeadlineSeconds"),
        ({"reason": "DeadlineExceeded"}, pod({"exitCode": 143}), FailureClass.TIMEOUT, 143, "activeDeadlineSeconds"),
    ],
)
def test_classify(
    condition: Obj, seen: Obj | None, failure_class: FailureClass, exit_code: int | None, words: str
) -> None:
    failure = classify(condition, seen)
    assert (failure.failure_class, failure.exit_code) == (failure_class, exit_code)
    assert words in failure.message
    assert not failure.no_result


def test_every_class_has_a_row() -> None:
    (mark,) = test_classify.pytestmark  # type: ignore[attr-defined]
    assert {row[2] for row in mark.args[1]} == set(FailureClass)


def test_the_rules_name_every_exit_code_that_means_something() -> None:
    assert {code for code, _ in FAILURE_RULES if code is not None} == set(Exit) - {Exit.OK}
    assert FAILURE_RULES[-1] == (None, FailureClass.PREEMPTED)


def test_the_end_of_a_log_is_kept() -> None:
    log = "start\n" * 1000 + "ValueError: the end"
    failure = classify(BACKOFF, pod({"exitCode": 1, "message": log}))
    assert failure.message.endswith("ValueError: the end")
    assert len(failure.message) <= MESSAGE_TAIL


# Attempts -------------------------------------------------------------------------------------------------------------


def job(name: str = "r", *, uid: str = "j1", deleting: bool = False, **status: Any) -> Obj:
    meta: Obj = {"name": name, "uid": uid, "creationTimestamp": "2026-01-01T00:00:00Z"}
    if deleting:
        meta["deletionTimestamp"] = "2026-01-01T00:05:00Z"
    return {"metadata": meta, "status": status}


def true(kind: str, **fields: str) -> list[Obj]:
    return [{"type": kind, "status": "True", **fields}]


def result(**changes: Any) -> str:
    content = {"digest": DIGEST, "score": 0.5, "values": {"val/JaccardIndex": 0.5}} | changes
    return RunResult.model_validate(content).message()


def one(job_seen: Obj, *pods: Obj) -> Attempt:
    (seen,) = read_attempts("r", [job_seen], {job_seen["metadata"]["uid"]: pods}, DIGEST, NOW)
    return seen


def test_attempts_are_told_by_the_names_of_their_jobs() -> None:
    jobs = [job(name, uid=name) for name in ("r-a10", "r-a2", "r", "r-a02", "r-a1", "r-b", "rr", "r-a2-x")]
    assert [(a.number, a.job) for a in read_attempts("r", jobs, {}, DIGEST, NOW)] == [
        (1, "r"),
        (2, "r-a2"),
        (10, "r-a10"),
    ]


@pytest.mark.parametrize(
    ("seen", "state"),
    [
        (job(), AttemptState.STARTING),
        (job(active=1), AttemptState.STARTING),
        (job(conditions=[{"type": "Failed", "status": "False"}]), AttemptState.STARTING),
        (job(conditions=true("FailureTarget")), AttemptState.STARTING),
        (job(conditions=true("SuccessCriteriaMet")), AttemptState.STARTING),
        (job(conditions=true("Suspended")), AttemptState.STARTING),
        (job(conditions=true("Failed")), AttemptState.ENDED),
        (job(conditions=true("Complete")), AttemptState.ENDED),
    ],
)
def test_the_state_without_a_pod(seen: Obj, state: AttemptState) -> None:
    assert one(seen).state is state


def test_a_running_container() -> None:
    seen = one(job(), pod(state={"running": {"startedAt": "2026-01-01T00:04:00Z"}}) | {"spec": {"nodeName": "n1"}})
    assert (seen.state, seen.seconds, seen.node, seen.waiting) == (AttemptState.RUNNING, 360, "n1", None)


def test_a_container_that_has_ended_is_running_until_its_job_says_so() -> None:
    ended = {"exitCode": 0, "startedAt": "2026-01-01T00:04:00Z", "finishedAt": "2026-01-01T00:05:00Z"}
    seen = one(job(), pod(ended))
    assert (seen.state, seen.seconds) == (AttemptState.RUNNING, 60)


def test_the_latest_pod_counts() -> None:
    old, new = pod(state={"waiting": {}}), pod(state={"running": {"startedAt": "2026-01-01T00:09:00Z"}})
    new["metadata"] = {**new["metadata"], "creationTimestamp": "2026-01-01T00:08:00Z"}
    assert one(job(), new, old).state is AttemptState.RUNNING
    assert one(job(), old, new).state is AttemptState.RUNNING


def test_complete_with_a_result() -> None:
    ended = {"exitCode": 0, "startedAt": "2026-01-01T00:04:00Z", "finishedAt": "2026-01-01T00:05:00Z"}
    seen = one(job(conditions=true("Complete")), pod({**ended, "message": result()}))
    assert (seen.state, seen.failure, seen.seconds) == (AttemptState.ENDED, None, 60)
    assert seen.result is not None
    assert seen.result.score == 0.5


@pytest.mark.parametrize(
    ("pods", "words"),
    [
        ([], "its pod is gone"),
        ([pod(None)], "its pod is gone"),
        ([pod({"exitCode": 0, "message": "bye"})], "does the image run the Crossfold trainer?"),
        ([pod({"exitCode": 0})], "does the image run the Crossfold trainer?"),
        ([pod({"exitCode": 0, "message": SAID})], "holds no result"),
        ([pod({"exitCode": 0, "message": '{"result":{"score":1}}'})], "holds no result"),
        ([pod({"exitCode": 0, "message": result(digest="d" * 64)})], "digest dddddddddddd, not cccccccccccc"),
    ],
)
def test_complete_without_a_readable_result(pods: list[Obj], words: str) -> None:
    failure = one(job(conditions=true("Complete")), *pods).failure
    assert failure is not None
    assert (failure.failure_class, failure.no_result) == (FailureClass.INFRASTRUCTURE, True)
    assert words in failure.message


def test_the_jobs_own_times_count_when_the_pod_is_gone() -> None:
    conditions = true("Failed", lastTransitionTime="2026-01-01T00:03:00Z")
    assert one(job(conditions=conditions, startTime="2026-01-01T00:01:00Z")).seconds == 120
    assert one(job(conditions=true("Failed"), startTime="2026-01-01T00:01:00Z")).seconds == 0
    assert one(job(conditions=conditions)).seconds == 0


def test_a_container_that_never_started_ran_for_no_time() -> None:
    """The runtime says 1970 when a container could not be started."""
    never = {
        "exitCode": 128,
        "reason": "StartError",
        "message": "exec: no such file",
        "startedAt": "1970-01-01T00:00:00Z",
        "finishedAt": "2026-01-01T00:01:00Z",
    }
    failed = true("Failed", **BACKOFF, lastTransitionTime="2026-01-01T00:01:00Z")
    seen = one(job(conditions=failed, startTime="2026-01-01T00:00:30Z"), pod(never))
    assert seen.seconds <= 60
    assert seen.started is None
    assert seen.failure is not None
    assert "no such file" in seen.failure.message


# Why an attempt does not start ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("seen", "reason", "structural", "words"),
    [
        (pod(state={"waiting": {"reason": "ContainerCreating"}}), None, None, ""),
        (pod(state={"waiting": {"reason": "PodInitializing"}}), None, None, ""),
        *[
            (pod(state={"waiting": {"reason": why, "message": "m"}}), Reason.IMAGE_PULL, True, "spec.template.image")
            for why in ("ImagePullBackOff", "ErrImagePull", "InvalidImageName", "ErrImageNeverPull")
        ],
        (
            pod(state={"waiting": {"reason": "CreateContainerConfigError", "message": 'secret "keys" not found'}}),
            Reason.SECRET_MISSING,
            True,
            'Secret "keys" does not exist',
        ),
        (
            pod(state={"waiting": {"reason": "CreateContainerConfigError", "message": "runAsNonRoot"}}),
            Reason.CONTAINER_CONFIG,
            True,
            "runAsNonRoot",
        ),
        (
            pod(state={"waiting": {"reason": "CreateContainerError"}}),
            Reason.CONTAINER_CONFIG,
            True,
            "cannot be created",
        ),
        (
            pod(conditions=[{"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/3"}]),
            Reason.UNSCHEDULABLE,
            False,
            "0/3",
        ),
        (pod(conditions=[{"type": "PodScheduled", "status": "True"}]), None, None, ""),
    ],
)
def test_waiting(seen: Obj, reason: Reason | None, structural: bool | None, words: str) -> None:
    waiting = one(job(), seen).waiting
    if reason is None:
        assert waiting is None
        return
    assert waiting is not None
    assert (waiting.reason, waiting.structural) == (reason, structural)
    assert words in waiting.message


@pytest.mark.parametrize(
    ("warnings", "reason", "structural"),
    [
        ([], None, None),
        ([("BackOff", "restarting")], None, None),
        ([("FailedMount", 'MountVolume.SetUp failed: secret "keys" not found')], Reason.SECRET_MISSING, True),
        ([("FailedMount", 'references non-existent secret: secrets "keys" not found')], Reason.SECRET_MISSING, True),
        ([("FailedMount", "no such device")], Reason.CONTAINER_CONFIG, True),
        ([("FailedCreate", "violates PodSecurity")], Reason.CONTAINER_CONFIG, True),
        ([("FailedCreate", "pods is forbidden: exceeded quota: gpus")], Reason.QUOTA_EXCEEDED, False),
        ([("Else", "x"), ("FailedMount", "y")], Reason.CONTAINER_CONFIG, True),
    ],
)
def test_explain(warnings: list[tuple[str, str]], reason: Reason | None, structural: bool | None) -> None:
    waiting = explain(one(job()), warnings).waiting
    assert (waiting.reason if waiting else None) == reason
    assert (waiting.structural if waiting else None) == structural
