"""What Jobs and pods say, read."""

from datetime import UTC, datetime
from typing import Any

import pytest

from crossfold_operator import observe
from crossfold_operator.api.crossvalidation import RunRecord
from crossfold_operator.names import Kind, Reason
from crossfold_operator.observe import FAILURE_RULES, AttemptState, Obj, attempts, classify
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
    assert len(failure.message) <= observe.MESSAGE_TAIL


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


def one(job_seen: Obj, *pods: Obj) -> observe.Attempt:
    (seen,) = attempts("r", [job_seen], {job_seen["metadata"]["uid"]: pods}, DIGEST, NOW)
    return seen


def test_attempts_are_told_by_the_names_of_their_jobs() -> None:
    jobs = [job(name, uid=name) for name in ("r-a10", "r-a2", "r", "r-a02", "r-a1", "r-b", "rr", "r-a2-x")]
    assert [(a.number, a.job) for a in attempts("r", jobs, {}, DIGEST, NOW)] == [(1, "r"), (2, "r-a2"), (10, "r-a10")]


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
    waiting = observe.explain(one(job()), warnings).waiting
    assert (waiting.reason if waiting else None) == reason
    assert (waiting.structural if waiting else None) == structural


# What a change wakes --------------------------------------------------------------------------------------------------

OURS = "crossfold.dev/v1alpha1"


def owned(kind: Kind, name: str, owner: tuple[str, str, str] | None = None, **labels: str) -> Obj:
    meta: Obj = {"name": name, "namespace": "d", "labels": {f"crossfold.dev/{k}": v for k, v in labels.items()}}
    if owner:
        version, owner_kind, owner_name = owner
        reference = {"apiVersion": version, "kind": owner_kind, "name": owner_name, "uid": "u", "controller": True}
        meta["ownerReferences"] = [{**reference, "name": "other", "controller": False}, reference]
    return {"kind": str(kind), "metadata": meta}


@pytest.mark.parametrize(
    ("obj", "keys"),
    [
        (owned(Kind.TUNE, "t"), [("Tune", "d", "t")]),
        (owned(Kind.TUNE, "t", ("argoproj.io/v1", "Workflow", "w")), [("Tune", "d", "t")]),
        (owned(Kind.CROSS_VALIDATION, "c"), [("CrossValidation", "d", "c")]),
        (
            owned(Kind.CROSS_VALIDATION, "c", (OURS, "Tune", "t"), tune="t"),
            [("CrossValidation", "d", "c"), ("Tune", "d", "t")],
        ),
        (
            owned(Kind.TRAIN_RUN, "r", (OURS, "CrossValidation", "c"), tune="t"),
            [("TrainRun", "d", "r"), ("CrossValidation", "d", "c"), ("Tune", "d", "t")],
        ),
        (
            owned(Kind.TRAIN_RUN, "r", (OURS, "CrossValidation", "c")),
            [("TrainRun", "d", "r"), ("CrossValidation", "d", "c")],
        ),
        (owned(Kind.TRAIN_RUN, "r", tune="t"), [("TrainRun", "d", "r")]),
        (owned(Kind.JOB, "r", (OURS, "TrainRun", "r")), [("TrainRun", "d", "r")]),
        (owned(Kind.JOB, "r", ("batch/v1", "CronJob", "r")), []),
        (owned(Kind.JOB, "r"), []),
        (owned(Kind.POD, "r-x", ("batch/v1", "Job", "r"), **{"train-run": "r"}), [("TrainRun", "d", "r")]),
        (owned(Kind.POD, "x"), []),
    ],
)
def test_wakes(obj: Obj, keys: list[tuple[str, str, str]]) -> None:
    assert observe.wakes(obj) == keys


# Runs and trials ------------------------------------------------------------------------------------------------------


def train_run(fold: int, phase: str, **status: Any) -> Obj:
    meta = {"name": f"c-f{fold}s42", "uid": f"uid{fold}"}
    return {"metadata": meta, "spec": {"fold": fold, "seed": 42}, "status": {"phase": phase, **status}}


def record(fold: int, phase: str, **fields: Any) -> RunRecord:
    return RunRecord.model_validate({"fold": fold, "seed": 42, "run": "remembered", "phase": phase, **fields})


@pytest.mark.parametrize(
    ("there", "remembered", "found"),
    [
        ([], [], []),
        ([train_run(1, "Running"), train_run(0, "Queued")], [], [(0, "Queued", True), (1, "Running", True)]),
        # A finished run that is gone is remembered; one that was under way is not: it is made again.
        ([], [record(0, "Succeeded"), record(1, "Running")], [(0, "Succeeded", False)]),
        ([], [record(0, "Failed"), record(1, "Stopped")], [(0, "Failed", False), (1, "Stopped", False)]),
        # What is seen counts more than what is remembered.
        ([train_run(0, "Failed")], [record(0, "Running")], [(0, "Failed", True)]),
        ([train_run(0, "Succeeded")], [record(0, "Succeeded")], [(0, "Succeeded", True)]),
        # A run that has ended has ended, also when somebody made its object again.
        ([train_run(0, "Running")], [record(0, "Succeeded")], [(0, "Succeeded", False)]),
    ],
)
def test_runs(there: list[Obj], remembered: list[RunRecord], found: list[tuple[int, str, bool]]) -> None:
    runs = observe.runs(there, remembered)
    assert [(r.record.fold, r.record.phase.value, bool(r.uid)) for r in runs] == found


def test_a_run_in_brief() -> None:
    content = {"score": "0.5", "stable": True, "values": {"val/loss": "0.5"}, "preemptions": 2, "dataDigest": "d"}
    (done,) = observe.runs([train_run(0, "Succeeded", **content)], [])
    assert (done.record.score, done.record.stable, done.record.values) == ("0.5", True, {"val/loss": "0.5"})
    assert (done.record.preemptions, done.record.data_digest, done.terminal) == (2, "d", True)
    # What is recorded after a stop is no score.
    (stopped,) = observe.runs([train_run(0, "Stopped", **content)], [])
    assert (stopped.record.score, stopped.record.stable, stopped.record.values) == (None, None, {})
    failure = {"class": "Crash", "message": "x" * 2000}
    (failed,) = observe.runs([train_run(0, "Failed", failure=failure)], [])
    assert (failed.record.failure_class, len(failed.record.message)) == ("Crash", 512)
    (retrying,) = observe.runs([train_run(0, "Running", failure=failure)], [])
    assert (retrying.record.failure_class, retrying.record.message, retrying.terminal) == ("", "", False)
    new = {"metadata": {"name": "c", "uid": "u", "deletionTimestamp": "2026-01-01T00:00:00Z"}}
    new["spec"] = {"stop": {"reason": "Stopped"}, "suspend": True}  # type: ignore[assignment]
    (fresh,) = observe.runs([new], [])
    assert (fresh.record.phase.value, fresh.unit) == ("Queued", (0, 42))
    assert (fresh.stopping, fresh.suspended, fresh.deleting) == (True, True, True)


def test_a_trial() -> None:
    cv: Obj = {
        "metadata": {"name": "t-cv3", "uid": "u"},
        "spec": {
            "hyperparameters": [
                {"name": "batch_size", "value": 8},
                {"name": "bands"},
                {"name": "gamma", "value": 0.5},
            ]
        },
        "status": {
            "phase": "Running",
            "score": "0.5",
            "runs": [{"fold": 1, "seed": 42, "run": "r", "phase": "Failed"}],
        },
    }
    seen = observe.trial(cv, 3, ["batch-size", "bands"], [train_run(0, "Running")])
    assert (seen.number, seen.name, seen.score, seen.std) == (3, "t-cv3", 0.5, None)
    # Fixed hyperparameters are no part of the point.
    assert seen.parameters == {"batch_size": 8, "bands": None}
    assert [r.unit for r in seen.runs] == [(0, 42), (1, 42)]
    over = {**cv, "status": {**cv["status"], "phase": "Failed"}}
    assert observe.trial(over, 3, [], [train_run(0, "Running")]).runs == ()
    assert observe.trial({**cv, "status": None}, 3, [], []).phase.value == "Pending"
