"""What Jobs and pods say, read."""

import json
from datetime import UTC, datetime
from typing import Any

import pytest

from crossfold_operator.names import Reason
from crossfold_operator.observe.attempts import (
    FAILURE_RULES,
    Attempt,
    AttemptState,
    Wanted,
    classify,
    explain,
    read_attempts,
)
from crossfold_operator.observe.metadata import Obj
from crossfold_trainer.contract.exits import Exit
from crossfold_trainer.contract.objective import ObjectiveSpec
from crossfold_trainer.contract.result import FAILURE_LOG_LIMIT, FailureClass, RunFailure, RunResult

NOW = datetime(2026, 1, 1, 0, 10, tzinfo=UTC)
DIGEST = "c" * 64
WANTED = Wanted(DIGEST, ObjectiveSpec.model_validate({"metrics": [{"name": "val/JaccardIndex"}]}))
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
        # The other processes were on other nodes.
        (BACKOFF, pod({"exitCode": 76, "message": "lost them"}), FailureClass.INFRASTRUCTURE, 76, "lost them"),
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
    failure = classify(condition, [seen] if seen else [])
    assert (failure.failure_class, failure.exit_code) == (failure_class, exit_code)
    assert words in failure.message
    assert not failure.no_result


def test_every_class_has_a_row() -> None:
    (mark,) = test_classify.pytestmark  # type: ignore[attr-defined]
    assert {row[2] for row in mark.args[1]} == set(FailureClass)


def test_the_rules_name_every_exit_code_that_means_something() -> None:
    # PeersLost has none: the pod that was lost says what it means.
    assert {code for code, _ in FAILURE_RULES if code is not None} == set(Exit) - {Exit.OK, Exit.PEERS_LOST}
    assert FAILURE_RULES[-1] == (None, FailureClass.PREEMPTED)


TRACE = 'Traceback (most recent call last):\n  File "a.py", line 1, in f\n    g()\n    ^^^\nValueError: the end'


@pytest.mark.parametrize("condition", [BACKOFF, policy(0)], ids=["backoff", "policy"])
def test_the_reason_comes_first_and_the_end_of_the_log_is_kept(condition: Obj) -> None:
    code = 1 if condition is BACKOFF else 78
    failure = classify(condition, [pod({"exitCode": code, "reason": "Error", "message": "start\n" * 300 + TRACE})])
    assert failure.message == "ValueError: the end"
    assert failure.log.startswith("start\n")
    assert failure.log.endswith(TRACE)
    assert len(failure.log) <= FAILURE_LOG_LIMIT


def test_the_trainers_own_words_and_log_come_as_they_are() -> None:
    said = RunFailure(failure_class=FailureClass.CRASH, message="TypeError: x", log="one\ntwo").text()
    failure = classify(BACKOFF, [pod({"exitCode": 1, "reason": "Error", "message": said})])
    assert (failure.failure_class, failure.message, failure.log) == (FailureClass.CRASH, "TypeError: x", "one\ntwo")


@pytest.mark.parametrize("reason", ["ContainerStatusUnknown", "StartError", "ContainerCannotRun"])
def test_what_the_runtime_says_is_no_log(reason: str) -> None:
    failure = classify(BACKOFF, [pod({"exitCode": 137, "reason": reason, "message": "could not be located\nbye"})])
    assert (failure.message, failure.log) == ("could not be located bye", "")


def test_a_container_killed_for_its_memory_keeps_its_log() -> None:
    failure = classify(BACKOFF, [pod({"exitCode": 137, "reason": "OOMKilled", "message": "epoch 1/3"})])
    assert (failure.failure_class, failure.log) == (FailureClass.HOST_OUT_OF_MEMORY, "epoch 1/3")


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
    (seen,) = read_attempts("r", [job_seen], {job_seen["metadata"]["uid"]: pods}, WANTED, NOW)
    return seen


def test_attempts_are_told_by_the_names_of_their_jobs() -> None:
    jobs = [job(name, uid=name) for name in ("r-a10", "r-a2", "r", "r-a02", "r-a1", "r-b", "rr", "r-a2-x")]
    assert [(a.number, a.job) for a in read_attempts("r", jobs, {}, WANTED, NOW)] == [
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
        ([pod({"exitCode": 0, "message": "bye"})], "docs/extend.md"),
        ([pod({"exitCode": 0})], "docs/extend.md"),
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


def bare(**content: Any) -> Obj:
    """The pod of a trainer of one's own, which leaves the score to the operator."""
    return pod({"exitCode": 0, "message": json.dumps({"result": {"digest": DIGEST, **content}})})


def test_values_alone_are_scored() -> None:
    seen = one(job(conditions=true("Complete")), bare(values={"val/JaccardIndex": 0.25}, metrics={"val/loss": 1.0}))
    assert seen.result is not None
    assert (seen.result.score, seen.result.stable, seen.result.values) == (0.25, True, {"val/JaccardIndex": 0.25})
    seen = one(job(conditions=true("Complete")), bare(values={"val/JaccardIndex": None}))
    assert seen.result is not None
    assert (seen.result.score, seen.result.stable) == (None, False)
    seen = one(job(conditions=true("Complete")), bare(outcome="Diverged"))
    assert seen.result is not None
    assert seen.result.score is None


def test_a_metric_that_nobody_reports_is_a_wrong_configuration() -> None:
    seen = one(job(conditions=true("Complete")), bare(values={"val/iou": 0.25}))
    assert seen.failure is not None
    assert (seen.result, seen.failure.failure_class) == (None, FailureClass.CONFIG)
    assert "val/JaccardIndex" in seen.failure.message
    assert "(val/iou)" in seen.failure.message


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


# Several nodes --------------------------------------------------------------------------------------------------------


def node(number: int, terminated: Obj | None = None, *, asked: str = "", **more: Any) -> Obj:
    """The pod of a node; its deletion was asked for at a time (minutes and seconds), with a grace period of 2 minutes."""
    seen = pod(terminated, **more)
    meta = {
        **seen["metadata"],
        "name": f"r-{number}-x",
        "labels": {"batch.kubernetes.io/job-completion-index": f"{number}"},
    }
    if asked:
        minutes, seconds = asked.split(":")
        end = f"2026-01-01T00:{int(minutes) + 2:02}:{seconds}Z"
        meta |= {"deletionTimestamp": end, "deletionGracePeriodSeconds": 120}
    return {**seen, "metadata": meta}


def ran(code: int, end: str = "04:00", message: str = "", **more: Any) -> Obj:
    """A container that ran from 00:02:00 on."""
    return {
        "exitCode": code,
        "message": message,
        "startedAt": "2026-01-01T00:02:00Z",
        "finishedAt": f"2026-01-01T00:{end}Z",
        **more,
    }


def nodes_job(**status: Any) -> Obj:
    return {**job(**status), "spec": {"completions": 2}}


RUNS = {"running": {"startedAt": "2026-01-01T00:05:00Z"}}


def test_an_attempt_runs_when_all_of_its_nodes_do() -> None:
    first = node(0, state={"running": {"startedAt": "2026-01-01T00:04:00Z"}})
    pending = node(
        1, conditions=[{"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/3"}]
    )
    alone, waits = one(nodes_job(), first), one(nodes_job(), pending, first)
    assert (alone.state, alone.pod, alone.seconds) == (AttemptState.STARTING, None, 360)
    assert (waits.state, waits.pod, waits.seconds) == (AttemptState.STARTING, pending, 360)
    assert waits.waiting is not None
    assert waits.waiting.reason is Reason.UNSCHEDULABLE
    runs = one(nodes_job(), node(1, state=RUNS), first)
    assert (runs.state, runs.started, runs.seconds) == (AttemptState.RUNNING, "2026-01-01T00:04:00Z", 360)


def test_the_first_node_tells_the_result_and_the_last_one_ends_the_time() -> None:
    done = nodes_job(conditions=true("Complete"))
    seen = one(done, node(1, ran(0, "06:00")), node(0, ran(0, "05:30", result())))
    assert seen.result is not None
    assert (seen.failure, seen.seconds, seen.ended) == (None, 240, "2026-01-01T00:06:00Z")
    gone = one(done, node(1, ran(0, "06:00", result()))).failure
    assert gone is not None
    assert "its pod is gone" in gone.message


OOM = {"reason": "OOMKilled"}


@pytest.mark.parametrize(
    ("pods", "failure_class", "words"),
    [
        # What ended one of them, whatever became of the other.
        ([node(0, ran(76)), node(1, ran(1, "04:30", "KeyError"))], FailureClass.CRASH, "KeyError"),
        (
            [node(0, ran(1, message="RuntimeError")), node(1, ran(137, **OOM))],
            FailureClass.HOST_OUT_OF_MEMORY,
            "memory",
        ),
        ([node(0, ran(1, "03:00", "x")), node(1, ran(78, message=SAID))], FailureClass.CONFIG, "no such band"),
        ([node(0, ran(0)), node(1, ran(1, message="late"))], FailureClass.CRASH, "late"),
        # The Job deletes what is left when one has failed: no preemption.
        ([node(0, ran(76)), node(1, ran(137, "06:01"), asked="04:00")], FailureClass.INFRASTRUCTURE, "lost the other"),
        ([node(0, ran(75, "05:00"), asked="04:01"), node(1, ran(1, message="x"))], FailureClass.CRASH, "x"),
        # Deleted by somebody before.
        ([node(0, ran(76, "05:01")), node(1, ran(137, "05:00"), asked="03:00")], FailureClass.PREEMPTED, "deleted"),
        ([node(0, ran(76)), node(1, ran(143, "04:00"), conditions=DISRUPTED)], FailureClass.PREEMPTED, "deleted"),
        ([node(0, ran(1)), node(1, ran(143, "04:00"), conditions=DISRUPTED)], FailureClass.PREEMPTED, "deleted"),
        # Gone without a trace.
        ([node(0, ran(76))], FailureClass.INFRASTRUCTURE, "lost the other"),
        ([node(0, ran(1, message="x"))], FailureClass.CRASH, "x"),
        ([], FailureClass.INFRASTRUCTURE, "is gone"),
    ],
)
def test_of_several_nodes_the_one_that_explains_the_others_tells(
    pods: list[Obj], failure_class: FailureClass, words: str
) -> None:
    failure = one(nodes_job(conditions=true("Failed", **BACKOFF)), *pods).failure
    assert failure is not None
    assert failure.failure_class is failure_class
    assert words in failure.message


def test_a_rule_that_matched_names_the_pod() -> None:
    text = "Container trainer for pod d/r-1-x failed with exit code 71 matching FailJob rule at index 1"
    said = '{"failure":{"class":"OutOfMemory","message":"lower batch_size"}}'
    failure = classify(
        {"reason": "PodFailurePolicy", "message": text}, [node(0, ran(76)), node(1, ran(71, message=said))], 2
    )
    assert (failure.failure_class, failure.exit_code) == (FailureClass.OUT_OF_MEMORY, 71)
    assert failure.message == "lower batch_size"


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
