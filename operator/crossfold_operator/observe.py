"""Raw child objects -> small frozen records. Pure: the one place that reads what Jobs and pods say."""

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from enum import Enum, auto
from typing import Any

from crossfold_operator import names
from crossfold_operator.api.crossvalidation import RunRecord
from crossfold_operator.api.fields import Usage
from crossfold_operator.names import (
    TERMINAL_CROSS_VALIDATION,
    TERMINAL_TRAIN_RUN,
    CrossValidationPhase,
    Kind,
    Reason,
    TrainRunPhase,
)
from crossfold_trainer.contract.exits import Exit
from crossfold_trainer.contract.hyperparameters import canonical_name
from crossfold_trainer.contract.result import FailureClass, RunFailure, RunResult, parse_message

Obj = Mapping[str, Any]

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


def parse_time(text: str) -> datetime:
    """A Kubernetes timestamp."""
    return datetime.fromisoformat(text).astimezone(UTC)


def finite(text: str | None) -> float | None:
    """A decimal as a status writes it; None where there is none, or none that may be reckoned with."""
    value = float(text) if text is not None else math.nan
    return value if math.isfinite(value) else None


def seconds_between(start: str | None, end: str | None, now: datetime) -> int:
    """Whole seconds from start to end (now while it has none); 0 without a start."""
    if not start:
        return 0
    return max(0, round(((parse_time(end) if end else now) - parse_time(start)).total_seconds()))


def controller_of(obj: Obj) -> Mapping[str, Any] | None:
    """The controller owner's reference."""
    return next((o for o in obj["metadata"].get("ownerReferences", ()) if o.get("controller")), None)


def parent_of(obj: Obj) -> Mapping[str, Any] | None:
    """The controller owner, where it is one of our own kinds. What anything else owns is a root all the same."""
    owner = controller_of(obj)
    if owner is None or not owner.get("apiVersion", "").startswith(f"{names.GROUP}/"):
        return None
    return owner if owner["kind"] in list(names.OWN_KINDS) else None


def is_deleting(obj: Obj) -> bool:
    """Whether deletion of the object has begun."""
    return bool(obj["metadata"].get("deletionTimestamp"))


def wakes(obj: Obj) -> list[tuple[Kind, str, str]]:
    """Keys (kind, namespace, name) to reconcile after a change of this object: itself, its owner, its root."""
    meta = obj["metadata"]
    namespace, labels = meta.get("namespace", ""), meta.get("labels", {})
    owner = parent_of(obj)
    found: list[tuple[Kind, str, str]] = []
    match Kind(obj["kind"]):
        case Kind.TUNE | Kind.CROSS_VALIDATION | Kind.TRAIN_RUN as kind:
            found.append((kind, namespace, meta["name"]))
            if owner:
                found.append((Kind(owner["kind"]), namespace, owner["name"]))
            if kind is Kind.TRAIN_RUN and owner and labels.get(names.LABEL_TUNE):
                found.append((Kind.TUNE, namespace, labels[names.LABEL_TUNE]))
        case Kind.JOB:
            if owner and owner["kind"] == Kind.TRAIN_RUN:
                found.append((Kind.TRAIN_RUN, namespace, owner["name"]))
        case Kind.POD:
            if run := labels.get(names.LABEL_TRAIN_RUN):
                found.append((Kind.TRAIN_RUN, namespace, run))
    return found


# Attempts of a TrainRun -----------------------------------------------------------------------------------------


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
    seconds: int = 0
    node: str = ""
    pod: Obj | None = field(default=None, compare=False)
    waiting: Waiting | None = None
    failure: Failure | None = None
    result: RunResult | None = None


def attempts(
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
            seen = replace(seen, seconds=seconds_between(begin, end or begin, now))
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


# Runs of a CrossValidation ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Run:
    """A TrainRun as its CrossValidation and its root see it."""

    record: RunRecord
    uid: str = ""
    """Empty when the object is gone and only its record is left."""
    deleting: bool = False
    stopping: bool = False
    """spec.stop is set."""
    suspended: bool = False
    """spec.suspend is set."""
    waiting: tuple[str, str] | None = None
    """Reason and message of its Degraded condition."""

    @property
    def unit(self) -> tuple[int, int]:
        """Fold and seed."""
        return self.record.fold, self.record.seed

    @property
    def terminal(self) -> bool:
        """Whether it has ended for good."""
        return self.record.phase in TERMINAL_TRAIN_RUN


def runs(train_runs: Iterable[Obj], remembered: Iterable[RunRecord]) -> list[Run]:
    """The runs of a trial: those that exist, and finished ones that are remembered and gone."""
    seen = {run.unit: run for run in map(_run, train_runs)}
    for record in remembered:
        unit = (record.fold, record.seed)
        if record.phase in TERMINAL_TRAIN_RUN and (unit not in seen or not seen[unit].terminal):
            seen[unit] = Run(record)
    return sorted(seen.values(), key=lambda run: run.unit)


def _run(obj: Obj) -> Run:
    spec, status = obj["spec"], obj.get("status") or {}
    phase = TrainRunPhase(status.get("phase", TrainRunPhase.QUEUED))
    failure = status.get("failure") or {}
    scored = phase is TrainRunPhase.SUCCEEDED
    record = RunRecord(
        fold=spec.get("fold", 0),
        seed=spec.get("seed", 42),
        run=obj["metadata"]["name"],
        phase=phase,
        score=status.get("score") if scored else None,
        stable=status.get("stable", False) if scored else None,
        values=status.get("values", {}) if scored else {},
        preemptions=status.get("preemptions", 0),
        failure_class=failure.get("class", "") if phase is TrainRunPhase.FAILED else "",
        message=_brief(phase, status, failure),
        data_digest=status.get("dataDigest", ""),
        usage=Usage.model_validate(status.get("usage", {})),
    )
    degraded = next(
        (c for c in status.get("conditions", ()) if c["type"] == "Degraded" and c["status"] == "True"), None
    )
    return Run(
        record,
        uid=obj["metadata"]["uid"],
        deleting=is_deleting(obj),
        stopping="stop" in spec,
        suspended=spec.get("suspend", False),
        waiting=(degraded["reason"], degraded.get("message", "")) if degraded else None,
    )


def _brief(phase: TrainRunPhase, status: Mapping[str, Any], failure: Mapping[str, Any]) -> str:
    if phase is TrainRunPhase.FAILED:
        return str(failure.get("message", ""))[:512]
    if phase is TrainRunPhase.SUCCEEDED and not status.get("stable", False):
        return str(status.get("summary", {}).get("reason", ""))[:512]
    return ""


# Trials of a Tune -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Trial:
    """A CrossValidation as its Tune sees it."""

    number: int
    name: str
    uid: str
    phase: CrossValidationPhase
    parameters: Mapping[str, Any]
    score: float | None = None
    std: float | None = None
    status: Mapping[str, Any] = field(default_factory=dict, compare=False)
    runs: tuple[Run, ...] = ()
    """Its runs while it is under way; none once it is terminal (the status says all)."""
    deleting: bool = False
    stopping: bool = False
    suspended: bool = False

    @property
    def terminal(self) -> bool:
        """Whether it has ended for good."""
        return self.phase in TERMINAL_CROSS_VALIDATION

    @property
    def config_failure(self) -> str:
        """Message of a run that failed for its configuration; empty when there is none."""
        records = (
            self.status.get("runs", ()) if self.terminal else [r.record.model_dump(by_alias=True) for r in self.runs]
        )
        return next((r.get("message", "") for r in records if r.get("failureClass") == FailureClass.CONFIG), "")


def trial(obj: Obj, number: int, parameter_names: Iterable[str], train_runs: Iterable[Obj]) -> Trial:
    """One trial.

    Args:
        obj: its CrossValidation.
        number: its number.
        parameter_names: hyperparameters of the search space; the others are fixed and no part of a point.
        train_runs: its TrainRuns (not looked at once it is terminal).
    """
    status = obj.get("status") or {}
    phase = CrossValidationPhase(status.get("phase", CrossValidationPhase.PENDING))
    wanted = {canonical_name(name) for name in parameter_names}
    under_way: list[Run] = []
    if phase not in TERMINAL_CROSS_VALIDATION:
        under_way = runs(train_runs, [RunRecord.model_validate(r) for r in status.get("runs", ())])
    return Trial(
        number=number,
        name=obj["metadata"]["name"],
        uid=obj["metadata"]["uid"],
        phase=phase,
        parameters={p["name"]: p.get("value") for p in obj["spec"].get("hyperparameters", ()) if p["name"] in wanted},
        score=finite(status.get("score")),
        std=finite(status.get("std")),
        status=status,
        runs=tuple(under_way),
        deleting=is_deleting(obj),
        stopping="stop" in obj["spec"],
        suspended=obj["spec"].get("suspend", False),
    )
