"""The run's configuration: what the operator hands to a trainer, and the parts that the API shares with it."""

import hashlib
import json
from enum import StrEnum
from random import Random
from typing import Annotated, Any, Literal, Self

from pydantic import Field, JsonValue, model_validator

from crossfold_trainer.contract import hyperparameters as hp
from crossfold_trainer.contract.base import Model, Rule
from crossfold_trainer.contract.curve import CurveEpochs
from crossfold_trainer.contract.metrics import KNOWN_OBJECTIVES, Direction, metric_info

Uri = Annotated[str, Field(min_length=1, max_length=1024)]
ShortText = Annotated[str, Field(max_length=253)]
Name = Annotated[str, Field(min_length=1, max_length=253)]
Seed = Annotated[int, Field(ge=0, le=9999)]

FIRST_SEEDS = (42, 21, 69)
CREDENTIALS_DIR = "/etc/crossfold"
"""Where a pod finds credentials: ``data/`` and ``artifacts/`` below it, one file per variable."""
CREDENTIAL_KEYS = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN")
"""Keys of a credentials Secret (the session token is optional)."""
CONFIG_VARIABLE = "CROSSFOLD_CONFIG"
"""The environment variable in which a trainer finds its RunConfig as JSON."""
IMAGE_VARIABLE = "CROSSFOLD_IMAGE"
"""The environment variable in which a trainer finds the image that it runs in, for its record of the environment."""
CACHE_DIR = "/var/cache/crossfold"
"""Where a pod finds the volume of data.cache."""
CACHE_VARIABLE = "CROSSFOLD_CACHE"
"""Overrides CACHE_DIR (local mode)."""
CREDENTIALS_VARIABLE = "CROSSFOLD_CREDENTIALS"
"""Overrides CREDENTIALS_DIR (local mode)."""
TERMINATION_VARIABLE = "CROSSFOLD_TERMINATION_LOG"
"""Overrides the path of the termination message (default /dev/termination-log)."""


class Combine(StrEnum):
    """How several metrics make one score."""

    HARMONIC = "Harmonic"
    ARITHMETIC = "Arithmetic"
    GEOMETRIC = "Geometric"
    MIN = "Min"


class SplitMethod(StrEnum):
    """How the test part is set aside before the folds are cut."""

    NONE = "None"
    RANDOM = "Random"
    REGION = "Region"
    SAMPLE = "Sample"


class FoldMethod(StrEnum):
    """How the train part is cut into folds."""

    K_FOLD = "KFold"
    SHUFFLE = "Shuffle"
    STRATIFIED = "Stratified"
    REGION = "Region"
    REGION_STRATIFIED = "RegionStratified"
    NONE = "None"


class Precision(StrEnum):
    """In which numbers a model computes."""

    AUTO = "Auto"
    FP32 = "FP32"
    BF16_MIXED = "BF16Mixed"
    FP16_MIXED = "FP16Mixed"


class Loss(StrEnum):
    """What training minimises."""

    FOCAL = "Focal"
    BCE = "BCE"
    DICE = "Dice"
    JACCARD = "Jaccard"
    LOVASZ = "Lovasz"
    TVERSKY = "Tversky"
    SUM = "Sum"


class Scheduler(StrEnum):
    """How the learning rate changes while a run trains."""

    EXPONENTIAL = "Exponential"
    COSINE = "Cosine"
    ONE_CYCLE = "OneCycle"


class InMemory(StrEnum):
    """Whether a run keeps its patches in memory."""

    AUTO = "Auto"
    ALWAYS = "Always"
    NEVER = "Never"


class Strategy(StrEnum):
    """How the processes that train a run together hold its model."""

    AUTO = "Auto"
    DDP = "DDP"
    FSDP = "FSDP"


class OutOfMemoryPolicy(StrEnum):
    """What a run does when the accelerator's memory does not suffice."""

    FAIL = "Fail"
    HALVE_BATCH = "HalveBatch"
    CONSTRAIN = "Constrain"


class SecretRef(Model):
    """A Secret in the same namespace."""

    name: Annotated[str, Field(min_length=1, max_length=253, pattern=r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$")]
    """Name of the Secret; its keys are AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and, optionally, AWS_SESSION_TOKEN."""


class StoreSpec(Model):
    """A place in object storage, or a folder."""

    uri: Uri
    """Where it is: s3://bucket/prefix, gs://, az://, file:// or a path inside the container."""
    endpoint: Annotated[str, Field(max_length=253, pattern=r"^(https?://.+)?$")] = ""
    """URL of the S3 server (http:// or https://), used with path-style addresses; empty: the provider's own."""
    region: Annotated[str, Field(max_length=64)] = ""
    """Region that requests are signed for; empty: the provider's default."""
    secret_ref: SecretRef | None = None
    """Secret with the credentials, mounted into the pod as files; without it the pod's own identity is used."""


class SplitSpec(Model):
    """How the test part is set aside."""

    method: SplitMethod = SplitMethod.NONE
    """None (no test part), Random (testFraction of the patches), Region or Sample (the listed values)."""
    test_fraction: Annotated[float, Field(gt=0, lt=1)] | None = None
    """Share of the patches that Random sets aside for the test, in (0, 1)."""
    values: Annotated[list[Name], Field(max_length=1000, json_schema_extra={"x-kubernetes-list-type": "set"})] = []
    """Names of the regions or samples that make the test part."""

    rules = (
        Rule(
            "self.method == 'Random' ? has(self.testFraction) : !has(self.testFraction)",
            "testFraction goes with method Random, and only with it",
        ),
        Rule(
            "self.method in ['Region', 'Sample'] ? (has(self.values) && size(self.values) > 0)"
            " : (!has(self.values) || size(self.values) == 0)",
            "values goes with method Region or Sample, and must then list at least one name",
        ),
    )


class CacheSpec(Model):
    """A disk near the pods for chunks of the data set; without hostPath and claimName an emptyDir of each pod."""

    host_path: Annotated[str, Field(max_length=1024, pattern=r"^(/.+)?$")] = ""
    """Folder of the node, which all runs on it share; it must be writable for the user that pods run as (65532)."""
    claim_name: Annotated[str, Field(max_length=253, pattern=r"^([a-z0-9]([-a-z0-9.]*[a-z0-9])?)?$")] = ""
    """PersistentVolumeClaim in the same namespace, such as one on the node's own disk; runs share it."""
    size_limit: Annotated[str, Field(max_length=16, pattern=r"^[1-9][0-9]{0,8}(Mi|Gi|Ti|M|G|T)$")] = "50Gi"
    """Most that the cached chunks of all data sets may take together, such as 50Gi or 2Ti."""

    rules = (
        Rule(
            "!has(self.hostPath) || self.hostPath == '' || !has(self.claimName) || self.claimName == ''",
            "hostPath and claimName exclude each other: remove one",
        ),
    )

    @property
    def limit_bytes(self) -> int:
        """The size limit in bytes."""
        number = self.size_limit.rstrip("MGTi")
        unit = self.size_limit[len(number) :]
        factor: int = (1024 if unit.endswith("i") else 1000) ** (2 + "MGT".index(unit[0]))
        return int(number) * factor


class DataSpec(StoreSpec):
    """The data set (darts layout): config.toml, data.zarr and metadata.parquet below the URI."""

    anonymous: bool = False
    """Read without credentials (public buckets)."""
    subsample: Annotated[int, Field(ge=2, le=100_000_000)] | None = None
    """Use only this many patches, sampled with seed 42 before anything else; null: all."""
    split: SplitSpec = SplitSpec()
    """The test part, set aside before the folds are cut."""
    cache: CacheSpec | None = None
    """Keep the chunks that runs read on a disk near them; null: fetch them in each epoch that memory cannot hold."""

    rules = (
        Rule(
            "!self.anonymous || !has(self.secretRef)",
            "anonymous and secretRef exclude each other: remove one",
        ),
        Rule(
            "!has(self.cache) || (self.uri.contains('://') && !self.uri.startsWith('file:'))",
            "cache goes with a data set in object storage; uri is a folder: remove cache",
        ),
    )


class ArtifactsSpec(StoreSpec):
    """Where runs leave checkpoints, metrics and figures."""


class CrossValidationSpec(Model):
    """How often, and on which parts of the data, one configuration is trained."""

    folds: Annotated[int, Field(ge=1, le=100)] = 5
    """How many folds the train part is cut into."""
    run_folds: Annotated[int, Field(ge=1, le=100)] | None = None
    """How many of the folds are run, from the first on; null: all."""
    fold_method: FoldMethod = FoldMethod.REGION_STRATIFIED
    """How folds are cut; None trains and validates on the whole train part (folds must be 1)."""
    seeds: (
        Annotated[list[Seed], Field(min_length=1, max_length=30, json_schema_extra={"x-kubernetes-list-type": "set"})]
        | None
    ) = None
    """Seeds, 0 to 9999: each fold is run once per seed. Excludes randomSeeds; neither means [42]."""
    random_seeds: Annotated[int, Field(ge=1, le=30)] | None = None
    """Number of seeds to use: 42, 21, 69, then a fixed pseudo-random sequence. Excludes seeds."""

    rules = (
        Rule("!(has(self.seeds) && has(self.randomSeeds))", "seeds and randomSeeds exclude each other: remove one"),
        Rule(
            "(self.foldMethod == 'None') == (self.folds == 1)",
            "foldMethod None goes with folds 1, and folds 1 with foldMethod None",
        ),
        Rule("!has(self.runFolds) || self.runFolds <= self.folds", "runFolds must not exceed folds"),
        Rule(
            "(has(self.runFolds) ? self.runFolds : self.folds)"
            " * (has(self.seeds) ? size(self.seeds) : (has(self.randomSeeds) ? self.randomSeeds : 1)) <= 300",
            "folds run times seeds must not exceed 300: lower runFolds or the number of seeds",
        ),
    )

    @property
    def resolved_seeds(self) -> tuple[int, ...]:
        """The seeds in the order in which they run."""
        if self.seeds is not None:
            return tuple(self.seeds)
        return seed_sequence(self.random_seeds or 1)

    @property
    def units(self) -> tuple[tuple[int, int], ...]:
        """Every (fold, seed) in the order in which they run: all folds of the first seed, then the next seed."""
        folds = self.folds if self.run_folds is None else self.run_folds
        return tuple((fold, seed) for seed in self.resolved_seeds for fold in range(folds))


def seed_sequence(n: int) -> tuple[int, ...]:
    """The first n seeds: 42, 21, 69, then ``Random(42).sample(range(9999), n - 3)``."""
    if n <= len(FIRST_SEEDS):
        return FIRST_SEEDS[:n]
    return (*FIRST_SEEDS, *Random(42).sample(range(9999), n - len(FIRST_SEEDS)))


class ObjectiveMetric(Model):
    """One metric of the objective."""

    name: Annotated[str, Field(min_length=5, max_length=63, pattern=r"^val/[A-Za-z][A-Za-z0-9_]*$")]
    """Validation metric, such as val/JaccardIndex or val/Recall."""
    direction: Direction | None = None
    """Maximize or Minimize; null: the metric's own direction, where the metric is a known one."""

    rules = (
        Rule(
            f"has(self.direction) || self.name in {json.dumps(list(KNOWN_OBJECTIVES)).replace(chr(34), chr(39))}",
            "a metric that Crossfold does not know must say its direction: add direction: Maximize or Minimize",
        ),
    )

    @property
    def resolved_direction(self) -> Direction:
        """The direction that counts.

        Raises:
            ValueError: the metric is unknown and says no direction.
        """
        if self.direction is not None:
            return self.direction
        info = metric_info(self.name)
        if info is None:
            raise ValueError(f"metric {self.name} is unknown and must say its direction")
        return info.direction


class ObjectiveSpec(Model):
    """What a run is scored by."""

    metrics: Annotated[
        list[ObjectiveMetric],
        Field(
            min_length=1,
            max_length=8,
            json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"]},
        ),
    ]
    """Validation metrics that make the score, at least one."""
    combine: Combine = Combine.HARMONIC
    """How several metrics make one score: Harmonic, Arithmetic or Geometric mean, or Min; unused with one metric."""


class LossTerm(Model):
    """A term of a weighted sum of losses."""

    loss: Loss
    """Focal, BCE, Dice, Jaccard, Lovasz or Tversky."""
    weight: Annotated[float, Field(gt=0, le=1e6)] = 1.0
    """What the loss is multiplied with, above 0."""

    rules = (Rule("self.loss != 'Sum'", "a sum has no Sum among its losses: name another loss"),)


class TrainerSpec(Model):
    """How long and how often: settings of the training loop that are not hyperparameters."""

    max_epochs: Annotated[int, Field(ge=1, le=100_000)] = 100
    """Epochs after which training ends."""
    early_stopping_patience: Annotated[int, Field(ge=1, le=100_000)] | None = 5
    """Validations without a better score after which training ends; null: never."""
    check_val_every_n_epoch: Annotated[int, Field(ge=1, le=100_000)] = 3
    """Epochs from one validation to the next; the last epoch is always validated."""
    plot_every_n_val_epochs: Annotated[int, Field(ge=0, le=100_000)] = 5
    """Validations from one set of sample figures to the next; 0: only the kept epoch's."""
    log_every_n_steps: Annotated[int, Field(ge=1, le=100_000)] = 10
    """Optimiser steps from one logged training loss to the next."""
    weights_from_checkpoint: Uri | None = None
    """A run's checkpoints/best.ckpt (a URI, read as artifacts are) whose weights training starts from; null: none."""
    loss: Loss = Loss.FOCAL
    """Focal, BCE (cross-entropy where there are several classes), Dice, Jaccard, Lovasz, Tversky, or Sum of lossSum."""
    loss_sum: Annotated[
        list[LossTerm],
        Field(
            max_length=6,
            json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["loss"]},
        ),
    ] = []
    """Terms of loss Sum, each loss at most once: their values are multiplied with their weights and added."""
    tversky_alpha: Annotated[float, Field(ge=0, le=10)] = 0.3
    """Weight of false positives in Tversky."""
    tversky_beta: Annotated[float, Field(ge=0, le=10)] = 0.7
    """Weight of false negatives in Tversky."""
    scheduler: Scheduler = Scheduler.EXPONENTIAL
    """Exponential (times gamma after each epoch), Cosine (down to 0 in maxEpochs) or OneCycle (up, then down)."""
    gradient_clip: Annotated[float, Field(gt=0, le=1e6)] | None = None
    """Greatest norm of the gradients of a step, all parameters together; null: not clipped."""
    num_workers: Annotated[int, Field(ge=0, le=64)] = 0
    """Threads that decode patches; 0: one for each CPU of the pod, at most 8."""
    in_memory: InMemory = InMemory.AUTO
    """Auto keeps the patches of the run in memory where they take at most 40 % of its limit; Always, or Never."""
    limit_train_batches: Annotated[int, Field(ge=1, le=1_000_000)] | None = None
    """Train on at most this many batches per epoch, but one step (for trying things out); null: all."""
    limit_val_batches: Annotated[int, Field(ge=1, le=1_000_000)] | None = None
    """Validate on at most this many batches (for trying things out); null: all."""
    checkpoint_every_n_epochs: Annotated[int, Field(ge=1, le=100_000)] | None = None
    """Epochs from one checkpoint to the next; null: at validations, where one is always saved, and by the clock."""
    checkpoint_every_minutes: Annotated[float, Field(gt=0, le=10_080)] | None = 10.0
    """Minutes after which a checkpoint is saved inside an epoch too; null: never."""
    accumulate_grad_batches: Annotated[int, Field(ge=1, le=1024)] = 1
    """Batches whose gradients make one optimiser step: it counts batch_size times this many patches."""
    devices: Annotated[int, Field(ge=1, le=16)] = 1
    """Processes that train together in one pod, one a GPU (template.resources must ask for as many), each on its share
    of every batch: batch_size, steps and results stay what they are on one device."""
    nodes: Annotated[int, Field(ge=1, le=64)] = 1
    """Pods that train together, each with all of template.resources and so many devices; an Indexed Job."""
    strategy: Strategy = Strategy.AUTO
    """Auto and DDP keep the whole model on each device, FSDP shards weights, gradients and optimiser over all devices:
    for a model that does not fit otherwise."""
    precision: Precision = Precision.AUTO
    """Auto (BF16Mixed on a GPU that has it, else FP32), FP32 (no TF32 either), BF16Mixed or FP16Mixed (GPU only)."""
    compile: bool = False
    """Compile the model (torch.compile): a slow first step, faster ones after it; the image needs a C++ compiler."""
    cuda_graphs: bool = True
    """Hand a GPU a whole step at once, once a few have run (on one device, with neither compile nor FP16Mixed); steps
    and results stay the same. It keeps the memory of a step; false: one operation at a time."""
    deterministic: bool = False
    """Use only operations that repeat bit for bit on the same kind of GPU; slower, and some models have none."""
    detect_anomaly: bool = False
    """Stop with a traceback at the operation that makes a NaN in the backward pass; slow."""

    rules = (
        Rule(
            "!self.compile || self.devices * self.nodes == 1",
            "compile works on one device: set compile to false, or devices and nodes to 1",
        ),
        Rule(
            "self.strategy != 'FSDP' || self.devices * self.nodes > 1",
            "FSDP shards a model over several devices: raise devices or nodes, or set strategy to Auto",
        ),
        Rule(
            "self.loss == 'Sum' ? (has(self.lossSum) && size(self.lossSum) >= 2)"
            " : (!has(self.lossSum) || size(self.lossSum) == 0)",
            "lossSum goes with loss Sum, and must then list at least two losses",
        ),
    )

    @property
    def processes(self) -> int:
        """Processes that train together, all nodes counted."""
        return self.devices * self.nodes


class WandbMode(StrEnum):
    """Whether Weights & Biases is reached while a run trains."""

    ONLINE = "Online"
    OFFLINE = "Offline"


SecretName = Annotated[str, Field(min_length=1, max_length=253, pattern=r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$")]
TrackedName = Annotated[str, Field(max_length=128, pattern=r"^[^/\\#?%:\s]*$")]


class WandbSecretRef(Model):
    """A Secret in the same namespace."""

    name: SecretName
    """Name of the Secret; its key is WANDB_API_KEY."""


class MlflowSecretRef(Model):
    """A Secret in the same namespace."""

    name: SecretName
    """Name of the Secret; keys: MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or MLFLOW_TRACKING_TOKEN."""


class WandbSpec(Model):
    """Weights & Biases: the Tune is the group, the CrossValidation the job type, the TrainRun the name."""

    project: Annotated[TrackedName, Field(min_length=1)]
    """Project that runs go to."""
    entity: TrackedName = ""
    """User or team that owns the project; empty: the key's own."""
    mode: WandbMode = WandbMode.ONLINE
    """Online, or Offline: the run is written beside its artifacts, for `wandb sync` to take."""
    base_url: Annotated[str, Field(max_length=253, pattern=r"^(https?://\S+)?$")] = ""
    """URL of a self-hosted server; empty: the public one."""
    secret_ref: WandbSecretRef | None = None
    """Secret with the key, mounted into the pod as a file."""

    rules = (
        Rule(
            "self.mode != 'Offline' || !has(self.secretRef)",
            "mode Offline needs no key: remove secretRef, or set mode: Online",
        ),
    )


class AimSpec(Model):
    """Aim, on a server of one's own: the TrainRun is the run's name."""

    uri: Annotated[str, Field(min_length=1, max_length=253, pattern=r"^aim://[^/\s]+$")]
    """The server, such as aim://aim.tools.svc:53800."""
    experiment: Annotated[str, Field(max_length=128)] = ""
    """Experiment that runs go to; empty: the name of the Tune or of the CrossValidation."""


class MlflowSpec(Model):
    """MLflow, on a tracking server: the TrainRun is the run's name."""

    tracking_uri: Annotated[str, Field(min_length=1, max_length=253, pattern=r"^https?://\S+$")]
    """The server, such as http://mlflow.tools.svc:5000."""
    experiment: Annotated[str, Field(max_length=128)] = ""
    """Experiment that runs go to; empty: the name of the Tune or of the CrossValidation."""
    secret_ref: MlflowSecretRef | None = None
    """Secret with the credentials, mounted into the pod as files."""


class TrackingSpec(Model):
    """Where a run reports to while it trains, beside metrics.csv. None of it can fail a run or hold it up."""

    tensorboard: bool = True
    """Write TensorBoard events beside the artifacts: numbers, pictures, hyperparameters."""
    graph: bool = False
    """Write the model's graph for TensorBoard too, which takes seconds at the end of a run."""
    wandb: WandbSpec | None = None
    """Report to Weights & Biases; null: do not."""
    aim: AimSpec | None = None
    """Report to an Aim server; null: do not."""
    mlflow: MlflowSpec | None = None
    """Report to an MLflow server; null: do not."""

    rules = (
        Rule(
            "!self.graph || self.tensorboard",
            "graph is written for TensorBoard: set tensorboard: true, or graph: false",
        ),
    )

    @property
    def secrets(self) -> dict[str, str]:
        """Names of the trackers' Secrets, by tracker."""
        found = {"wandb": self.wandb and self.wandb.secret_ref, "mlflow": self.mlflow and self.mlflow.secret_ref}
        return {tracker: reference.name for tracker, reference in found.items() if reference}


class RunConfig(Model):
    """All that one trainer container needs to know. Handed over as JSON in CROSSFOLD_CONFIG."""

    api_version: Literal["crossfold.dev/v1alpha1"] = "crossfold.dev/v1alpha1"
    """Version of the API that wrote this."""
    run: Name
    """Name of the TrainRun."""
    namespace: Name = "default"
    """Namespace of the TrainRun."""
    tune: ShortText = ""
    """Name of the Tune at the root; empty: none."""
    cross_validation: ShortText = ""
    """Name of the CrossValidation above; empty: none."""
    root: ShortText = ""
    """The uid of the Tune, or of the CrossValidation where it is the root: whose tables the result enters."""
    trial: Annotated[int, Field(ge=0)] | None = None
    """Number of the trial; null: it is none of a Tune."""
    runs: Annotated[int, Field(ge=0)] = 0
    """Runs that the complete CrossValidation has; 0: there is none above."""
    fold: Annotated[int, Field(ge=0, le=99)] = 0
    """Which fold is held out for validation."""
    seed: Seed = 42
    """Seeds the folds, the weights and the order of the batches."""
    folds: Annotated[int, Field(ge=1, le=100)] = 5
    """How many folds the train part is cut into."""
    fold_method: FoldMethod = FoldMethod.REGION_STRATIFIED
    """How folds are cut."""
    hyperparameters: dict[str, JsonValue] = {}
    """Hyperparameters by name; what is not here has its default."""
    objective: ObjectiveSpec
    """What the run is scored by."""
    data: DataSpec
    """The data set."""
    trainer: TrainerSpec = TrainerSpec()
    """Settings of the training loop."""
    artifacts: ArtifactsSpec
    """Where artifacts go: below its uri, in artifact_path."""
    artifact_path: Annotated[str, Field(max_length=1024)] = ""
    """Folder of this run below artifacts.uri: namespace/tune/cv/run-id."""
    tracking: TrackingSpec = TrackingSpec()
    """Where the run reports to."""
    curve_epochs: CurveEpochs = []
    """Epochs, counted from 1, at which the run's scores so far are told; nothing of training depends on it."""
    digest: ShortText = ""
    """configDigest, as the operator computed it."""
    owner: ShortText = ""
    """The TrainRun's uid: attempts are counted anew for each."""
    attempt: Annotated[int, Field(ge=1, le=1000)] = 1
    """Which attempt of the TrainRun this is; an earlier one of the same owner never takes over from a later one."""
    out_of_memory: OutOfMemoryPolicy = OutOfMemoryPolicy.FAIL
    """Fail and Constrain end the run; HalveBatch: go on with half as many patches on the accelerator at a time."""
    grace_period_seconds: Annotated[int, Field(ge=1, le=3600)] = 120
    """Seconds from SIGTERM to SIGKILL: how long uploads may take then."""

    @model_validator(mode="after")
    def _fold_exists(self) -> Self:
        if self.fold >= self.folds:
            raise ValueError(f"fold {self.fold} does not exist: there are {self.folds} (0 to {self.folds - 1})")
        return self

    @property
    def artifact_uri(self) -> str:
        """The run's own folder."""
        return f"{self.artifacts.uri.rstrip('/')}/{self.artifact_path}".rstrip("/")


_TRAINER_UNSCORED = {
    "plot_every_n_val_epochs",
    "log_every_n_steps",
    "num_workers",
    "in_memory",
    "checkpoint_every_n_epochs",
    "checkpoint_every_minutes",
    "devices",
    "cuda_graphs",
    "nodes",
    "strategy",
}
"""Trainer settings that change what is seen or how fast it comes, never the score."""


def config_digest(config: RunConfig) -> str:
    """SHA-256 (hex) over the fields of a RunConfig that affect the score, defaults left out.

    A new field with a default therefore leaves every digest as it was. Names, places of artifacts,
    credentials and tracking do not count.

    Raises:
        ValueError: a hyperparameter is unknown or its value does not fit.
    """
    content: dict[str, Any] = config.model_dump(
        mode="json",
        exclude_defaults=True,
        include={
            "fold": True,
            "seed": True,
            "folds": True,
            "fold_method": True,
            "objective": True,
            "data": {"uri", "endpoint", "subsample", "split"},
            "trainer": set(TrainerSpec.model_fields) - _TRAINER_UNSCORED,
        },
    )
    content["objective"] = {
        "metrics": [{"name": m.name, "direction": m.resolved_direction.value} for m in config.objective.metrics],
        **({"combine": config.objective.combine.value} if len(config.objective.metrics) > 1 else {}),
    }
    content = {key: value for key, value in content.items() if value != {}}
    content["hyperparameters"] = hp.non_default(config.hyperparameters)
    canonical = json.dumps(content, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(canonical.encode()).hexdigest()


def with_digest(config: RunConfig, parent: str) -> RunConfig:
    """Fill in digest and artifact_path (``parent/run-id``, id = the digest's first 12 characters)."""
    digest = config_digest(config)
    path = "/".join(part for part in (parent.strip("/"), run_folder(config.run, digest)) if part)
    return config.model_copy(update={"digest": digest, "artifact_path": path})


def run_folder(run: str, digest: str) -> str:
    """Name of a run's folder among the artifacts: ``run-id``."""
    return f"{run}-{digest[:12]}"
