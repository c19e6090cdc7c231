"""What the API accepts and what it refuses, and which layer says so."""

from dataclasses import dataclass, field
from enum import Enum, auto
from typing import Any

from crossfold_operator.names import Kind
from crossfold_trainer.contract.metrics import KNOWN_OBJECTIVES
from tests.fakes import world as w
from tests.fakes.memory_cluster import merge

Obj = dict[str, Any]


class Layer(Enum):
    """Who answers."""

    ACCEPTED = auto()
    SCHEMA = auto()
    """The API server, from types and bounds."""
    RULE = auto()
    """The API server, from a CEL rule."""
    VALID = auto()
    """The operator, with the condition Valid=False: the API server cannot see untyped values."""
    STRICT = auto()
    """The API server, since a field is unknown or given twice."""


@dataclass(frozen=True)
class Case:
    """One object, and the answer to it.

    Attributes:
        about: what is special about it.
        layer: who answers.
        says: part of the message; empty when it is accepted.
        spec: merged into the base spec of the kind.
        kind: of the object.
        name: of the object.
        top: merged into the object beside its spec.
    """

    about: str
    layer: Layer
    says: str = ""
    spec: Obj = field(default_factory=dict)
    kind: Kind = Kind.TUNE
    name: str = "x"
    top: Obj = field(default_factory=dict)

    @property
    def manifest(self) -> Obj:
        return manifest(self.kind, self.spec, self.name) | self.top

    def __str__(self) -> str:
        return f"{self.kind}-{self.about}".replace(" ", "-")


_BASES = {Kind.TUNE: w.tune, Kind.CROSS_VALIDATION: w.cross_validation, Kind.TRAIN_RUN: w.train_run}


def manifest(kind: Kind, spec: Obj, name: str = "x") -> Obj:
    """A valid object of a kind with some of its spec replaced (null removes)."""
    base = _BASES[kind](name)
    if kind is Kind.TUNE:
        base["spec"] |= {"algorithm": {"name": "Random"}}
    return {**base, "spec": _merged(base["spec"], spec)}


def _merged(base: Obj, changes: Obj) -> Obj:
    """RFC 7386, with NULL for a null that is meant."""
    return _nulls(merge(base, changes))


NULL = object()
"""A null in the manifest, as opposed to a field that is left out."""


def _nulls(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _nulls(v) for k, v in value.items()}
    if isinstance(value, list):
        return [_nulls(item) for item in value]
    return None if value is NULL else value


def parameter(**fields: Any) -> Obj:
    """A search space of one dimension, and what is wrong with it."""
    whole = {"name": "learning_rate", "type": "Float", "min": 1e-5, "max": 1e-2} | fields
    return {"parameters": [{k: v for k, v in whole.items() if v is not None}]}


def choice(name: str, *values: Any) -> Obj:
    """A search space of one Categorical parameter."""
    return parameter(name=name, type="Categorical", min=None, max=None, values=list(values))


def fixed(name: str, value: Any) -> Obj:
    return {"fixed": [{"name": name, "value": value}], **parameter()}


def template(**fields: Any) -> Obj:
    return {"template": fields}


def metrics(*items: Obj) -> Obj:
    return {"objective": {"metrics": list(items)}}


def loss_sum(*terms: Obj) -> Obj:
    return {"trainer": {"loss": "Sum", "lossSum": list(terms)}}


def scale(**fields: Any) -> Obj:
    return {"data": {"scale": fields}}


def algorithm(name: str, **settings: float) -> Obj:
    return {"algorithm": {"name": name, "settings": settings}}


def pruning(method: str, **settings: float) -> Obj:
    return {"pruning": {"method": method, **settings}}


def initial(*trials: tuple[str, Any]) -> Obj:
    """Trials to ask first, each with one value."""
    return {"initialTrials": [{"parameters": [{"name": name, "value": value}]} for name, value in trials]}


LOOK = {
    "rule": "Evidence",
    "runsDone": 2,
    "runsTotal": 5,
    "incumbent": 3,
    "bar": 0.8296,
    "predicted": 0.8077,
    "standardError": 0.0062,
    "p": 0.0063,
    "alpha": 0.05,
    "probability": 0.0048,
    "references": 5,
    "varianceFold": 1e-4,
    "varianceRun": 0,
    "varianceFactor": 1,
}
RUN_LOOK = {
    "method": "ASHA",
    "fold": 0,
    "seed": 42,
    "epoch": 9,
    "best": 0.41,
    "threshold": 0.5,
    "peers": 7,
    "runsDone": 0,
    "runsTotal": 5,
    "predicted": 0.6,
}
NOTED = {"message": "why", "time": "2026-01-01T00:00:00Z"}
DECIDED = {"reason": "Pruned", **NOTED}
CV, RUN = Kind.CROSS_VALIDATION, Kind.TRAIN_RUN
ACCEPTED, SCHEMA, RULE, VALID, STRICT = Layer.ACCEPTED, Layer.SCHEMA, Layer.RULE, Layer.VALID, Layer.STRICT
STOPPING = {
    "target": 0.9,
    "earlyStopping": {"patience": 20, "minDelta": 0.001},
    "budget": {"gpuHours": 0.5, "wallClock": "48h"},
}
LIMITS = {"limits": {"nvidia.com/gpu": 1, "memory": "16Gi"}}

CASES = [
    # Accepted
    Case("minimal", ACCEPTED),
    Case("minimal", ACCEPTED, kind=CV),
    Case("minimal", ACCEPTED, kind=RUN),
    Case("longest name", ACCEPTED, name="x" * 40),
    Case("longest name", ACCEPTED, kind=CV, name="x" * 47),
    Case("longest name", ACCEPTED, kind=RUN, name="x" * 56),
    Case(
        "all parameter types",
        ACCEPTED,
        spec={
            "parameters": [
                {"name": "learning-rate", "type": "Float", "min": 1e-5, "max": 1e-2, "scale": "Log"},
                {"name": "gamma", "type": "Float", "min": 0.5, "max": 1, "step": 0.1},
                {"name": "batch_size", "type": "Int", "min": 4, "max": 16, "step": 4},
                {"name": "augment", "type": "Categorical", "values": [[], ["D4"], ["HorizontalFlip", "Blur"]]},
                {"name": "x-anything", "type": "Categorical", "values": [1, "a", True, {"b": [2]}]},
                {"name": "x-momentum", "type": "Float", "min": 0.5, "max": 0.999, "scale": "ReverseLog"},
            ]
        },
    ),
    Case(
        "null among values",
        ACCEPTED,
        spec=parameter(name="model_encoder_weights", type="Categorical", min=None, max=None, values=[NULL, "imagenet"]),
    ),
    Case("cached in a pod", ACCEPTED, spec={"data": {"uri": "s3://b/d", "cache": {}}}),
    Case(
        "cached on the node",
        ACCEPTED,
        spec={"data": {"uri": "gs://b/d", "cache": {"hostPath": "/mnt/a", "sizeLimit": "2Ti"}}},
    ),
    Case("the widest range", ACCEPTED, spec=parameter(name="x-a", min=-1e300, max=1e300)),
    Case("all integers", ACCEPTED, spec=parameter(name="x-a", type="Int", min=-(2**53), max=2**53)),
    # In binary floats 0.3 - 0.2 is less than 0.1.
    Case("one step", ACCEPTED, spec=parameter(name="x-a", min=0.2, max=0.3, step=0.1)),
    Case("values of several types", ACCEPTED, spec=choice("x-a", 1, True, "1")),
    Case("grid", ACCEPTED, spec={"algorithm": {"name": "Grid"}, **parameter(step=1e-3)}),
    Case("settings of TPE", ACCEPTED, spec=algorithm("TPE", startupTrials=20, candidates=48)),
    Case("settings of CMA-ES", ACCEPTED, spec={**algorithm("CMAES", populationSize=8, sigma=0.3), **parameter()}),
    Case("settings of GP", ACCEPTED, spec=algorithm("GP", startupTrials=5)),
    Case("warm start", ACCEPTED, spec={"warmStart": [{"name": "pilot"}, {"name": "another"}]}),
    Case("Sobol", ACCEPTED, spec=algorithm("Sobol")),
    Case(
        "initial trials",
        ACCEPTED,
        spec={**initial(("learning-rate", 1e-3)), **parameter(name="learning_rate", scale="Log")},
    ),
    Case(
        "initial null",
        ACCEPTED,
        spec={
            **initial(("model_encoder_weights", NULL)),
            **parameter(
                name="model_encoder_weights", type="Categorical", min=None, max=None, values=[NULL, "imagenet"]
            ),
        },
    ),
    Case("unknown metric with a direction", ACCEPTED, spec=metrics({"name": "val/Mine", "direction": "Minimize"})),
    Case(
        "combined metrics",
        ACCEPTED,
        spec={"objective": {"metrics": [{"name": "val/JaccardIndex"}, {"name": "val/Recall"}], "combine": "Geometric"}},
    ),
    Case("no folds", ACCEPTED, spec={"crossValidation": {"folds": 1, "foldMethod": "None"}}),
    Case("300 runs", ACCEPTED, spec={"crossValidation": {"folds": 100, "runFolds": 10, "randomSeeds": 30}}),
    Case(
        "any container",
        ACCEPTED,
        spec=template(
            command=["sh", "-c"],
            args=["true"],
            env=[{"name": "A", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}}],
            envFrom=[{"configMapRef": {"name": "c"}}],
            initContainers=[{"name": "proxy", "image": "p:1", "restartPolicy": "Always"}],
        ),
    ),
    Case(
        "a sidecar without an image",
        VALID,
        "spec.template.initContainers[0]: a container needs a name and an image",
        template(initContainers=[{"name": "proxy"}]),
    ),
    Case(
        "a sidecar of the trainer's name",
        VALID,
        "spec.template.initContainers[0].name: trainer is the trainer's container",
        template(initContainers=[{"name": "trainer", "image": "p:1"}]),
    ),
    Case("a gpu as a number", ACCEPTED, spec=template(resources=LIMITS)),
    Case("a gpu as a text", ACCEPTED, spec=template(resources={"limits": {"nvidia.com/gpu": "1"}})),
    Case(
        "whole template",
        ACCEPTED,
        kind=RUN,
        spec=template(
            image="r/t:1",
            imagePullPolicy="Never",
            imagePullSecrets=[{"name": "pull"}],
            resources=LIMITS,
            nodeSelector={"gpu": "a100"},
            tolerations=[{"key": "gpu", "operator": "Exists", "effect": "NoSchedule"}],
            affinity={"nodeAffinity": {}},
            env=[{"name": "A_B", "value": "c"}],
            volumes=[{"name": "v", "emptyDir": {}}],
            volumeMounts=[{"name": "v", "mountPath": "/v"}],
            activeDeadlineSeconds=60,
            labels={"team": "x"},
            annotations={"a/b": "c"},
            shmSize="512Mi",
        ),
    ),
    Case("stop", ACCEPTED, kind=CV, spec={"stop": {"reason": "Stopped", "message": "enough"}}),
    Case("one loss", ACCEPTED, spec={"trainer": {"loss": "Tversky", "tverskyAlpha": 0.5, "tverskyBeta": 1}}),
    Case("a sum of losses", ACCEPTED, spec=loss_sum({"loss": "Focal", "weight": 0.5}, {"loss": "Dice"})),
    Case("a start", ACCEPTED, spec={"trainer": {"weightsFromCheckpoint": "s3://bucket/run/checkpoints/best.ckpt"}}),
    Case("schedule and clipping", ACCEPTED, spec={"trainer": {"scheduler": "OneCycle", "gradientClip": 0.5}}),
    Case("gradient clip null", ACCEPTED, spec={"trainer": {"gradientClip": NULL}}, kind=RUN),
    Case("stopping rules", ACCEPTED, spec=STOPPING),
    Case("a budget of time", ACCEPTED, spec={"budget": {"wallClock": "36h15m10s"}}),
    Case("a budget of minutes", ACCEPTED, spec={"budget": {"wallClock": "90m"}}),
    Case("racing", ACCEPTED, spec={"racing": {"alpha": 0.5, "warmupTrials": 10, "minDelta": 0.01, "audit": 0.1}}),
    Case("no racing", ACCEPTED, spec={"racing": {"enabled": False}}),
    Case("pruning", ACCEPTED, spec=pruning("MedianStop", minEpochs=9, minPeers=10, audit=0.1)),
    Case("pruning by halves", ACCEPTED, spec=pruning("ASHA", minEpochs=1, reductionFactor=2)),
    Case("no pruning", ACCEPTED, spec=pruning("None", minEpochs=100)),
    Case("the last validation but one", ACCEPTED, spec=pruning("ASHA", minEpochs=97)),
    Case("patience null", ACCEPTED, spec={"trainer": {"earlyStoppingPatience": NULL}}),
    Case(
        "null for everything optional",
        ACCEPTED,
        spec={
            "fixed": NULL,
            "trainer": NULL,
            "template": NULL,
            "retries": NULL,
            "maxFailedTrials": NULL,
            "suspend": NULL,
            "crossValidation": {"seeds": NULL, "randomSeeds": NULL, "runFolds": NULL},
            "data": {"subsample": NULL, "secretRef": NULL, "split": NULL, "scale": NULL, "nonFinite": NULL},
        },
    ),
    Case(
        "any hyperparameter value",
        ACCEPTED,
        kind=RUN,
        spec={
            "hyperparameters": [
                {"name": "x-a", "value": {"deep": [1, {"er": True}]}},
                {"name": "bands", "value": ["red"]},
            ]
        },
    ),
    Case("reflectances", ACCEPTED, spec=scale(min=0, max=10_000), kind=CV),
    Case(
        "bands with ranges of their own, NaN ignored",
        ACCEPTED,
        spec={"data": {"scale": {"bands": [{"name": "dem", "min": -1.5, "max": 5e3}]}, "nonFinite": "Ignore"}},
    ),
    # Schema: what is missing
    Case("no objective", SCHEMA, "spec.objective: Required value", {"objective": None}),
    Case("no data", SCHEMA, "spec.data: Required value", {"data": None}),
    Case("no artifacts", SCHEMA, "spec.artifacts: Required value", {"artifacts": None}),
    Case("no parameters", SCHEMA, "spec.parameters: Required value", {"parameters": None}),
    Case("no uri", SCHEMA, "spec.data.uri: Required value", {"data": {"uri": None}}),
    Case(
        "no name of a hyperparameter",
        SCHEMA,
        "spec.hyperparameters[0].name: Required value",
        {"hyperparameters": [{"value": 1}]},
        CV,
    ),
    Case("no spec", SCHEMA, "spec: Required value", top={"spec": None}),
    # Schema: bounds
    Case("empty parameters", SCHEMA, "should have at least 1 items", {"parameters": []}),
    Case(
        "too many parameters",
        SCHEMA,
        "must have at most 64 items",
        {"parameters": [{"name": f"x-{i}", "type": "Float", "min": 0, "max": 1} for i in range(65)]},
    ),
    Case("same parameter twice", SCHEMA, "Duplicate value", {"parameters": [parameter()["parameters"][0]] * 2}),
    Case("unknown type", SCHEMA, 'supported values: "Float", "Int", "Categorical"', parameter(type="double")),
    Case("bad name", SCHEMA, "should match", parameter(name="Learning Rate")),
    Case("step zero", SCHEMA, "should be greater than 0", parameter(step=0)),
    Case("unknown scale", SCHEMA, "Unsupported value", parameter(scale="log")),
    Case(
        "no values at all",
        SCHEMA,
        "should have at least 1 items",
        parameter(name="augment", type="Categorical", min=None, max=None, values=[]),
    ),
    Case(
        "too many values",
        SCHEMA,
        "must have at most 100 items",
        parameter(name="x-a", type="Categorical", min=None, max=None, values=list(range(101))),
    ),
    Case("max trials zero", SCHEMA, "should be greater than or equal to 1", {"maxTrials": 0}),
    Case("max trials too many", SCHEMA, "should be less than or equal to 10000", {"maxTrials": 10001}),
    Case("max trials a text", SCHEMA, 'must be of type integer: "string"', {"maxTrials": "5"}),
    Case("max trials a fraction", SCHEMA, 'must be of type integer: "number"', {"maxTrials": 5.5}),
    Case("no patience", SCHEMA, "spec.earlyStopping.patience: Required value", {"earlyStopping": {"minDelta": 1}}),
    Case("patience zero", SCHEMA, "should be greater than or equal to 1", {"earlyStopping": {"patience": 0}}),
    Case("negative delta", SCHEMA, "minDelta", {"earlyStopping": {"patience": 1, "minDelta": -1}}),
    Case("no gpu hours", SCHEMA, "should be greater than 0", {"budget": {"gpuHours": 0}}),
    Case("days of budget", SCHEMA, "spec.budget.wallClock", {"budget": {"wallClock": "2d"}}),
    Case("no time", SCHEMA, "spec.budget.wallClock", {"budget": {"wallClock": "0h"}}),
    Case("alpha zero", SCHEMA, "should be greater than 0", {"racing": {"alpha": 0}}),
    Case("alpha too large", SCHEMA, "should be less than or equal to 0.5", {"racing": {"alpha": 0.6}}),
    Case("a warm-up of one", SCHEMA, "should be greater than or equal to 2", {"racing": {"warmupTrials": 1}}),
    Case("audit of more than all", SCHEMA, "should be less than or equal to 1", {"racing": {"audit": 2}}),
    Case("another way to prune", SCHEMA, "spec.pruning.method", pruning("Hyperband", minEpochs=3)),
    Case("pruning from the start", SCHEMA, "should be greater than or equal to 1", pruning("ASHA", minEpochs=0)),
    Case("pruning against nobody", SCHEMA, "minPeers", pruning("ASHA", minEpochs=3, minPeers=0)),
    Case(
        "a reduction by one",
        SCHEMA,
        "should be greater than or equal to 2",
        pruning("ASHA", minEpochs=3, reductionFactor=1),
    ),
    Case("too many points of a curve", SCHEMA, "curveEpochs", {"curveEpochs": list(range(1, 18))}, RUN),
    Case("a reason to stop that is none", SCHEMA, "spec.stop.reason", {"stop": {"reason": "Bored"}}, CV),
    Case("max failed trials negative", SCHEMA, "should be greater than or equal to 0", {"maxFailedTrials": -1}),
    Case("parallelism zero", SCHEMA, "should be greater than or equal to 1", {"parallelism": 0}),
    Case("folds zero", SCHEMA, "should be greater than or equal to 1", {"crossValidation": {"folds": 0}}),
    Case("too many folds", SCHEMA, "should be less than or equal to 100", {"crossValidation": {"folds": 101}}),
    Case("unknown fold method", SCHEMA, "Unsupported value", {"crossValidation": {"foldMethod": "kfold"}}),
    Case("same seed twice", SCHEMA, "Duplicate value: 42", {"crossValidation": {"seeds": [42, 42]}}),
    Case("seed too large", SCHEMA, "should be less than or equal to 9999", {"crossValidation": {"seeds": [10000]}}),
    Case("no seed", SCHEMA, "should have at least 1 items", {"crossValidation": {"seeds": []}}),
    Case("too many seeds", SCHEMA, "must have at most 30 items", {"crossValidation": {"seeds": list(range(31))}}),
    Case("too many random seeds", SCHEMA, "less than or equal to 30", {"crossValidation": {"randomSeeds": 31}}),
    Case("no metric", SCHEMA, "should have at least 1 items", metrics()),
    Case(
        "too many metrics",
        SCHEMA,
        "must have at most 8 items",
        metrics(*({"name": f"val/M{i}", "direction": "Maximize"} for i in range(9))),
    ),
    Case("a training metric", SCHEMA, "should match '^val/", metrics({"name": "train/loss"})),
    Case("same metric twice", SCHEMA, "Duplicate value", metrics({"name": "val/loss"}, {"name": "val/loss"})),
    Case(
        "unknown direction",
        SCHEMA,
        'supported values: "Maximize", "Minimize"',
        metrics({"name": "val/loss", "direction": "max"}),
    ),
    Case("unknown combine", SCHEMA, "Unsupported value", {"objective": {"combine": "Mean"}}),
    *(
        Case(f"uri {uri}", ACCEPTED, spec={"data": {"uri": uri}, "artifacts": {"uri": uri}})
        for uri in ("s3://b", "gs://b/d", "az://c/d", "file:///d", "/d")
    ),
    *(
        Case(f"uri {uri}", RULE, f"uri {says}", {side: {"uri": uri}}, kind)
        for uri, says in (
            ("ftp://b/d", "has a scheme that nothing reads: use s3://, gs://, az:// or file:///"),
            ("S3://b/d", "has a scheme that nothing reads"),
            ("file://d", "has a scheme that nothing reads"),
            ("data/d", "is a relative path"),
            ("~/d", "is a relative path"),
            ("s3:/b/d", "is a relative path"),
            ("s3:///d", "names no bucket"),
            ("gs://", "names no bucket"),
        )
        for side, kind in (("data", Kind.TUNE), ("artifacts", RUN))
    ),
    *(
        Case(f"a start at {uri}", RULE, f"weightsFromCheckpoint {says}", {"trainer": {"weightsFromCheckpoint": uri}})
        for uri, says in (
            ("hub://best.ckpt", "has a scheme that nothing reads"),
            ("best.ckpt", "is a relative path"),
            ("s3://", "names no bucket"),
        )
    ),
    Case("empty uri", SCHEMA, "should be at least 1 chars long", {"data": {"uri": ""}}),
    Case("endpoint without scheme", SCHEMA, "should match '^(https?://.+)?$'", {"data": {"endpoint": "minio:9000"}}),
    Case("a wandb without project", SCHEMA, "project", {"tracking": {"wandb": {"entity": "me"}}}),
    Case("a project with a slash", SCHEMA, "should match", {"tracking": {"wandb": {"project": "me/p"}}}),
    Case(
        "a wandb mode in small letters",
        SCHEMA,
        "supported values",
        {"tracking": {"wandb": {"project": "p", "mode": "offline"}}},
    ),
    Case("an aim server by http", SCHEMA, "should match", {"tracking": {"aim": {"uri": "http://aim:53800"}}}),
    Case("an mlflow in a folder", SCHEMA, "should match", {"tracking": {"mlflow": {"trackingUri": "file:///runs"}}}),
    Case("bad secret name", SCHEMA, "should match", {"artifacts": {"secretRef": {"name": "My_Secret"}}}),
    Case("subsample one", SCHEMA, "should be greater than or equal to 2", {"data": {"subsample": 1}}),
    Case("a range for no band", SCHEMA, "bands[0].name: Required value", scale(bands=[{"max": 2}]), RUN),
    Case("a band twice", SCHEMA, "Duplicate value", scale(bands=[{"name": "a"}, {"name": "a"}]), RUN),
    Case("a range without end", SCHEMA, "should be less than or equal to", scale(max=1e300)),
    Case("a word for a number", SCHEMA, "must be of type number", scale(max="byte")),
    Case("NaN left as it is", SCHEMA, 'supported values: "Error", "Ignore"', {"data": {"nonFinite": "Keep"}}),
    Case(
        "all for the test",
        SCHEMA,
        "should be less than 1",
        {"data": {"split": {"method": "Random", "testFraction": 1}}},
    ),
    Case("no epochs", SCHEMA, "greater than or equal to 1", {"trainer": {"maxEpochs": 0}}),
    Case("unknown loss", SCHEMA, 'supported values: "Focal", "BCE", "Dice"', {"trainer": {"loss": "Focus"}}),
    Case("an empty start", SCHEMA, "should be at least 1 chars long", {"trainer": {"weightsFromCheckpoint": ""}}, RUN),
    Case("unknown scheduler", SCHEMA, 'supported values: "Exponential", "Cosine"', {"trainer": {"scheduler": "Step"}}),
    Case("no gradient", SCHEMA, "should be greater than 0", {"trainer": {"gradientClip": 0}}, CV),
    Case("negative weight of a loss", SCHEMA, "should be greater than 0", loss_sum({"loss": "BCE", "weight": -1})),
    Case("same loss twice", SCHEMA, "Duplicate value", loss_sum({"loss": "BCE"}, {"loss": "BCE", "weight": 2}), RUN),
    Case("negative share of misses", SCHEMA, "greater than or equal to 0", {"trainer": {"tverskyBeta": -0.1}}),
    Case("too many workers", SCHEMA, "less than or equal to 64", {"trainer": {"numWorkers": 65}}),
    Case("unknown precision", SCHEMA, '"Auto", "FP32", "BF16Mixed", "FP16Mixed"', {"trainer": {"precision": "bf16"}}),
    Case("devices", ACCEPTED, spec={"trainer": {"devices": 4}}),
    Case("no device", SCHEMA, "greater than or equal to 1", {"trainer": {"devices": 0}}),
    Case("compiled on several", RULE, "compile works on one device", {"trainer": {"devices": 2, "compile": True}}),
    Case("nodes", ACCEPTED, spec={"trainer": {"devices": 2, "nodes": 2, "strategy": "FSDP"}}),
    Case("more devices than patches", VALID, "cannot share a batch of 4", {"trainer": {"devices": 2, "nodes": 4}}),
    Case(
        "unknown strategy",
        SCHEMA,
        'supported values: "Auto", "DDP", "FSDP"',
        {"trainer": {"nodes": 2, "strategy": "fsdp"}},
    ),
    Case("no node", SCHEMA, "greater than or equal to 1", {"trainer": {"nodes": 0}}),
    Case("too many nodes", SCHEMA, "less than or equal to 64", {"trainer": {"nodes": 65}}),
    Case("nothing to shard over", RULE, "FSDP shards a model over several devices", {"trainer": {"strategy": "FSDP"}}),
    Case("compiled on nodes", RULE, "compile works on one device", {"trainer": {"nodes": 2, "compile": True}}),
    Case("nodes and a digit", RULE, "begins with a letter", {"trainer": {"nodes": 2}}, name="1st"),
    Case("a digit", ACCEPTED, name="1st"),
    Case("no checkpoints", SCHEMA, "greater than or equal to 1", {"trainer": {"checkpointEveryNEpochs": 0}}),
    Case("checkpoints all the time", SCHEMA, "greater than 0", {"trainer": {"checkpointEveryMinutes": 0}}),
    Case("no gradients", SCHEMA, "greater than or equal to 1", {"trainer": {"accumulateGradBatches": 0}}),
    Case(
        "unknown algorithm",
        SCHEMA,
        'supported values: "TPE", "Random", "Grid", "Sobol"',
        {"algorithm": {"name": "Bayes"}},
    ),
    Case(
        "a setting that is no number", SCHEMA, "must be of type number", {"algorithm": {"settings": {"sigma": "wide"}}}
    ),
    Case("initial trial without parameters", SCHEMA, "at least 1 items", {"initialTrials": [{"parameters": []}]}),
    Case("warm start twice", SCHEMA, "Duplicate value", {"warmStart": [{"name": "pilot"}] * 2}),
    Case(
        "warm start from too many",
        SCHEMA,
        "must have at most 10",
        {"warmStart": [{"name": f"p{i}"} for i in range(11)]},
    ),
    Case("too many initial trials", SCHEMA, "must have at most 100", initial(*[("batch_size", 4)] * 101)),
    Case("negative search seed", SCHEMA, "greater than or equal to 0", {"algorithm": {"seed": -1}}),
    Case("suspend a text", SCHEMA, 'must be of type boolean: "string"', {"suspend": "yes"}),
    Case("halved batches", ACCEPTED, spec={"retries": {"outOfMemory": "HalveBatch"}}),
    Case("a constraint of the search", ACCEPTED, spec={**algorithm("TPE"), "retries": {"outOfMemory": "Constrain"}}),
    Case("a constraint of GP", ACCEPTED, spec={**algorithm("GP"), "retries": {"outOfMemory": "Constrain"}}),
    Case("a run of such a search", ACCEPTED, spec={"retries": {"outOfMemory": "Constrain"}}, kind=RUN),
    Case("unknown policy", SCHEMA, '"Fail", "HalveBatch", "Constrain"', {"retries": {"outOfMemory": "Ignore"}}),
    Case("too many crashes", SCHEMA, "less than or equal to 20", {"retries": {"crash": 21}}),
    Case("unknown stop reason", SCHEMA, 'supported values: "Stopped"', {"stop": {"reason": "Bored"}}, CV),
    Case("fold too large", SCHEMA, "less than or equal to 99", {"fold": 100, "folds": 100}, RUN),
    Case("unknown pull policy", SCHEMA, "Unsupported value", template(imagePullPolicy="Sometimes")),
    Case(
        "half a gpu",
        SCHEMA,
        'must be of type integer,string: "number"',
        template(resources={"limits": {"nvidia.com/gpu": 0.5}}),
    ),
    *(
        Case(f"limits {name} {value!r}", RULE, f"limits takes {says}", template(resources={"limits": {name: value}}))
        for name, value, says in (
            *(("memory", each, "quantities of at least 0") for each in ("16GB", "16 Gi", "", "-1", "16gi", "1e", -1)),
            ("cpu", "2 cores", "quantities of at least 0"),
            *(("nvidia.com/gpu", each, "whole numbers of a device") for each in ("0.5", "1.0", "1k", "500m")),
            ("gpu", 1, "cpu, memory, ephemeral-storage"),
        )
    ),
    *(
        Case(
            f"requests {name} {value}",
            RULE,
            f"requests takes {says}",
            template(resources={"requests": {name: value}}),
            RUN,
        )
        for name, value, says in (
            ("memory", "1GB", "quantities of at least 0"),
            ("amd.com/gpu", "1.5", "whole numbers of a device"),
            ("amd-gpu", "1", "cpu, memory, ephemeral-storage"),
        )
    ),
    *(
        Case(f"quantities {i}", ACCEPTED, spec=template(resources={"limits": limits, "requests": requests}))
        for i, (limits, requests) in enumerate(
            (
                ({"memory": "1.5Gi", "cpu": "500m"}, {"memory": "1610612736", "cpu": ".5"}),
                ({"memory": 1024, "cpu": 2}, {"memory": "1e3", "cpu": "2000m"}),
                ({"memory": "1E", "ephemeral-storage": "10G"}, {"memory": "1Pi", "cpu": 1}),
                ({"nvidia.com/gpu": "2", "hugepages-2Mi": "4Mi"}, {"nvidia.com/gpu": 2, "hugepages-2Mi": "4096Ki"}),
            )
        )
    ),
    *(
        Case(
            f"requests {i}",
            VALID,
            f"spec.template.resources.requests.{says}",
            template(resources={"limits": limits, "requests": requests}),
            kind,
        )
        for i, (limits, requests, says, kind) in enumerate(
            (
                ({"memory": "8Gi"}, {"memory": "9Gi"}, "memory: 9Gi is more than limits.memory, 8Gi", Kind.TUNE),
                ({"cpu": 1}, {"cpu": "1001m"}, "cpu: 1001m is more than limits.cpu, 1", RUN),
                ({"nvidia.com/gpu": 2}, {"nvidia.com/gpu": "1"}, "nvidia.com/gpu: 1 must be the same as", CV),
                ({}, {"nvidia.com/gpu": 1}, "nvidia.com/gpu: 1 needs a limit that is the same", RUN),
            )
        )
    ),
    Case("shm size in K", SCHEMA, "should match", template(shmSize="100K")),
    Case("bad variable name", SCHEMA, "should match", template(env=[{"name": "A-B"}])),
    Case("same variable twice", SCHEMA, "Duplicate value", template(env=[{"name": "A"}, {"name": "A"}])),
    Case("no deadline", SCHEMA, "greater than or equal to 1", template(activeDeadlineSeconds=0)),
    Case("endless grace", SCHEMA, "less than or equal to 3600", template(terminationGracePeriodSeconds=3601)),
    Case("bad shm size", SCHEMA, "should match", template(shmSize="2 GB")),
    Case("bad effect", SCHEMA, "Unsupported value", template(tolerations=[{"effect": "NoWay"}])),
    Case("volume a text", SCHEMA, 'must be of type object: "string"', template(volumes=["v"])),
    Case("label too long", SCHEMA, "may not be more than 63", template(labels={"a": "b" * 64})),
    # Rules
    Case("a range upside down", RULE, "min must be below max", scale(min=1, max=0)),
    Case("an empty range", RULE, "min must be below max", scale(min=5, max=5), CV),
    Case("a range above its default end", RULE, "min must be below max", scale(min=1), RUN),
    Case("an empty range of a band", RULE, "min must be below max", scale(bands=[{"name": "a", "max": 0}])),
    Case("a sum of one loss", RULE, "must then list at least two losses", loss_sum({"loss": "BCE"})),
    Case("a sum of nothing", RULE, "lossSum goes with loss Sum", {"trainer": {"loss": "Sum"}}, CV),
    Case(
        "terms without a sum",
        RULE,
        "lossSum goes with loss Sum",
        {"trainer": {"loss": "Dice", "lossSum": [{"loss": "BCE"}, {"loss": "Dice"}]}},
        RUN,
    ),
    Case("a sum of sums", RULE, "a sum has no Sum among its losses", loss_sum({"loss": "Sum"}, {"loss": "BCE"})),
    Case("name too long", RULE, "metadata.name of a Tune has at most 40 characters", name="x" * 41),
    Case("name too long", RULE, "metadata.name of a CrossValidation has at most 47", kind=CV, name="x" * 48),
    Case("name too long", RULE, "metadata.name of a TrainRun has at most 56", kind=RUN, name="x" * 57),
    Case("name with a dot", RULE, "metadata.name takes lower-case letters, digits and '-' only", name="a.b"),
    Case("unknown parameter", RULE, "unknown hyperparameter: use one of model_arch", parameter(name="learning_rat")),
    Case("unknown fixed", RULE, "unknown hyperparameter: use one of", fixed("depth", 3)),
    Case(
        "unknown hyperparameter",
        RULE,
        "unknown hyperparameter: use one of",
        {"hyperparameters": [{"name": "depth", "value": 3}]},
        RUN,
    ),
    Case("min above max", RULE, "Float and Int need min and max, with min below max", parameter(min=1)),
    Case("no max", RULE, "Float and Int need min and max", parameter(max=None)),
    Case(
        "categorical with min",
        RULE,
        "Categorical takes values only",
        parameter(name="x-a", type="Categorical", max=None, values=[1]),
    ),
    Case("log from zero", RULE, "scale Log needs min above 0 and takes no step", parameter(min=0, scale="Log")),
    Case("log with a step", RULE, "scale Log needs min above 0 and takes no step", parameter(scale="Log", step=0.1)),
    Case(
        "int with a fraction", RULE, "Int needs whole numbers", parameter(name="batch_size", type="Int", min=1.5, max=8)
    ),
    *(
        Case(
            f"integers to {bound!r}",
            RULE,
            "Int takes min and max from -9007199254740992 to 9007199254740992 (2^53)",
            parameter(name="x-a", type="Int", min=min(bound, 0), max=max(bound, 0)),
        )
        for bound in (2**53 + 2, 2**60, 2**63 - 1, 2**63, 1e300, -(2**53) - 2, -(2**63) - 1)
    ),
    *(
        Case(
            f"a float to {bound!r}",
            RULE,
            "Float takes min and max from -1e300 to 1e300: bring min and max nearer to 0",
            parameter(name="x-a", min=min(bound, 0), max=max(bound, 0)),
        )
        for bound in (1.1e300, -1e308)
    ),
    *(
        Case(
            f"a step of {step!r}",
            RULE,
            "step is larger than max - min",
            parameter(name="x-a", type=kind, min=1, max=4, step=step),
        )
        for kind, step in (("Float", 3.1), ("Float", 1e300), ("Int", 4), ("Int", 2**63))
    ),
    Case(
        "reverse log up to one",
        RULE,
        "scale ReverseLog is for Float, needs max below 1 and takes no step",
        parameter(name="x-a", min=0.5, max=1, scale="ReverseLog"),
    ),
    Case(
        "reverse log with a step",
        RULE,
        "scale ReverseLog is for Float",
        parameter(name="x-a", min=0.5, max=0.9, step=0.1, scale="ReverseLog"),
    ),
    Case(
        "reverse log of integers",
        RULE,
        "scale ReverseLog is for Float",
        parameter(name="x-a", type="Int", min=-5, max=0, scale="ReverseLog"),
    ),
    Case(
        "unknown setting",
        RULE,
        "algorithm TPE has the settings startupTrials (a whole number from 1 to 1000) and candidates",
        algorithm("TPE", startups=20),
    ),
    Case("setting of another algorithm", RULE, "algorithm GP has the settings startup", algorithm("GP", sigma=0.5)),
    Case("setting of none", RULE, "algorithm Random has no settings", algorithm("Random", candidates=5)),
    Case(
        "setting of Grid",
        RULE,
        "algorithm Grid has no settings",
        {**algorithm("Grid", sigma=0.5), **parameter(step=1e-3)},
    ),
    Case("setting of TPE under CMA-ES", RULE, "algorithm CMAES has the settings pop", algorithm("CMAES", candidates=5)),
    Case("setting of Sobol", RULE, "algorithm Sobol has no settings", algorithm("Sobol", startupTrials=5)),
    Case("no candidates", RULE, "setting candidates must be a whole number from 1", algorithm("TPE", candidates=0)),
    Case("half a trial", RULE, "setting startupTrials must be a whole number", algorithm("GP", startupTrials=2.5)),
    Case("setting too large", RULE, "sigma must be a number from 0.001 to 1", algorithm("CMAES", sigma=1.5)),
    Case(
        "setting with a fraction",
        RULE,
        "setting populationSize must be a whole number from 4 to 1000",
        algorithm("CMAES", populationSize=8.5),
    ),
    *(
        Case(
            f"a constraint under {name}",
            RULE,
            "retries.outOfMemory Constrain needs an algorithm that learns",
            {**algorithm(name), **parameter(step=1e-3), "retries": {"outOfMemory": "Constrain"}},
        )
        for name in ("Random", "Sobol", "Grid")
    ),
    Case(
        "a constraint without a search",
        RULE,
        "retries.outOfMemory Constrain goes with a Tune",
        {"retries": {"outOfMemory": "Constrain"}},
        CV,
    ),
    Case(
        "nothing to evolve",
        RULE,
        "algorithm CMAES needs a Float or Int parameter",
        {
            **algorithm("CMAES"),
            **parameter(name="model_encoder", type="Categorical", min=None, max=None, values=["resnet18", "resnet34"]),
        },
    ),
    Case(
        "grid over a range",
        RULE,
        "algorithm Grid needs every parameter",
        {"algorithm": {"name": "Grid"}, **parameter()},
    ),
    Case("fixed and searched", RULE, "either in parameters or in fixed", fixed("learning-rate", 1e-3)),
    Case(
        "more failures than trials",
        RULE,
        "maxFailedTrials must not exceed maxTrials",
        {"maxTrials": 2, "maxFailedTrials": 3},
    ),
    Case("an empty budget", RULE, "budget needs gpuHours, wallClock or both", {"budget": {}}),
    Case("pruning without a beginning", RULE, "need minEpochs", pruning("MedianStop")),
    Case("a reduction of medians", RULE, "method: ASHA", pruning("MedianStop", minEpochs=3, reductionFactor=4)),
    Case("pruning at the last epoch", RULE, "a validation from minEpochs on", pruning("ASHA", minEpochs=100)),
    # Of 9 epochs the third, the sixth and the last are validated.
    Case(
        "pruning at the last validation",
        RULE,
        "lower pruning.minEpochs or trainer.checkValEveryNEpoch, or raise trainer.maxEpochs",
        pruning("MedianStop", minEpochs=7) | {"trainer": {"maxEpochs": 9}},
    ),
    Case("two decisions", RULE, "either look or runLook", {"stop": {**DECIDED, "look": LOOK, "runLook": RUN_LOOK}}, CV),
    Case("an audit of nothing", RULE, "either look or runLook", {"audit": NOTED}, CV),
    Case("pruning by hand", RULE, "use reason Stopped", {"stop": {"reason": "Pruned", "message": "bad"}}, CV),
    Case(
        "seeds and random seeds",
        RULE,
        "seeds and randomSeeds exclude each other",
        {"crossValidation": {"seeds": [1], "randomSeeds": 2}},
    ),
    Case("one fold with a method", RULE, "foldMethod None goes with folds 1", {"crossValidation": {"folds": 1}}),
    Case("one fold with a method", RULE, "foldMethod None goes with folds 1", {"folds": 1}, RUN),
    Case(
        "no method with folds", RULE, "foldMethod None goes with folds 1", {"crossValidation": {"foldMethod": "None"}}
    ),
    Case("more folds run than cut", RULE, "runFolds must not exceed folds", {"crossValidation": {"runFolds": 4}}),
    Case(
        "301 runs",
        RULE,
        "folds run times seeds must not exceed 300",
        {"crossValidation": {"folds": 43, "seeds": [1, 2, 3, 4, 5, 6, 7]}},
    ),
    Case("fold that does not exist", RULE, "fold must be below folds", {"fold": 5}, RUN),
    *(
        Case(
            f"a metric spelled {known[4:].swapcase()}",
            RULE,
            f"did you mean {known}?",
            metrics({"name": f"val/{known[4:].swapcase()}", **direction}),
            kind,
        )
        for known in KNOWN_OBJECTIVES
        for direction, kind in (({}, Kind.TUNE), ({"direction": "Maximize"}, RUN))
    ),
    Case("a metric with more to its name", ACCEPTED, spec=metrics({"name": "val/lossy", "direction": "Minimize"})),
    Case("unknown metric without a direction", RULE, "must say its direction", metrics({"name": "val/Mine"})),
    Case(
        "random split without a share",
        RULE,
        "testFraction goes with method Random",
        {"data": {"split": {"method": "Random"}}},
    ),
    Case(
        "share without a random split",
        RULE,
        "testFraction goes with method Random",
        {"data": {"split": {"testFraction": 0.1}}},
    ),
    Case(
        "region split without regions",
        RULE,
        "values goes with method Region or Sample",
        {"data": {"split": {"method": "Region"}}},
    ),
    Case(
        "regions without a region split",
        RULE,
        "values goes with method Region or Sample",
        {"data": {"split": {"values": ["Banks"]}}},
    ),
    Case(
        "a key that nobody asks for",
        RULE,
        "mode Offline needs no key: remove secretRef",
        {"tracking": {"wandb": {"project": "p", "mode": "Offline", "secretRef": {"name": "w"}}}},
    ),
    Case(
        "a graph for nobody",
        RULE,
        "graph is written for TensorBoard",
        {"tracking": {"tensorboard": False, "graph": True}},
    ),
    Case(
        "anonymous with a secret",
        RULE,
        "anonymous and secretRef exclude each other",
        {"data": {"anonymous": True, "secretRef": {"name": "s"}}},
    ),
    Case(
        "a cache of the node and of a claim",
        RULE,
        "hostPath and claimName exclude each other",
        {"data": {"uri": "s3://b/d", "cache": {"hostPath": "/mnt/a", "claimName": "a"}}},
    ),
    Case(
        "a cache of a folder",
        RULE,
        "cache goes with a data set in object storage",
        {"data": {"uri": "/d", "cache": {}}},
    ),
    Case(
        "a cache of a folder as file",
        RULE,
        "cache goes with a data set in object storage",
        {"data": {"uri": "file:///d", "cache": {}}},
    ),
    Case("a cache of 5", SCHEMA, "sizeLimit", {"data": {"uri": "s3://b/d", "cache": {"sizeLimit": "5"}}}),
    Case("a cache nowhere", SCHEMA, "should match", {"data": {"uri": "s3://b/d", "cache": {"hostPath": "mnt"}}}),
    Case("memory perhaps", SCHEMA, "inMemory", {"trainer": {"inMemory": "Maybe"}}),
    Case(
        "a variable of ours",
        RULE,
        "variables that start with CROSSFOLD_",
        template(env=[{"name": "CROSSFOLD_CONFIG", "value": "{}"}]),
    ),
    Case(
        "a value twice",
        RULE,
        "value and valueFrom exclude each other: remove one",
        template(env=[{"name": "A", "value": "b", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}]),
    ),
    Case(
        "a path of ours", RULE, "are taken by the operator", template(volumeMounts=[{"name": "v", "mountPath": "/tmp"}])
    ),
    Case(
        "a path below ours",
        RULE,
        "are taken by the operator",
        template(volumeMounts=[{"name": "v", "mountPath": "/etc/crossfold/data"}]),
    ),
    Case("a label of ours", RULE, "are set by the operator: remove them", template(labels={"crossfold.dev/tune": "t"})),
    Case(
        "a label of Kueue",
        RULE,
        "are set by the operator: remove them",
        template(labels={"kueue.x-k8s.io/queue-name": "q"}),
    ),
    # Valid=False
    Case(
        "categorical without values",
        VALID,
        "spec.parameters[0]",
        parameter(name="model_arch", type="Categorical", min=None, max=None),
    ),
    Case("value of another type", VALID, "must be an integer of at least 1, not 'eight'", fixed("batch_size", "eight")),
    Case(
        "value out of range",
        VALID,
        "spec.fixed[0]: hyperparameter 'gamma' must be a number in (0, 1]",
        fixed("gamma", 7),
    ),
    Case(
        "value out of range",
        VALID,
        "spec.hyperparameters[0]: hyperparameter 'gamma'",
        {"hyperparameters": [{"name": "gamma", "value": 7}]},
        RUN,
    ),
    Case(
        "value missing",
        VALID,
        "must be an integer of at least 1, not None",
        {"hyperparameters": [{"name": "batch_size"}]},
        CV,
    ),
    *(
        Case(f"weights {word!r}", VALID, "write null, without quotes", fixed("model_encoder_weights", word))
        for word in ("None", "none", "null", "")
    ),
    Case("weights of a choice", VALID, "values[0]", choice("model_encoder_weights", "None", "imagenet")),
    Case("no weights", ACCEPTED, spec=fixed("model_encoder_weights", NULL)),
    Case("unknown augmentation", VALID, "must be a list of augmentations", fixed("augment", ["Rotate"])),
    Case(
        "one name in two spellings",
        VALID,
        "'-' equals '_'",
        {"parameters": [{"name": n, "type": "Int", "min": 1, "max": 8} for n in ("batch-size", "batch_size")]},
    ),
    Case(
        "one name in two spellings",
        VALID,
        "given twice",
        {"hyperparameters": [{"name": n, "value": 8} for n in ("batch-size", "batch_size")]},
        CV,
    ),
    Case(
        "one value in two spellings",
        VALID,
        "is the same value as values[0]",
        parameter(name="batch_size", type="Categorical", min=None, max=None, values=[8, 8.0]),
    ),
    Case(
        "bad choice",
        VALID,
        "spec.parameters[0].values[1]",
        parameter(name="batch_size", type="Categorical", min=None, max=None, values=[8, "x"]),
    ),
    Case("range of a name", VALID, "use type Categorical and list the values", parameter(name="model_encoder")),
    Case("float where integers go", VALID, "use type Int", parameter(name="batch_size", min=1, max=8)),
    Case("bound out of range", VALID, "spec.parameters[0].min", parameter(min=-1)),
    Case("range without width", VALID, "widen the range", parameter(min=0.01, max=0.0100000001)),
    Case("step too fine", VALID, "too fine", parameter(step=1e-20)),
    Case("a target beyond the metric", VALID, "spec.target: a score is at most 1", {"target": 80}),
    Case("a target below the metric", VALID, "spec.target: a score is at least 0", {"target": -0.1}),
    Case(
        "integers that a logarithm cannot tell apart",
        VALID,
        "use scale Linear",
        parameter(name="x-a", type="Int", min=10**15, max=10**15 + 9, scale="Log"),
    ),
    Case("a range around nothing", VALID, "widen the range", parameter(name="x-a", min=0, max=1e-310)),
    Case(
        "no distance from one",
        VALID,
        "widen the range",
        parameter(name="x-a", min=-1e-20, max=1e-20, scale="ReverseLog"),
    ),
    Case("1 and 1.0", VALID, "is the same value as values[0]", choice("x-a", 1, 1.0, True)),
    Case(
        "initial value outside its range",
        VALID,
        "spec.initialTrials[1].parameters[0]: 'learning_rate' must be a number from 1e-05 to 0.01, not 0.5: change it",
        {**initial(("learning_rate", 1e-3), ("learning_rate", 0.5)), **parameter()},
    ),
    Case(
        "initial value of no parameter",
        VALID,
        "spec.initialTrials[0].parameters[0]: 'gamma' is no parameter of the search: use learning_rate",
        {**initial(("gamma", 0.9)), **parameter()},
    ),
    Case(
        "initial trial twice",
        VALID,
        "spec.initialTrials[1]: is initialTrials[0] once more",
        {**initial(("learning_rate", 1e-3), ("learning-rate", 1e-3)), **parameter()},
    ),
    Case(
        "too near to one",
        VALID,
        "cannot be told apart",
        parameter(name="x-a", min=0.5, max=1 - 1e-12, scale="ReverseLog"),
    ),
    # Strict
    Case("unknown field", STRICT, 'unknown field "spec.maxTrial"', {"maxTrial": 5}),
    Case(
        "unknown field in depth",
        STRICT,
        'unknown field "spec.data.split.fraction"',
        {"data": {"split": {"fraction": 0.1}}},
    ),
    Case("snake case", STRICT, 'unknown field "spec.trainer.max_epochs"', {"trainer": {"max_epochs": 5}}, RUN),
    Case("unknown field of a parameter", STRICT, 'unknown field "spec.parameters[0].low"', parameter(low=1)),
]

# What may change and what may not -------------------------------------------------------------------------------------

SHARED_FROZEN: dict[str, list[Obj]] = {
    "spec.objective": [{"objective": {"metrics": [{"name": "val/loss"}]}}, {"objective": {"combine": "Min"}}],
    "spec.data": [
        {"data": {"uri": "s3://other/data"}},
        {"data": {"secretRef": {"name": "s"}}},
        {"data": {"subsample": 100}},
        {"data": {"scale": {"max": 255}}},
        {"data": {"nonFinite": "Ignore"}},
    ],
    "spec.artifacts": [{"artifacts": {"uri": "s3://other"}}, {"artifacts": {"region": "eu-1"}}],
    "spec.trainer": [{"trainer": {"maxEpochs": 7}}, {"trainer": {"limitTrainBatches": 3}}],
    "spec.tracking": [{"tracking": {"tensorboard": False}}],
}
TEMPLATE_FROZEN: dict[str, list[Obj]] = {
    "spec.template.image": [template(image="r/other:1")],
    "spec.template.imagePullPolicy": [template(imagePullPolicy="Always")],
    "spec.template.imagePullSecrets": [template(imagePullSecrets=[{"name": "s"}])],
    "spec.template.command": [template(command=["python"])],
    "spec.template.args": [template(args=["--fast"])],
    "spec.template.env": [template(env=[{"name": "A", "value": "b"}])],
    "spec.template.envFrom": [template(envFrom=[{"configMapRef": {"name": "a"}}])],
    "spec.template.initContainers": [template(initContainers=[{"name": "a", "image": "b"}])],
    "spec.template.volumes": [template(volumes=[{"name": "w", "emptyDir": {}}]), template(volumes=[])],
    "spec.template.volumeMounts": [template(volumeMounts=[])],
    "spec.template.activeDeadlineSeconds": [template(activeDeadlineSeconds=60)],
    "spec.template.terminationGracePeriodSeconds": [template(terminationGracePeriodSeconds=60)],
    "spec.template.serviceAccountName": [template(serviceAccountName="s")],
    "spec.template.runtimeClassName": [template(runtimeClassName="r")],
    "spec.template.labels": [template(labels={"a": "b"}), template(labels={"team": None})],
    "spec.template.annotations": [template(annotations={"a": "b"})],
    "spec.template.shmSize": [template(shmSize="1Gi")],
}
HYPERPARAMETERS: dict[str, list[Obj]] = {
    "spec.hyperparameters": [
        {"hyperparameters": [{"name": "gamma", "value": 0.5}]},
        {"hyperparameters": [{"name": "gamma"}]},
        {"hyperparameters": []},
    ],
}
FOLDS: dict[str, list[Obj]] = {
    "spec.crossValidation": [{"crossValidation": {"seeds": [1, 2]}}, {"crossValidation": {"folds": 4}}],
}
FROZEN: dict[Kind, dict[str, list[Obj]]] = {
    Kind.TUNE: {
        **SHARED_FROZEN,
        **TEMPLATE_FROZEN,
        **FOLDS,
        "spec.parameters": [
            parameter(max=0.1),
            parameter(),
            {"parameters": [{"name": "model_encoder", "type": "Categorical", "values": ["resnet18", "resnet50"]}]},
        ],
        "spec.fixed": [{"fixed": [{"name": "gamma", "value": 0.5}]}, {"fixed": []}],
        "spec.algorithm": [
            {"algorithm": {"seed": 7}},
            {"algorithm": {"name": "TPE"}},
            {"algorithm": {"name": "TPE", "settings": {"candidates": 5}}},
        ],
        "spec.warmStart": [{"warmStart": [{"name": "pilot"}]}],
        "spec.initialTrials": [initial(("model_encoder", "resnet18"))],
        "spec.racing.enabled": [{"racing": {"enabled": False}}],
        "spec.racing.warmupTrials": [{"racing": {"warmupTrials": 9}}],
        "spec.racing.minDelta": [{"racing": {"minDelta": 0.1}}],
        "spec.racing.audit": [{"racing": {"audit": 0.1}}],
        "spec.pruning": [pruning("ASHA", minEpochs=3), {"pruning": {"audit": 0.1}}],
    },
    Kind.CROSS_VALIDATION: {**SHARED_FROZEN, **TEMPLATE_FROZEN, **FOLDS, **HYPERPARAMETERS},
    Kind.TRAIN_RUN: {
        **SHARED_FROZEN,
        **HYPERPARAMETERS,
        "spec.fold": [{"fold": 1}],
        "spec.seed": [{"seed": 7}],
        "spec.folds": [{"folds": 7}],
        "spec.curveEpochs": [{"curveEpochs": [3]}],
        "spec.foldMethod": [{"foldMethod": "KFold"}],
        "spec.template": [template(image="r/other:1"), template(nodeSelector={"a": "b"})],
        "spec.retries": [{"retries": {"crash": 3}}],
    },
}
"""Changes of a stored object that are refused, by the field that the message names."""

STORED: dict[Kind, Obj] = {
    Kind.TUNE: {
        "suspend": True,
        "fixed": [{"name": "gamma", "value": 0.9}],
        "maxFailedTrials": 1,
        "parameters": [{"name": "model_encoder", "type": "Categorical", "values": ["resnet18", "resnet34"]}],
        **template(
            labels={"team": "x"},
            volumes=[{"name": "v", "emptyDir": {}}],
            volumeMounts=[{"name": "v", "mountPath": "/v"}],
        ),
    },
    Kind.CROSS_VALIDATION: {
        "suspend": True,
        "hyperparameters": [{"name": "gamma", "value": 0.9}],
        **template(
            labels={"team": "x"},
            volumes=[{"name": "v", "emptyDir": {}}],
            volumeMounts=[{"name": "v", "mountPath": "/v"}],
        ),
    },
    Kind.TRAIN_RUN: {"suspend": True, "hyperparameters": [{"name": "gamma", "value": 0.9}]},
}
"""The stored objects that are changed; suspended, since an operator may be watching."""

PLACEMENT = [
    template(nodeSelector={"gpu": "h100"}),
    template(tolerations=[{"key": "gpu", "operator": "Exists"}]),
    template(affinity={"nodeAffinity": {}}),
    template(priorityClassName="low"),
    template(resources=LIMITS),
]
MUTABLE: dict[Kind, list[Obj]] = {
    Kind.TUNE: [
        {"maxTrials": 1},
        {"maxTrials": 100},
        {"maxFailedTrials": 2},
        {"maxFailedTrials": None},
        {"target": 0.9},
        {"earlyStopping": {"patience": 5}},
        {"budget": {"gpuHours": 200}},
        {"budget": {"wallClock": "1h"}},
        {"racing": {"alpha": 0.1}},
        {"parallelism": 9},
        {"suspend": False},
        {"retries": {"crash": 3}},
        *PLACEMENT,
    ],
    Kind.CROSS_VALIDATION: [
        {"parallelism": 9},
        {"suspend": False},
        {"stop": {"reason": "Stopped"}},
        {"stop": {"reason": "Pruned", "message": "why", "time": "2026-01-01T00:00:00Z", "look": LOOK}},
        {"audit": {"message": "why", "time": "2026-01-01T00:00:00Z", "look": LOOK}},
        {"stop": {**DECIDED, "runLook": RUN_LOOK}},
        {"audit": {**NOTED, "runLook": {**RUN_LOOK, "incumbent": 3, "bar": 0.7}}},
        {"retries": {"crash": 3}},
        *PLACEMENT,
    ],
    Kind.TRAIN_RUN: [{"suspend": False}, {"stop": {"reason": "Stopped", "message": "enough"}}],
}
"""Changes of a stored object that are accepted."""
