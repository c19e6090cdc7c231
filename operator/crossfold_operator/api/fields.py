"""Field metadata and small models that the three kinds share."""

from typing import Annotated, Any, get_args

from pydantic import Field, JsonValue
from pydantic.fields import FieldInfo

from crossfold_trainer.contract import hyperparameters as hp
from crossfold_trainer.contract.base import Model, Rule
from crossfold_trainer.contract.config import OutOfMemoryPolicy

MUTABLE: dict[str, Any] = {"mutable": True}
"""Field metadata: may change after creation. The CRD generator makes every other spec field immutable."""
PARTLY_MUTABLE: dict[str, Any] = {"mutable": "partly"}
"""Field metadata: the fields inside say for themselves whether they may change."""
ANY_JSON: dict[str, Any] = {"x-kubernetes-preserve-unknown-fields": True}
"""Schema of a value that CEL cannot see into; what depends on it is judged by the operator."""

HyperparameterName = Annotated[
    str, Field(min_length=1, max_length=63, pattern=r"^(x-[A-Za-z0-9][A-Za-z0-9._-]*|[a-z][a-z0-9_-]*)$")
]
Text = Annotated[str, Field(max_length=1024)]
Count = Annotated[int, Field(ge=0)]
Decimal = Annotated[str, Field(max_length=32, pattern=r"^(NaN|-?[0-9]+([.][0-9]+)?(e[+-]?[0-9]+)?)$")]
"""A decimal number written as a string, as status fields do."""
Timestamp = Annotated[str, Field(max_length=40, json_schema_extra={"format": "date-time"})]

KNOWN_NAME = Rule(
    f"self.name.startsWith('x-') || self.name.replace('-', '_') in {list(hp.HYPERPARAMETERS)!r}",
    f"unknown hyperparameter: use one of {', '.join(hp.HYPERPARAMETERS)}, or prefix it with x- for your own trainer",
)


def field_extra(field: FieldInfo) -> dict[str, Any]:
    """A field's own metadata, also where the field may be null and the metadata stands inside the union."""
    extra = field.json_schema_extra
    found = dict(extra) if isinstance(extra, dict) else {}
    for option in get_args(field.annotation):
        for metadata in getattr(option, "__metadata__", ()):
            inner = getattr(metadata, "json_schema_extra", None)
            found |= inner if isinstance(inner, dict) else {}
    return found


def named_list(max_items: int, **extra: Any) -> Any:
    """Field of a list whose items are told apart by their name."""
    schema = {"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"], **extra}
    return Field(max_length=max_items, json_schema_extra=schema)


class NamedValue(Model):
    """A hyperparameter and its value."""

    name: HyperparameterName
    """Name of the hyperparameter; '-' equals '_'."""
    value: Annotated[JsonValue, Field(json_schema_extra=ANY_JSON)] = None
    """Its value: any JSON."""

    rules = (KNOWN_NAME,)


class RetriesSpec(Model):
    """How often a run is tried again, by the class of its failure. Preemptions are not failures and not counted."""

    crash: Annotated[int, Field(ge=0, le=20)] = 1
    """Further attempts after a crash of the trainer."""
    infrastructure: Annotated[int, Field(ge=0, le=50)] = 5
    """Further attempts after a lost pod, an image that cannot be pulled, or a result that cannot be read."""
    out_of_memory: OutOfMemoryPolicy = OutOfMemoryPolicy.FAIL
    """When the GPU's memory does not suffice: Fail; HalveBatch: the attempt goes on with half as many patches on the
    GPU at a time and twice as many turns, so that steps stay as large (again where needed, down to one patch);
    Constrain: the trial fails, and the search of its Tune keeps away from such points (without a Tune as Fail)."""


class ConditionStatus(Model):
    """A condition, as metav1.Condition."""

    type: Annotated[str, Field(max_length=63)]
    """Valid, Suspended, Degraded, Complete or Failed."""
    status: Annotated[str, Field(max_length=7, json_schema_extra={"enum": ["True", "False", "Unknown"]})]
    """True, False or Unknown."""
    reason: Annotated[str, Field(max_length=63)]
    """Why, in one CamelCase word."""
    message: Annotated[str, Field(max_length=4096)] = ""
    """Why, in a sentence that names field and remedy."""
    last_transition_time: Timestamp
    """When status last changed."""
    observed_generation: Count | None = None
    """Generation of the spec that was judged."""


Conditions = Annotated[
    list[ConditionStatus],
    Field(
        max_length=8,
        json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["type"]},
    ),
]


class GpuSeconds(Model):
    """Seconds of GPU time (GPUs of a run times seconds run), by what became of the attempt.

    A run that asks for no GPU counts as one device: its seconds are those that it ran.
    """

    useful: Count = 0
    """Of attempts that ended with a result."""
    pruned: Count = 0
    """Of attempts that ended when their trial was pruned."""
    preempted: Count = 0
    """Of attempts that were interrupted; the next one went on from their checkpoint."""
    failed: Count = 0
    """Of attempts that failed or were stopped."""


class Usage(Model):
    """What was used."""

    gpu_seconds: GpuSeconds = GpuSeconds()
    """GPU time."""
    run_seconds: Count = 0
    """Seconds that containers ran, whatever became of them."""


class MetricSummary(Model):
    """A metric over the runs of a trial."""

    mean: Decimal
    """Mean over the runs."""
    std: Decimal
    """Sample standard deviation over the runs."""
    min: Decimal
    """Least value."""
    max: Decimal
    """Greatest value."""
