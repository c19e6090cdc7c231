"""Where a run reports to while it trains."""

from enum import StrEnum
from typing import Annotated

from pydantic import Field

from crossfold_trainer.contract.base import Model, Rule, SecretName


class WandbMode(StrEnum):
    """Whether Weights & Biases is reached while a run trains."""

    ONLINE = "Online"
    OFFLINE = "Offline"


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
