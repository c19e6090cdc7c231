"""Jobs and pods -> the attempts of a TrainRun. Pure: the one place that reads what Jobs and pods say."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from enum import Enum, auto
from typing import Any

from crossfold_operator import names
from crossfold_operator.names import Reason
from crossfold_operator.observe.metadata import Obj, is_deleting
from crossfold_operator.times import seconds_between
from crossfold_trainer.contract.exits import Exit
from crossfold_trainer.contract.result import FailureClass, RunFailure, RunResult, parse_message

FAILURE_RULES: tuple[tuple[int | None, FailureClass], ...] = (
    (Exit.CONFIG, FailureClass.CONFIG),
    (Exit.OUT_OF_MEMORY, FailureClass.OUT_OF_MEMORY),
    (Exit.INTERRUPTED, FailureClass.PREEMPTED),
    (None, FailureClass.PREEMPTED),
)
"""A Job's podFailurePolicy, in order: FailJob on this exit code (None: on DisruptionTarget), and what it means.

The Job's condition names the index of the rule, which tells the class even when the pod is gone.
"""

MESSAGE_TAIL = 1000
"""Characters of a log's end that a failure keeps."""
_RULE = re.compile(r"rule at index (\d+)")
_EXIT_CODE = re.compile(r"exit code (\d+)")
_MISSING_SECRET = re.compile(r'secrets? "([^"]+)" not found')


class AttemptState(Enum):
    """Where one attempt (one Job) stands."""

    STARTING = auto()
    RUNNING = auto()
    ENDED = auto()


@dataclass(frozen=True)
class Waiting:
    """Why a container does not start."""

    reason: Reason
    message: str
    structural: bool
    """It will not pass by itself (an image, a Secret), as opposed to capacity."""


@dataclass(frozen=True)
class Failure:
    """Why an attempt ended without a result."""

    failure_class: FailureClass
    message: str
    exit_code: int | None = None
    no_result: bool = False
    """The Job is Complete, and no readable result of this configuration came with it."""


@dataclass(frozen=True)
class Attempt:
    """One Job of a TrainRun, as it is seen."""

    number: int
    job: str
    uid: str
    state: AttemptState
    deleting: bool = False
    created: str = ""
    started: str | None = None
    ended: str | None = None
    """When its container or, without one, its Job ended."""
    seconds: int = 0
    node: str = ""
    pod: Obj | None = field(default=None, compare=False)
    waiting: Waiting | None = None
    failure: Failure | None = None
    result: RunResult | None = None


def read_attempts(
    run: str, jobs: Iterable[Obj], pods: Mapping[str, Sequence[Obj]], digest: str, now: datetime
) -> list[Attempt]:
    """The attempts of a TrainRun in order.

    Args:
        run: its name.
        jobs: its Jobs.
        pods: the pods of each Job by the Job's UID.
        digest: configDigest that a result must carry.
        now: the time.
    """
    seen = []
    for job in jobs:
        number = names.attempt_of(run, job["metadata"]["name"])
        if number is not None:
            seen.append(_attempt(number, job, pods.get(job["metadata"]["uid"], ()), digest, now))
    return sorted(seen, key=lambda a: a.number)


def _attempt(number: int, job: Obj, pods: Sequence[Obj], digest: str, now: datetime) -> Attempt:
    pod = max(pods, key=lambda p: p["metadata"].get("creationTimestamp", ""), default=None)
    conditions = _true_conditions(job)
    container = _container(pod)
    state: Mapping[str, Any] = container.get("state", {})
    terminated, running = state.get("terminated"), state.get("running")
    started = (terminated or running or {}).get("startedAt")
    if started and started.startswith("1970-"):
        # What a runtime says of a container that could not be started.
        started = None
    seen = Attempt(
        number=number,
        job=job["metadata"]["name"],
        uid=job["metadata"]["uid"],
        state=AttemptState.STARTING,
        deleting=is_deleting(job),
        created=job["metadata"].get("creationTimestamp", ""),
        started=started,
        ended=(terminated or {}).get("finishedAt"),
        seconds=seconds_between(started, (terminated or {}).get("finishedAt"), now),
        node=(pod or {}).get("spec", {}).get("nodeName") or "",
        pod=pod,
    )
    if "Complete" in conditions:
        result, failure = _result(terminated, digest)
        return replace(seen, state=AttemptState.ENDED, result=result, failure=failure)
    if "Failed" in conditions:
        if started is None:
            # The pod is gone: the Job's own times are what is left.
            begin, end = job.get("status", {}).get("startTime"), conditions["Failed"].get("lastTransitionTime")
            seen = replace(seen, seconds=seconds_between(begin, end or begin, now), ended=end)
        return replace(seen, state=AttemptState.ENDED, failure=classify(conditions["Failed"], pod))
    if started is not None:
        return replace(seen, state=AttemptState.RUNNING)
    return replace(seen, waiting=_waiting(pod, container))


def _result(terminated: Mapping[str, Any] | None, digest: str) -> tuple[RunResult | None, Failure | None]:
    parsed = parse_message((terminated or {}).get("message", ""))
    if isinstance(parsed, RunResult) and parsed.digest == digest:
        return parsed, None
    if isinstance(parsed, RunResult):
        why = f"its result belongs to another configuration (digest {parsed.digest[:12]}, not {digest[:12]})"
    elif terminated is None:
        why = "its pod is gone before its result was read"
    else:
        why = "its termination message holds no result: does the image run the Crossfold trainer?"
    return None, Failure(FailureClass.INFRASTRUCTURE, f"the Job is complete, but {why}", no_result=True)


def classify(failed: Mapping[str, Any], pod: Obj | None) -> Failure:
    """The class of a failed Job, from its Failed condition and its pod, which may be gone."""
    reason, text = failed.get("reason", ""), failed.get("message", "")
    terminated: Mapping[str, Any] = _container(pod).get("state", {}).get("terminated") or {}
    said = _words(terminated.get("message", ""))
    exit_code: int | None = terminated.get("exitCode")
    if reason == "PodFailurePolicy" and (rule := _RULE.search(text)) and int(rule[1]) < len(FAILURE_RULES):
        if exit_code is None and (code := _EXIT_CODE.search(text)):
            exit_code = int(code[1])
        return Failure(FAILURE_RULES[int(rule[1])][1], said or text, exit_code)
    if reason == "DeadlineExceeded":
        return Failure(FailureClass.TIMEOUT, "spec.template.activeDeadlineSeconds has passed", exit_code)
    if terminated.get("reason") == "OOMKilled":
        message = "the container used more memory than it may: raise spec.template.resources.limits.memory"
        return Failure(FailureClass.HOST_OUT_OF_MEMORY, message, exit_code)
    if pod is None:
        return Failure(FailureClass.INFRASTRUCTURE, "the pod is gone (deleted, or its node was lost)")
    if is_deleting(pod) or "DisruptionTarget" in _true_conditions(pod):
        return Failure(FailureClass.PREEMPTED, pod.get("status", {}).get("message") or "the pod was deleted", exit_code)
    for known_code, failure_class in FAILURE_RULES:
        if known_code is not None and exit_code == known_code:
            return Failure(failure_class, said, exit_code)
    if exit_code is None:
        message = pod.get("status", {}).get("message") or f"the pod failed without an exit code ({text})"
        return Failure(FailureClass.INFRASTRUCTURE, message)
    return Failure(FailureClass.CRASH, said or f"the container ended with exit code {exit_code}", exit_code)


def _words(message: str) -> str:
    parsed = parse_message(message)
    if isinstance(parsed, RunFailure):
        return parsed.message
    return message.strip()[-MESSAGE_TAIL:]


def _waiting(pod: Obj | None, container: Mapping[str, Any]) -> Waiting | None:
    waiting = container.get("state", {}).get("waiting") or {}
    message = waiting.get("message", "")
    match waiting.get("reason"):
        case "ImagePullBackOff" | "ErrImagePull" | "InvalidImageName" | "ErrImageNeverPull":
            return Waiting(Reason.IMAGE_PULL, f"spec.template.image cannot be pulled: {message}", structural=True)
        case "CreateContainerConfigError" | "CreateContainerError" | "RunContainerError":
            if missing := _MISSING_SECRET.search(message):
                return _secret_missing(missing[1])
            return Waiting(Reason.CONTAINER_CONFIG, f"the container cannot be created: {message}", structural=True)
        case _:
            pass
    for condition in (pod or {}).get("status", {}).get("conditions", ()):
        if condition.get("type") == "PodScheduled" and condition.get("reason") == "Unschedulable":
            return Waiting(Reason.UNSCHEDULABLE, condition.get("message", ""), structural=False)
    return None


def _secret_missing(name: str) -> Waiting:
    message = f'Secret "{name}" does not exist in this namespace: create it, or correct secretRef.name'
    return Waiting(Reason.SECRET_MISSING, message, structural=True)


def explain(attempt: Attempt, warnings: Iterable[tuple[str, str]]) -> Attempt:
    """Take from Warning Events (reason, message) of its pod or Job why an attempt does not start."""
    for reason, message in warnings:
        if missing := _MISSING_SECRET.search(message):
            return replace(attempt, waiting=_secret_missing(missing[1]))
        if "exceeded quota" in message:
            return replace(attempt, waiting=Waiting(Reason.QUOTA_EXCEEDED, message, structural=False))
        if reason in ("FailedMount", "FailedCreate"):
            return replace(attempt, waiting=Waiting(Reason.CONTAINER_CONFIG, message, structural=True))
    return attempt


def _true_conditions(obj: Obj) -> dict[str, Mapping[str, Any]]:
    return {c["type"]: c for c in obj.get("status", {}).get("conditions", ()) if c.get("status") == "True"}


def _container(pod: Obj | None) -> Mapping[str, Any]:
    statuses = (pod or {}).get("status", {}).get("containerStatuses", ())
    return next((s for s in statuses if s.get("name") == names.CONTAINER), {})
