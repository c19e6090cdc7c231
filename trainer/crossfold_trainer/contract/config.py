"""The run's configuration: what the operator hands to a trainer, and its digest."""

import hashlib
import json
from enum import StrEnum
from typing import Annotated, Any, Literal, Self

from pydantic import Field, JsonValue, model_validator

from crossfold_trainer.contract import hyperparameters as hp
from crossfold_trainer.contract.base import Model, Name, ShortText
from crossfold_trainer.contract.crossvalidation import FoldMethod, Seed
from crossfold_trainer.contract.curve import CurveEpochs
from crossfold_trainer.contract.data import ArtifactsSpec, DataSpec
from crossfold_trainer.contract.objective import ObjectiveSpec
from crossfold_trainer.contract.tracking import TrackingSpec
from crossfold_trainer.contract.trainer import UNSCORED, TrainerSpec

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


class OutOfMemoryPolicy(StrEnum):
    """What a run does when the accelerator's memory does not suffice."""

    FAIL = "Fail"
    HALVE_BATCH = "HalveBatch"
    CONSTRAIN = "Constrain"


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
            "data": {"uri", "endpoint", "subsample", "split", "scale", "non_finite"},
            "trainer": set(TrainerSpec.model_fields) - UNSCORED,
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
