"""A small world around a Reconciler: a work queue, a Job controller that follows a script, and virtual time."""

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from crossfold_operator import names
from crossfold_operator.cluster.base import Key, Obj, Unavailable, key_of
from crossfold_operator.names import Kind
from crossfold_operator.reconcile.reconciler import Reconciler
from crossfold_operator.settings import Settings
from crossfold_trainer.contract.config import RunConfig
from crossfold_trainer.contract.result import RunResult
from crossfold_trainer.contract.scoring import run_score
from tests.fakes.memory_cluster import MemoryCluster

NAMESPACE = "d"
SECONDS = 60
"""How long a container runs."""


def config_of(job: Obj) -> RunConfig:
    """What the trainer of a Job is told."""
    container = job["spec"]["template"]["spec"]["containers"][0]
    return RunConfig.model_validate_json(container["env"][0]["value"])


def made_up(*parts: Any) -> float:
    """A number in (0.1, 0.9) that depends on nothing but the parts."""
    text = json.dumps(parts, sort_keys=True, default=str)
    return round(0.1 + 0.8 * int.from_bytes(hashlib.sha256(text.encode()).digest()[:6]) / 2**48, 6)


def result_of(config: RunConfig, **changes: Any) -> RunResult:
    """What an honest trainer finds: a pure function of the configuration."""
    values = {
        m.name: made_up(m.name, config.hyperparameters, config.fold, config.seed) for m in config.objective.metrics
    }
    score = run_score(values, config.objective)
    content: dict[str, Any] = {
        "digest": config.digest,
        "score": score.value,
        "stable": score.stable,
        "values": dict(values),
        "metrics": {"val/loss": 0.25},
        "epoch": 8,
        "epochs": 12,
        "steps": 120,
        "duration_seconds": 60.0,
        "data_digest": "d" * 64,
        "splits_digest": "5" * 64,
        "checkpoint_uri": f"{config.artifact_uri}/checkpoints/best.ckpt",
        "artifact_uri": config.artifact_uri,
    }
    return RunResult.model_validate(content | changes)


# Endings: what happens to a Job's pod --------------------------------------------------------------------------------


@dataclass(frozen=True)
class Ending:
    """How an attempt ends.

    Attributes:
        exit_code: of the container.
        message: the termination message; None: the honest result of the configuration.
        changes: fields of the honest result that are different.
        reason: of the container's termination (OOMKilled).
        condition: of the Job: (type, reason, message).
        pod_gone: the pod is not there when the Job has ended.
        disrupted: the pod has the condition DisruptionTarget.
        waiting: the container does not start: (reason, message).
    """

    exit_code: int = 0
    message: str | None = None
    changes: Mapping[str, Any] = field(default_factory=dict)
    reason: str = ""
    condition: tuple[str, str, str] | None = None
    pod_gone: bool = False
    disrupted: bool = False
    waiting: tuple[str, str] | None = None


RULES = {78: 0, 71: 1, 75: 2}
SUCCESS = Ending()
DIVERGED = Ending(changes={"outcome": "Diverged", "score": None, "stable": False, "reason": "the loss is not finite"})
CRASH = Ending(exit_code=1, message="Traceback: KeyError")
CONFIG = Ending(exit_code=78, message='{"failure":{"class":"Config","message":"no such band: red"}}')
OUT_OF_MEMORY = Ending(exit_code=71, message='{"failure":{"class":"OutOfMemory","message":"lower batch_size"}}')
INTERRUPTED = Ending(exit_code=75, message="checkpoint saved")
OOM_KILLED = Ending(exit_code=137, message="", reason="OOMKilled")
EVICTED = Ending(exit_code=143, message="", disrupted=True)
LOST = Ending(
    pod_gone=True, condition=("Failed", "BackoffLimitExceeded", "Job has reached the specified backoff limit")
)
NO_RESULT = Ending(message="training done")
DEADLINE = Ending(
    pod_gone=True, condition=("Failed", "DeadlineExceeded", "Job was active longer than specified deadline")
)
NO_IMAGE = Ending(waiting=("ImagePullBackOff", 'Back-off pulling image "x"'))

Script = Callable[[str, int], Ending]
"""(run, attempt) -> how it ends."""


class World:
    """Reconciles what is woken, starts and ends Jobs, and lets time pass."""

    def __init__(self, cluster: MemoryCluster, script: Script | None = None, settings: Settings | None = None) -> None:
        self.cluster = cluster
        self.script: Script = script or (lambda run, attempt: SUCCESS)
        self.settings = settings or Settings(trainer_image="registry/trainer:1")
        self.again: dict[Key, float] = {}
        self.unavailable = 0
        self.most_running = 0
        self.restart()

    def restart(self) -> None:
        """A new operator process: nothing is remembered but what the cluster has; every object is looked at."""
        self.reconciler = self.operator()
        self.again.clear()
        for kind in names.OWN_KINDS:
            for obj in self.cluster.of(kind):
                self.cluster.woken[key_of(obj)] = None

    def operator(self) -> Reconciler:
        """A new operator, which knows nothing but what the cluster has."""
        return Reconciler(self.cluster, self.settings, self.cluster.clock)

    async def reconcile(self, key: Key) -> None:
        """Reconcile one key, as the work queue does: what could not be done is tried again."""
        self.again.pop(key, None)
        try:
            seconds = await self.reconciler(key)
        except Unavailable:
            self.unavailable += 1
            self.cluster.woken[key] = None
            return
        if seconds is not None:
            self.again[key] = seconds

    async def settle(self, limit: int = 5_000) -> None:
        """Reconcile until nothing is left to do at this moment."""
        for _ in range(limit):
            while self.cluster.collect():
                pass
            if not self.cluster.woken:
                return
            key = next(iter(self.cluster.woken))
            del self.cluster.woken[key]
            await self.reconcile(key)
        raise AssertionError(f"no end: {list(self.cluster.woken)[:5]}, last writes {self.cluster.writes[-5:]}")

    def unfinished(self) -> list[Obj]:
        """Jobs that are under way, in the order in which they are taken up."""
        return [
            job
            for job in sorted(self.cluster.of(Kind.JOB), key=lambda j: _numbers(j["metadata"]["name"]))
            if not job.get("status", {}).get("conditions") and not job["metadata"].get("deletionTimestamp")
        ]

    def start(self, job: Obj) -> None:
        """The pod of a Job is made, and its container runs or waits."""
        self.most_running = max(self.most_running, len(self.unfinished()))
        ending = self._ending(job)
        state: Obj = {"running": {"startedAt": self.cluster.clock.text}}
        if ending.waiting is not None:
            state = {"waiting": {"reason": ending.waiting[0], "message": ending.waiting[1]}}
        for name in self._pods(job):
            self._pod(job, name, state)
        self.cluster.apply({**_head(job), "status": {"active": 1, "startTime": self.cluster.clock.text}})

    def end(self, job: Obj) -> None:
        """The container of a Job ends as the script says, and the Job with it."""
        ending = self._ending(job)
        pod_key = Key(Kind.POD, job["metadata"]["namespace"], f"{job['metadata']['name']}-pod")
        started = self.cluster.objects[pod_key]["status"]["containerStatuses"][0]["state"]["running"]["startedAt"]
        message = ending.message
        if message is None:
            message = result_of(config_of(job), **ending.changes).message()
        terminated = {
            "exitCode": ending.exit_code,
            "startedAt": started,
            "finishedAt": self.cluster.clock.text,
            "message": message,
            "reason": ending.reason,
        }
        conditions = [{"type": "DisruptionTarget", "status": "True"}] if ending.disrupted else []
        for name in self._pods(job):
            if ending.pod_gone:
                self.cluster.remove(pod_key._replace(name=name))
            else:
                self._pod(job, name, {"terminated": terminated}, conditions)
                terminated = {**terminated, "message": ""}  # the first node's alone
        kind, reason, text = ending.condition or _job_condition(ending)
        condition = {
            "type": kind,
            "status": "True",
            "reason": reason,
            "message": text,
            "lastTransitionTime": self.cluster.clock.text,
        }
        self.cluster.apply({**_head(job), "status": {"active": 0, "conditions": [condition]}})

    async def start_all(self) -> None:
        """Start every Job that is not."""
        await self.settle()
        for job in self.unfinished():
            if not job.get("status"):
                self.start(job)
        await self.settle()

    async def step(self) -> bool:
        """Start every Job, then end the first one that can end; False when there is none and nothing is timed."""
        await self.start_all()
        able = [job for job in self.unfinished() if self._ending(job).waiting is None]
        if not able:
            return await self._let_time_pass()
        self.cluster.clock.advance(SECONDS)
        self.end(able[0])
        await self.settle()
        return True

    async def run(self, limit: int = 2_000) -> None:
        """Go on until nothing moves any more."""
        await self.settle()
        for _ in range(limit):
            if not await self.step():
                return
        raise AssertionError("no end")

    async def _let_time_pass(self) -> bool:
        waits = list(self.again.values())
        waiting = any(self._ending(job).waiting for job in self.unfinished())
        if not waits or not waiting:
            return False
        self.cluster.clock.advance(min(waits))
        for key in list(self.again):
            self.cluster.woken[key] = None
        await self.settle()
        return True

    def _ending(self, job: Obj) -> Ending:
        labels = job["metadata"]["labels"]
        return self.script(labels[names.LABEL_TRAIN_RUN], int(labels[names.LABEL_ATTEMPT]))

    def _pods(self, job: Obj) -> list[str]:
        """Names of a Job's pods, one a node."""
        nodes = job["spec"].get("completions", 1)
        return [f"{job['metadata']['name']}-pod{number or ''}" for number in range(nodes)]

    def _pod(self, job: Obj, name: str, state: Obj, conditions: list[Obj] | None = None) -> None:
        meta = job["metadata"]
        index = name.rpartition("-pod")[2] or "0"
        owner = {"apiVersion": "batch/v1", "kind": "Job", "name": meta["name"], "uid": meta["uid"], "controller": True}
        self.cluster.apply(
            {
                "apiVersion": "v1",
                "kind": "Pod",
                "metadata": {
                    "name": name,
                    "namespace": meta["namespace"],
                    "labels": {**meta["labels"], names.LABEL_NODE: index},
                    "ownerReferences": [owner],
                },
                "spec": {"nodeName": "node-1"},
                "status": {
                    "conditions": conditions or [],
                    "containerStatuses": [{"name": names.CONTAINER, "state": _only(state)}],
                },
            }
        )


def _only(state: Obj) -> Obj:
    return {name: state.get(name) for name in ("waiting", "running", "terminated") if name in state}


def _head(obj: Obj) -> Obj:
    meta = obj["metadata"]
    return {
        "apiVersion": obj["apiVersion"],
        "kind": obj["kind"],
        "metadata": {"name": meta["name"], "namespace": meta["namespace"]},
    }


def _job_condition(ending: Ending) -> tuple[str, str, str]:
    if ending.exit_code == 0:
        return "Complete", "CompletionsReached", "Reached expected number of succeeded pods"
    if ending.exit_code in RULES:
        text = f"Container trainer failed with exit code {ending.exit_code} matching FailJob rule at index"
        return "Failed", "PodFailurePolicy", f"{text} {RULES[ending.exit_code]}"
    if ending.disrupted:
        return "Failed", "PodFailurePolicy", "Pod has condition DisruptionTarget matching FailJob rule at index 3"
    return "Failed", "BackoffLimitExceeded", "Job has reached the specified backoff limit"


def _numbers(name: str) -> list[tuple[int, str]]:
    """A key by which cv2 comes before cv10."""
    parts: list[tuple[int, str]] = []
    digits = ""
    for character in name + " ":
        if character.isdigit():
            digits += character
            continue
        if digits:
            parts.append((int(digits), ""))
            digits = ""
        parts.append((-1, character))
    return parts


# Manifests ----------------------------------------------------------------------------------------------------------


def tune(name: str = "t", **spec: Any) -> Obj:
    """A Tune: a grid of six points, three folds, two runs at a time."""
    content: Obj = {
        "objective": {"metrics": [{"name": "val/JaccardIndex"}]},
        "data": {"uri": "s3://bucket/data"},
        "artifacts": {"uri": "s3://bucket/artifacts"},
        "algorithm": {"name": "Grid"},
        "parameters": [
            {"name": "batch_size", "type": "Int", "min": 4, "max": 12, "step": 4},
            {"name": "model_encoder", "type": "Categorical", "values": ["resnet18", "resnet34"]},
        ],
        "crossValidation": {"folds": 3},
        "maxTrials": 4,
        "parallelism": 2,
    }
    return _manifest(Kind.TUNE, name, content | spec)


def cross_validation(name: str = "c", **spec: Any) -> Obj:
    """A CrossValidation of its own: three folds, two at a time."""
    content: Obj = {
        "objective": {"metrics": [{"name": "val/JaccardIndex"}]},
        "data": {"uri": "s3://bucket/data"},
        "artifacts": {"uri": "s3://bucket/artifacts"},
        "crossValidation": {"folds": 3},
        "parallelism": 2,
    }
    return _manifest(Kind.CROSS_VALIDATION, name, content | spec)


def train_run(name: str = "r", **spec: Any) -> Obj:
    """A TrainRun of its own."""
    content: Obj = {
        "objective": {"metrics": [{"name": "val/JaccardIndex"}]},
        "data": {"uri": "s3://bucket/data"},
        "artifacts": {"uri": "s3://bucket/artifacts"},
    }
    return _manifest(Kind.TRAIN_RUN, name, content | spec)


def _manifest(kind: Kind, name: str, spec: Obj) -> Obj:
    return {
        "apiVersion": names.API_VERSION,
        "kind": str(kind),
        "metadata": {"name": name, "namespace": NAMESPACE},
        "spec": spec,
    }


def tree(cluster: MemoryCluster) -> dict[str, Obj]:
    """Everything of our own that is left in the end, without what differs from one undisturbed run to the next."""
    volatile = {"uid", "resourceVersion", "creationTimestamp", "lastTransitionTime", "ownerReferences"}
    seen = {}
    for kind in names.OWN_KINDS:
        for obj in cluster.of(kind):
            seen[str(key_of(obj))] = _without(obj, volatile)
    return seen


def _without(value: Any, names_left_out: set[str]) -> Any:
    if isinstance(value, dict):
        return {k: _without(v, names_left_out) for k, v in value.items() if k not in names_left_out}
    if isinstance(value, list):
        return [_without(item, names_left_out) for item in value]
    return value
