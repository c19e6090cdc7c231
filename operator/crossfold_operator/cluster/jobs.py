"""What the Job controller and the kubelet would write: the pod of a Job, and the statuses of both. Pure."""

import random
import string
from collections.abc import Mapping
from typing import Any

from crossfold_operator.cluster.base import Obj
from crossfold_operator.names import API_VERSIONS, CONTAINER, Kind

_SUFFIX = string.ascii_lowercase + string.digits
_TERMINAL = ("Complete", "Failed")


def on_one_machine(job: Obj) -> Obj:
    """A Job as it is run here: in one pod. A trainer that is not told which node it is starts all of them."""
    spec = {key: value for key, value in job["spec"].items() if key not in ("completionMode", "parallelism")}
    return {**job, "spec": {**spec, "completions": 1}}


def pod_of(job: Obj) -> Obj:
    """The pod of a Job, waiting for a place to run."""
    metadata, template = job["metadata"], job["spec"]["template"]
    given = template.get("metadata", {})
    marks = {"job-name": metadata["name"], "controller-uid": metadata["uid"]}
    labels = {**given.get("labels", {}), **marks, **{f"batch.kubernetes.io/{k}": v for k, v in marks.items()}}
    return {
        "apiVersion": API_VERSIONS[Kind.POD],
        "kind": str(Kind.POD),
        "metadata": {
            "name": f"{metadata['name']}-{''.join(random.choices(_SUFFIX, k=5))}",
            "namespace": metadata["namespace"],
            "labels": labels,
            "annotations": given.get("annotations", {}),
            "ownerReferences": [
                {
                    "apiVersion": job["apiVersion"],
                    "kind": job["kind"],
                    "name": metadata["name"],
                    "uid": metadata["uid"],
                    "controller": True,
                    "blockOwnerDeletion": True,
                }
            ],
        },
        "spec": template["spec"],
        "status": {"phase": "Pending"},
    }


def container_of(pod: Obj) -> Mapping[str, Any]:
    """The manifest of a pod's trainer container, or of the only one that it has."""
    containers: list[Mapping[str, Any]] = pod["spec"]["containers"]
    return next((c for c in containers if c["name"] == CONTAINER), containers[0])


def terminated_of(pod: Obj) -> Mapping[str, Any] | None:
    """How a pod's container ended; None while it has not."""
    for status in pod.get("status", {}).get("containerStatuses", ()):
        if "terminated" in status["state"]:
            ended: Mapping[str, Any] = status["state"]["terminated"]
            return ended
    return None


def with_state(pod: Obj, phase: str, state: Mapping[str, Any]) -> Obj:
    """The pod with its container in a state (waiting, running or terminated)."""
    container = container_of(pod)
    status = {
        "name": container["name"],
        "image": container.get("image", ""),
        "ready": "running" in state,
        "started": "running" in state,
        "restartCount": 0,
        "state": dict(state),
    }
    return {**pod, "status": {**pod.get("status", {}), "phase": phase, "containerStatuses": [status]}}


def with_condition(obj: Obj, kind: str, now: str, *, status: str = "True", reason: str, message: str) -> Obj:
    """The object with one condition set."""
    others = [c for c in obj.get("status", {}).get("conditions", ()) if c["type"] != kind]
    condition = {
        "type": kind,
        "status": status,
        "reason": reason,
        "message": message,
        "lastProbeTime": now,
        "lastTransitionTime": now,
    }
    return {**obj, "status": {**obj.get("status", {}), "conditions": [*others, condition]}}


def is_over(job: Obj) -> bool:
    """Whether a Job has ended, one way or the other."""
    conditions = job.get("status", {}).get("conditions", ())
    return any(c["type"] in _TERMINAL and c["status"] == "True" for c in conditions)


def started(job: Obj, now: str) -> Obj:
    """The Job with its pod running."""
    return {**job, "status": {"startTime": now, "active": 1, "ready": 1, "terminating": 0}}


def ended(job: Obj, pod: Obj, now: str, *, deadline: bool = False) -> Obj:
    """The Job after the end of its pod.

    Args:
        job: the Job.
        pod: its pod, in its last form.
        now: the time.
        deadline: whether the pod was ended since activeDeadlineSeconds had passed.
    """
    begin = job.get("status", {}).get("startTime", now)
    counts = {"startTime": begin, "ready": 0, "terminating": 0}
    terminated = terminated_of(pod)
    if not deadline and terminated is not None and terminated["exitCode"] == 0:
        status: Obj = {**counts, "succeeded": 1, "completionTime": now}
        conditions, reason, message = (
            ("SuccessCriteriaMet", "Complete"),
            "CompletionsReached",
            "Reached expected number of succeeded pods",
        )
    else:
        status = {**counts, "failed": 1}
        conditions = ("FailureTarget", "Failed")
        reason, message = _failure(job, pod, terminated, deadline=deadline)
    out = {**job, "status": status}
    for kind in conditions:
        out = with_condition(out, kind, now, reason=reason, message=message)
    return out


def _failure(job: Obj, pod: Obj, terminated: Mapping[str, Any] | None, *, deadline: bool) -> tuple[str, str]:
    """Reason and message of a Job's failure, word for word the Job controller's."""
    if deadline:
        return "DeadlineExceeded", "Job was active longer than specified deadline"
    name = f"{pod['metadata']['namespace']}/{pod['metadata']['name']}"
    true_conditions = {c["type"] for c in pod.get("status", {}).get("conditions", ()) if c["status"] == "True"}
    for index, rule in enumerate(job["spec"].get("podFailurePolicy", {}).get("rules", ())):
        if rule["action"] != "FailJob":
            continue
        matching = f"matching FailJob rule at index {index}"
        if (codes := rule.get("onExitCodes")) and terminated is not None and terminated["exitCode"] != 0:
            inside = terminated["exitCode"] in codes["values"]
            if inside == (codes["operator"] == "In"):
                container = container_of(pod)["name"]
                code = terminated["exitCode"]
                return (
                    "PodFailurePolicy",
                    f"Container {container} for pod {name} failed with exit code {code} {matching}",
                )
        for condition in rule.get("onPodConditions", ()):
            if condition["type"] in true_conditions:
                return "PodFailurePolicy", f"Pod {name} has condition {condition['type']} {matching}"
    return "BackoffLimitExceeded", "Job has reached the specified backoff limit"
