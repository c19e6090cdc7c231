"""The part of a pod template that a resource may set."""

from typing import Annotated, Any

from pydantic import Field

from crossfold_operator.api.fields import ANY_JSON, MUTABLE, Text, named_list
from crossfold_operator.api.quantities import amount
from crossfold_operator.names import CONTAINER, RESERVED_LABEL_DOMAINS
from crossfold_trainer.contract.base import Model, Name, Rule, ShortText

Quantity = Annotated[
    int | Annotated[str, Field(max_length=32)], Field(json_schema_extra={"x-kubernetes-int-or-string": True})
]
LabelKey = str
LabelValue = Annotated[str, Field(max_length=63)]
OPAQUE_OBJECT: dict[str, Any] = {"type": "object", **ANY_JSON}
OpaqueObject = Annotated[dict[str, Any], Field(json_schema_extra=OPAQUE_OBJECT)]
Argument = Annotated[str, Field(max_length=8192)]


def _quantity_rules(field: str) -> tuple[Rule, ...]:
    """Rules on limits or requests.

    Before Kubernetes 1.34 the API server reckons that a quantity may be as long as a request, so that each rule may
    look at each of them only once.
    """
    names, value = f"!has(self.{field}) || self.{field}", f"self.{field}[k]"
    return (
        Rule(
            f"{names}.all(k, type({value}) == int ? {value} >= 0 : (isQuantity({value}) && !{value}.startsWith('-')))",
            f"{field} takes quantities of at least 0 as Kubernetes writes them: 16Gi or 16G of memory (not 16GB),"
            " 2 or 500m of cpu",
        ),
        Rule(
            f"{names}.all(k, !k.contains('/') || type({value}) == int || !{value}.matches('\\\\D'))",
            f"{field} takes whole numbers of a device such as nvidia.com/gpu: write 1, without unit or fraction",
        ),
        Rule(
            f"{names}.all(k, k in ['cpu', 'memory', 'ephemeral-storage'] || k.startsWith('hugepages-')"
            " || k.contains('/'))",
            f"{field} takes cpu, memory, ephemeral-storage, hugepages-SIZE, and devices with their domain, such as"
            " nvidia.com/gpu",
        ),
    )


class ResourcesSpec(Model):
    """Compute resources of the trainer container."""

    limits: Annotated[dict[LabelKey, Quantity], Field(max_length=16)] = {}
    """Most that the container may use, such as nvidia.com/gpu: 1 and memory: 16Gi."""
    requests: Annotated[dict[LabelKey, Quantity], Field(max_length=16)] = {}
    """What is set aside for the container."""

    rules = (*_quantity_rules("limits"), *_quantity_rules("requests"))

    @property
    def problems(self) -> list[str]:
        """Requests that Kubernetes would refuse for their limits, which costs the API server too much to compare."""
        found = []
        for name, request in self.requests.items():
            limit = self.limits.get(name)
            exact = "/" in name or name.startswith("hugepages-")
            if limit is None and exact:
                found.append(f"requests.{name}: {request} needs a limit that is the same: set limits.{name}, too")
            elif limit is not None and (problem := _misfit(request, limit, exact=exact)):
                found.append(f"requests.{name}: {request} {problem} limits.{name}, {limit}: change one of them")
        return found


def _misfit(request: int | str, limit: int | str, *, exact: bool) -> str:
    """How a request does not go with its limit, in words; empty when it does, or when one of them is no quantity."""
    wanted, most = amount(request), amount(limit)
    if wanted is None or most is None or wanted == most:
        return ""
    if exact:
        return "must be the same as"
    return "is more than" if wanted > most else ""


class EnvVar(Model):
    """An environment variable of the trainer container."""

    name: Annotated[str, Field(min_length=1, max_length=253, pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")]
    """Name of the variable."""
    value: Annotated[str, Field(max_length=4096)] = ""
    """Its value."""
    value_from: Annotated[dict[str, Any] | None, Field(json_schema_extra=OPAQUE_OBJECT)] = None
    """Where its value comes from instead, as in a pod spec: secretKeyRef, configMapKeyRef, fieldRef."""

    rules = (
        Rule(
            "!has(self.valueFrom) || !has(self.value) || self.value == ''",
            "value and valueFrom exclude each other: remove one",
        ),
        Rule(
            "!self.name.startsWith('CROSSFOLD_')",
            "variables that start with CROSSFOLD_ are set by the operator: choose another name",
        ),
    )


class Toleration(Model):
    """A taint that the pod tolerates (as in a pod spec)."""

    key: ShortText = ""
    """Key of the taint; empty with operator Exists: all."""
    operator: Annotated[str, Field(max_length=6, json_schema_extra={"enum": ["Exists", "Equal"]})] = "Equal"
    """Exists or Equal."""
    value: ShortText = ""
    """Value of the taint."""
    effect: Annotated[
        str, Field(max_length=16, json_schema_extra={"enum": ["", "NoSchedule", "PreferNoSchedule", "NoExecute"]})
    ] = ""
    """Effect of the taint; empty: all."""
    toleration_seconds: Annotated[int, Field(ge=0)] | None = None
    """Seconds that a NoExecute taint is tolerated; null: for ever."""


class VolumeMount(Model):
    """Where a volume is mounted in the trainer container."""

    name: Name
    """Name of the volume."""
    mount_path: Annotated[str, Field(min_length=1, max_length=1024)]
    """Path in the container."""
    sub_path: Annotated[str, Field(max_length=1024)] = ""
    """Path inside the volume."""
    read_only: bool = False
    """Mount it read-only."""

    rules = (
        Rule(
            "!(self.mountPath in ['/etc/crossfold', '/tmp', '/dev/shm', '/var/cache/crossfold'])"
            " && !self.mountPath.startsWith('/etc/crossfold/')",
            "mountPath /etc/crossfold, /tmp, /dev/shm and /var/cache/crossfold are taken by the operator:"
            " choose another path",
        ),
    )


class LocalReference(Model):
    """An object in the same namespace."""

    name: Name
    """Name of the object."""


class TemplateSpec(Model):
    """A small typed part of a pod template, for the trainer's pods."""

    image: Annotated[str, Field(max_length=512)] = ""
    """Trainer image; empty: the one that the operator was installed with. Resolved once by the root."""
    image_pull_policy: Annotated[
        str, Field(max_length=16, json_schema_extra={"enum": ["", "Always", "IfNotPresent", "Never"]})
    ] = ""
    """Always, IfNotPresent or Never; empty: the cluster's default."""
    image_pull_secrets: Annotated[list[LocalReference], named_list(8)] = []
    """Secrets for pulling the image."""
    resources: Annotated[ResourcesSpec, Field(json_schema_extra=MUTABLE)] = ResourcesSpec()
    """Compute resources; a GPU is asked for here: limits: {nvidia.com/gpu: 1}. Changes reach Jobs not yet created."""
    node_selector: Annotated[dict[LabelKey, LabelValue], Field(max_length=16, json_schema_extra=MUTABLE)] = {}
    """Labels that a node must have. Changes reach Jobs not yet created."""
    tolerations: Annotated[list[Toleration], Field(max_length=16, json_schema_extra=MUTABLE)] = []
    """Taints that are tolerated. Changes reach Jobs not yet created."""
    affinity: Annotated[dict[str, Any] | None, Field(json_schema_extra={**OPAQUE_OBJECT, **MUTABLE})] = None
    """Scheduling constraints, as in a pod spec. Changes reach Jobs not yet created."""
    command: Annotated[list[Argument], Field(max_length=64)] = []
    """Program of the container, in place of the image's own: any that keeps the contract of docs/extend.md."""
    args: Annotated[list[Argument], Field(max_length=64)] = []
    """Arguments of the program."""
    env: Annotated[list[EnvVar], named_list(64)] = []
    """Environment variables."""
    env_from: Annotated[list[OpaqueObject], Field(max_length=16)] = []
    """ConfigMaps and Secrets whose keys become environment variables, as in a pod spec."""
    init_containers: Annotated[list[OpaqueObject], Field(max_length=8)] = []
    """Containers that run before the trainer, as in a pod spec. One with restartPolicy: Always is a sidecar: it runs
    beside the trainer and ends with it. Security settings that it leaves out are those of the trainer's container."""
    volumes: Annotated[list[OpaqueObject], Field(max_length=16)] = []
    """Volumes, as in a pod spec."""
    volume_mounts: Annotated[list[VolumeMount], Field(max_length=16)] = []
    """Where volumes are mounted."""
    active_deadline_seconds: Annotated[int, Field(ge=1, le=31_536_000)] | None = None
    """Seconds after which an attempt is ended as a Timeout; null: none."""
    termination_grace_period_seconds: Annotated[int, Field(ge=1, le=3600)] = 120
    """Seconds between SIGTERM and SIGKILL: time to save a checkpoint."""
    priority_class_name: Annotated[str, Field(max_length=253, json_schema_extra=MUTABLE)] = ""
    """Pod priority class. Changes reach Jobs not yet created."""
    service_account_name: ShortText = ""
    """Service account of the pods (workload identity); no token is mounted without one."""
    runtime_class_name: ShortText = ""
    """Runtime class of the pods."""
    labels: Annotated[dict[LabelKey, LabelValue], Field(max_length=16)] = {}
    """Further labels of Jobs and pods."""
    annotations: Annotated[dict[LabelKey, Text], Field(max_length=16)] = {}
    """Further annotations of Jobs and pods."""
    shm_size: Annotated[str, Field(max_length=32, pattern=r"^[1-9][0-9]*(Ki|Mi|Gi|k|M|G)?$")] = "2Gi"
    """Size of /dev/shm, which worker processes exchange batches through."""

    rules = (
        Rule(
            " && ".join(
                f"(!has(self.labels) || self.labels.all(k, !k.startsWith('{domain}/')))"
                for domain in RESERVED_LABEL_DOMAINS
            ),
            f"labels that start with {' or '.join(d + '/' for d in RESERVED_LABEL_DOMAINS)}"
            " are set by the operator: remove them",
        ),
    )

    @property
    def problems(self) -> list[str]:
        """What is wrong with parts that the API server sees only when a pod is made."""
        found = [f"resources.{problem}" for problem in self.resources.problems]
        for index, container in enumerate(self.init_containers):
            name, where = container.get("name"), f"initContainers[{index}]"
            if not name or not container.get("image"):
                found.append(f"{where}: a container needs a name and an image: add them")
            elif name == CONTAINER:
                found.append(f"{where}.name: {CONTAINER} is the trainer's container: choose another name")
        return found

    @property
    def devices(self) -> int:
        """What a second of one pod counts as in GPU-seconds: its GPUs, and 1 where it asks for none."""
        return max(1, self.gpus)

    @property
    def gpus(self) -> int:
        """GPUs that one pod asks for: the sum of all limits whose resource name ends in /gpu."""
        counts = (str(q) for name, q in self.resources.limits.items() if name.endswith("/gpu"))
        return sum(int(count) for count in counts if count.isascii() and count.isdecimal())
