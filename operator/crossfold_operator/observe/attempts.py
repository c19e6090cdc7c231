"""Jobs and pods -> the attempts of a TrainRun. Pure: the one place that reads what Jobs and pods say."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from enum import Enum, auto
from typing import Any, NamedTuple

from crossfold_operator import names
from crossfold_operator.names import Reason
from crossfold_operator.observe.metadata import Obj, is_deleting
from crossfold_operator.observe.reasons import reason_of
from crossfold_operator.times import parse_time, seconds_between, timestamp
from crossfold_trainer.contract.exits import Exit
from crossfold_trainer.contract.objective import ObjectiveSpec
from crossfold_trainer.contract.result import FailureClass, Outcome, RunFailure, RunResult, end_of_log, parse_message
from crossfold_trainer.contract.scoring import run_score, unreported

FAILURE_RULES: tuple[tuple[int | None, FailureClass], ...] = (
    (Exit.CONFIG, FailureClass.CONFIG),
    (Exit.OUT_OF_MEMORY, FailureClass.OUT_OF_MEMORY),
    (Exit.INTERRUPTED, FailureClass.PREEMPTED),
    (None, FailureClass.PREEMPTED),
)
"""A Job's podFailurePolicy, in order: FailJob on this exit code (None: on DisruptionTarget), and what it means.

The Job's condition names the index of the rule, which tells the class even when the pod is gone.
"""

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
    """In one line where a log said it."""
    exit_code: int | None = None
    log: str = ""
    """The end of the container's log, where that is all there is, or the trainer passed it on."""
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
    """When its container (the first of them) started."""
    ended: str | None = None
    """When its container (the last of them) or, without one, its Job ended."""
    seconds: int = 0
    """From one to the other; of several nodes the first may have waited for the last."""
    node: str = ""
    pod: Obj | None = field(default=None, compare=False)
    """While it starts: the pod that is waited for, where it is there."""
    waiting: Waiting | None = None
    failure: Failure | None = None
    result: RunResult | None = None


class Wanted(NamedTuple):
    """What a result must have."""

    digest: str
    """configDigest that it carries."""
    objective: ObjectiveSpec
    """The metrics that it reports."""


def read_attempts(
    run: str, jobs: Iterable[Obj], pods: Mapping[str, Sequence[Obj]], wanted: Wanted, now: datetime
) -> list[Attempt]:
    """The attempts of a TrainRun in order.

    Args:
        run: its name.
        jobs: its Jobs.
        pods: the pods of each Job by the Job's UID.
        wanted: what a result must have.
        now: the time.
    """
    seen = []
    for job in jobs:
        number = names.attempt_of(run, job["metadata"]["name"])
        if number is not None:
            seen.append(_attempt(number, job, pods.get(job["metadata"]["uid"], ()), wanted, now))
    return sorted(seen, key=lambda a: a.number)


def _attempt(number: int, job: Obj, pods: Sequence[Obj], wanted: Wanted, now: datetime) -> Attempt:
    nodes: int = job.get("spec", {}).get("completions") or 1
    by_node = _by_node(pods)
    seen = list(by_node.values())
    states: list[Mapping[str, Any]] = [_container(pod).get("state", {}) for pod in seen]
    started = [_started(state) for state in states]
    ended = [state["terminated"].get("finishedAt") for state in states if "terminated" in state]
    unready = [pod for pod, begin in zip(seen, started, strict=True) if begin is None]
    ready = not unready and len(seen) >= nodes
    # From the first start to the last end all nodes are held.
    begin = min((text for text in started if text), default=None)
    end = None if any("running" in state for state in states) else max((text for text in ended if text), default=None)
    conditions = _true_conditions(job)
    attempt = Attempt(
        number=number,
        job=job["metadata"]["name"],
        uid=job["metadata"]["uid"],
        state=AttemptState.STARTING,
        deleting=is_deleting(job),
        created=job["metadata"].get("creationTimestamp", ""),
        started=begin,
        ended=end,
        seconds=seconds_between(begin, end, now),
        node=next((node for pod in seen if (node := pod.get("spec", {}).get("nodeName"))), ""),
        pod=next(iter(unready or (seen if ready else ())), None),
    )
    if "Complete" in conditions:
        result, failure = _result(_container(by_node.get(0)).get("state", {}).get("terminated"), wanted)
        return replace(attempt, state=AttemptState.ENDED, result=result, failure=failure)
    if "Failed" in conditions:
        if begin is None:
            # The pods are gone: the Job's own times are what is left.
            first, last = job.get("status", {}).get("startTime"), conditions["Failed"].get("lastTransitionTime")
            attempt = replace(attempt, seconds=seconds_between(first, last or first, now), ended=last)
        return replace(attempt, state=AttemptState.ENDED, failure=classify(conditions["Failed"], seen, nodes))
    if ready:
        return replace(attempt, state=AttemptState.RUNNING)
    waiting = (_waiting(pod) for pod in unready)
    return replace(attempt, waiting=next((why for why in waiting if why is not None), None))


def _by_node(pods: Iterable[Obj]) -> dict[int, Obj]:
    """The latest pod of each node, in their order; a Job of one node does not number it."""
    latest: dict[int, Obj] = {}
    for pod in sorted(pods, key=lambda p: p["metadata"].get("creationTimestamp", ""), reverse=True):
        text = str(pod["metadata"].get("labels", {}).get(names.LABEL_NODE, "0"))
        latest.setdefault(int(text) if text.isdecimal() else 0, pod)
    return dict(sorted(latest.items()))


def _started(state: Mapping[str, Any]) -> str | None:
    """When a container began; None where it did not, of which a runtime says 1970."""
    text: str | None = (state.get("terminated") or state.get("running") or {}).get("startedAt")
    return None if text is None or text.startswith("1970-") else text


def _result(terminated: Mapping[str, Any] | None, wanted: Wanted) -> tuple[RunResult | None, Failure | None]:
    parsed = parse_message((terminated or {}).get("message", ""))
    if isinstance(parsed, RunResult) and parsed.digest == wanted.digest:
        return _scored(parsed, wanted.objective)
    if isinstance(parsed, RunResult):
        why = f"its result belongs to another configuration (digest {parsed.digest[:12]}, not {wanted.digest[:12]})"
    elif terminated is None:
        why = "its pod is gone before its result was read"
    else:
        why = "its termination message holds no result: does the container keep the contract of docs/extend.md?"
    return None, Failure(FailureClass.INFRASTRUCTURE, f"the Job is complete, but {why}", no_result=True)


def _scored(result: RunResult, objective: ObjectiveSpec) -> tuple[RunResult | None, Failure | None]:
    """A result with its score, which a trainer of one's own may leave to us."""
    if "score" in result.model_fields_set or result.outcome is not Outcome.TRAINED:
        return result, None
    known = {**result.metrics, **result.values}
    objectives = [metric.name for metric in objective.metrics]
    if missing := [name for name in objectives if name not in known]:
        return None, Failure(FailureClass.CONFIG, unreported(missing, known))
    score = run_score(known, objective)
    update = {"score": score.value, "stable": score.stable, "values": {name: known[name] for name in objectives}}
    return result.model_copy(update=update), None


def classify(failed: Mapping[str, Any], pods: Sequence[Obj], nodes: int = 1) -> Failure:
    """The class of a failed Job, from its Failed condition and its pods, any of which may be gone.

    Of several nodes a disrupted pod tells, else the one that has most to tell: what became of the others follows.
    """
    reason, text = failed.get("reason", ""), failed.get("message", "")
    if reason == "PodFailurePolicy" and (rule := _RULE.search(text)) and int(rule[1]) < len(FAILURE_RULES):
        named = [pod for pod in pods if pod["metadata"]["name"] in text.replace("/", " ").split()]
        terminated = _terminated(next(iter(named or (pods if nodes == 1 else ())), None))
        exit_code: int | None = terminated.get("exitCode")
        if exit_code is None and (code := _EXIT_CODE.search(text)):
            exit_code = int(code[1])
        message, log = _said(terminated)
        return Failure(FAILURE_RULES[int(rule[1])][1], message or text, exit_code, log)
    if reason == "DeadlineExceeded":
        exit_code = _terminated(pods[0] if pods else None).get("exitCode")
        return Failure(FailureClass.TIMEOUT, "spec.template.activeDeadlineSeconds has passed", exit_code)
    disrupted = [pod for pod in pods if "DisruptionTarget" in _true_conditions(pod)]
    failures = [_pod_failure(pod, text) for pod in disrupted or _by_themselves(pods)]
    if not disrupted and len(pods) < nodes:
        failures.append(Failure(FailureClass.INFRASTRUCTURE, "the pod is gone (deleted, or its node was lost)"))
    return min(failures, key=lambda failure: _TELLING.index(failure.failure_class))


_TELLING = (
    FailureClass.CONFIG,
    FailureClass.HOST_OUT_OF_MEMORY,
    FailureClass.OUT_OF_MEMORY,
    FailureClass.TIMEOUT,
    FailureClass.CRASH,
    FailureClass.PREEMPTED,
    FailureClass.INFRASTRUCTURE,
)
"""Of what several pods say, what explains the others comes first."""


def _by_themselves(pods: Sequence[Obj]) -> Sequence[Obj]:
    """Pods that did not end as they should, without those that were deleted since another one had ended so."""
    wrong = [pod for pod in pods if _terminated(pod).get("exitCode") != 0] or list(pods)
    first = min(
        (end for pod in wrong if not is_deleting(pod) and (end := _terminated(pod).get("finishedAt"))), default=""
    )
    return [pod for pod in wrong if not (first and is_deleting(pod) and _deleted_at(pod) >= first)]


def _deleted_at(pod: Obj) -> str:
    """When the deletion of a pod was asked for: the timestamp is that of the end of its grace period."""
    meta = pod["metadata"]
    grace = timedelta(seconds=meta.get("deletionGracePeriodSeconds") or 0)
    return timestamp(parse_time(meta["deletionTimestamp"]) - grace)


def _pod_failure(pod: Obj, text: str) -> Failure:
    terminated = _terminated(pod)
    said, log = _said(terminated)
    exit_code: int | None = terminated.get("exitCode")
    if terminated.get("reason") == "OOMKilled":
        message = "the container used more memory than it may: raise spec.template.resources.limits.memory"
        return Failure(FailureClass.HOST_OUT_OF_MEMORY, message, exit_code, log)
    if is_deleting(pod) or "DisruptionTarget" in _true_conditions(pod):
        return Failure(FailureClass.PREEMPTED, pod.get("status", {}).get("message") or "the pod was deleted", exit_code)
    for known_code, failure_class in FAILURE_RULES:
        if known_code is not None and exit_code == known_code:
            return Failure(failure_class, said, exit_code, log)
    if exit_code == Exit.PEERS_LOST:
        return Failure(FailureClass.INFRASTRUCTURE, said or "it lost the other nodes", exit_code, log)
    if exit_code is None:
        message = pod.get("status", {}).get("message") or f"the pod failed without an exit code ({text})"
        return Failure(FailureClass.INFRASTRUCTURE, message)
    return Failure(FailureClass.CRASH, said or reason_of("", exit_code), exit_code, log)


def _said(terminated: Mapping[str, Any]) -> tuple[str, str]:
    """What a container said at its end, or what was said of it, and the end of its log; empty where nothing was."""
    message = terminated.get("message", "").strip()
    parsed = parse_message(message)
    if isinstance(parsed, RunFailure):
        return parsed.message, parsed.log
    if terminated.get("reason") in _OF_THE_RUNTIME:
        return " ".join(message.split()), ""
    return (reason_of(message, terminated.get("exitCode")), end_of_log(message)) if message else ("", "")


_OF_THE_RUNTIME = ("ContainerCannotRun", "ContainerStatusUnknown", "StartError")
"""Reasons under which a message is the container runtime's or the kubelet's, not the end of a log."""


def _waiting(pod: Obj) -> Waiting | None:
    waiting = _container(pod).get("state", {}).get("waiting") or {}
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
    for condition in pod.get("status", {}).get("conditions", ()):
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


def _terminated(pod: Obj | None) -> Mapping[str, Any]:
    return _container(pod).get("state", {}).get("terminated") or {}


def _container(pod: Obj | None) -> Mapping[str, Any]:
    statuses = (pod or {}).get("status", {}).get("containerStatuses", ())
    return next((s for s in statuses if s.get("name") == names.CONTAINER), {})
