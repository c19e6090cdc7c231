"""TrainRun: one training of one configuration on one fold with one seed."""

from enum import StrEnum
from typing import Annotated, ClassVar

from pydantic import Field

from crossfold_operator.api.fields import (
    MUTABLE,
    Conditions,
    Count,
    Decimal,
    NamedValue,
    RetriesSpec,
    Timestamp,
    Usage,
    named_list,
)
from crossfold_operator.api.pruning import CurveRecords
from crossfold_operator.api.template import TemplateSpec
from crossfold_operator.names import TrainRunPhase
from crossfold_trainer.contract.base import Model, Rule, ShortText
from crossfold_trainer.contract.crossvalidation import FoldMethod, Seed
from crossfold_trainer.contract.curve import CurveEpochs
from crossfold_trainer.contract.data import ArtifactsSpec, DataSpec
from crossfold_trainer.contract.objective import ObjectiveSpec
from crossfold_trainer.contract.result import FailureClass
from crossfold_trainer.contract.tracking import TrackingSpec
from crossfold_trainer.contract.trainer import TrainerSpec

DecimalMap = Annotated[dict[str, Decimal], Field(max_length=64)]


class StopReason(StrEnum):
    """Why something was stopped before its end."""

    STOPPED = "Stopped"
    PRUNED = "Pruned"


class StopSpec(Model):
    """Ends an object before its time; once set it stays."""

    reason: StopReason
    """Stopped: by a person, or since the whole Tune ended. Pruned: by racing or pruning, for how its trial does."""
    message: Annotated[str, Field(max_length=1024)] = ""
    """Why, in a sentence."""


class RunTemplate(Model):
    """What a run needs besides its hyperparameters; the three kinds share it."""

    objective: ObjectiveSpec
    """What a run is scored by."""
    data: DataSpec
    """The data set."""
    trainer: TrainerSpec = TrainerSpec()
    """Settings of the training loop."""
    artifacts: ArtifactsSpec
    """Where runs leave checkpoints, metrics and figures."""
    tracking: TrackingSpec = TrackingSpec()
    """Where runs report to while they train."""


class TrainRunSpec(RunTemplate):
    """All that one training needs."""

    fold: Annotated[int, Field(ge=0, le=99)] = 0
    """Which fold is held out for validation, counted from 0."""
    seed: Seed = 42
    """Seeds the folds, the weights and the order of the batches."""
    folds: Annotated[int, Field(ge=1, le=100)] = 5
    """How many folds the train part is cut into."""
    fold_method: FoldMethod = FoldMethod.REGION_STRATIFIED
    """How folds are cut; None trains and validates on the whole train part (folds must be 1)."""
    hyperparameters: Annotated[list[NamedValue], named_list(128)] = []
    """Hyperparameters; what is not here has its default."""
    curve_epochs: CurveEpochs = []
    """Epochs, counted from 1, at which status.curve has a point: what runs are compared by while they train."""
    template: TemplateSpec = TemplateSpec()
    """The pods that train."""
    retries: RetriesSpec = RetriesSpec()
    """How often it is tried again."""
    stop: Annotated[StopSpec, Field(json_schema_extra=MUTABLE)] | None = None
    """Ends the run: its Job is deleted, a result that still arrives is recorded and not scored."""
    suspend: Annotated[bool, Field(json_schema_extra=MUTABLE)] = False
    """Pauses the run: its Job is checkpointed and deleted; false goes on from there."""

    rules = (
        Rule("self.fold < self.folds", "fold must be below folds: folds are counted from 0"),
        Rule(
            "(self.foldMethod == 'None') == (self.folds == 1)",
            "foldMethod None goes with folds 1, and folds 1 with foldMethod None",
        ),
    )


class FailureStatus(Model):
    """Why the last attempt that failed did so."""

    failure_class: Annotated[FailureClass, Field(alias="class")]
    """Infrastructure, OutOfMemory, HostOutOfMemory, Config, Timeout or Crash."""
    exit_code: int | None = None
    """Exit code of the container, where there is one."""
    message: Annotated[str, Field(max_length=2048)] = ""
    """What went wrong: the trainer's own words or the last lines of its log."""


class CurrentAttempt(Model):
    """The attempt that is under way."""

    attempt: Annotated[int, Field(ge=1)]
    """Its number, from 1."""
    start_time: Timestamp | None = None
    """When its container started."""
    seconds: Count = 0
    """Seconds that its container was seen running."""


class PerformanceStatus(Model):
    """How fast the last attempt trained, and what held it up."""

    device: Annotated[str, Field(max_length=128)] = ""
    """The accelerator's name; cpu without one."""
    data_wait_share: Decimal | None = None
    """Share of training in which it waited for data, in [0, 1]."""
    checkpoint_wait_share: Decimal | None = None
    """Share of the time since training began in which it waited for checkpoints, in [0, 1]."""
    device_utilisation: Decimal | None = None
    """Mean share of the time in which the GPU was at work, in [0, 1]."""
    peak_memory_bytes: Count | None = None
    """The most GPU memory that was taken at a time."""


class TrainRunSummary(Model):
    """Texts for printer columns."""

    score: ShortText = ""
    """The score (while it trains: the best so far), short."""
    epoch: ShortText = ""
    """The kept epoch of the epochs trained, counted from 1; while it trains: epochs trained, of all."""
    reason: ShortText = ""
    """Why it is in this phase."""


class TrainRunStatus(Model):
    """What became of the run."""

    observed_generation: Count | None = None
    """Generation of the spec that was last acted on."""
    phase: TrainRunPhase = TrainRunPhase.QUEUED
    """One word for people: Queued, Starting, Running, Preempted, Suspended, Succeeded, Stopped or Failed."""
    conditions: Conditions = []
    """Valid, Degraded, Complete, Failed."""
    image: Annotated[str, Field(max_length=512)] = ""
    """Trainer image, resolved once."""
    digest: Annotated[str, Field(max_length=64)] = ""
    """configDigest: SHA-256 over what affects the score."""
    job: Annotated[str, Field(max_length=63)] = ""
    """Name of the latest Job."""
    node: ShortText = ""
    """Node of the latest pod."""
    attempt: Count = 0
    """Number of the latest attempt, from 1."""
    ended: Count = 0
    """Attempts that have ended and are counted below."""
    end_time: Timestamp | None = None
    """When the latest of them ended."""
    current: CurrentAttempt | None = None
    """The attempt under way."""
    preemptions: Count = 0
    """Attempts that were interrupted; they are not failures."""
    crashes: Count = 0
    """Attempts that crashed."""
    infrastructure_failures: Count = 0
    """Attempts lost to infrastructure."""
    epoch: Count | None = None
    """Epochs trained so far."""
    step: Count | None = None
    """Optimiser steps done so far."""
    progress: Annotated[str, Field(max_length=8)] = ""
    """Share of all epochs that is trained, such as 12%; early stopping ends a run before 100%."""
    eta: Annotated[str, Field(max_length=16)] = ""
    """While it trains: time until the last epoch ends at the pace so far, such as 3h12m."""
    patches_per_second: Decimal | None = None
    """Patches trained per second of training."""
    performance: PerformanceStatus | None = None
    """How fast the last attempt trained, and what held it up; at the end."""
    score: Decimal | None = None
    """The run's score, at the kept epoch; while it trains: the best so far."""
    stable: bool | None = None
    """Whether the score may be compared."""
    outcome: Annotated[str, Field(max_length=16)] = ""
    """Trained, or Diverged."""
    values: DecimalMap = {}
    """The objective's metrics."""
    metrics: DecimalMap = {}
    """All other metrics, at the kept epoch (so far)."""
    epoch_of_score: Count | None = None
    """The kept epoch (so far), counted from 0."""
    curve: CurveRecords = []
    """Its scores at the epochs of spec.curveEpochs, as far as it came."""
    epochs: Count | None = None
    """Epochs trained."""
    ignored_pixels: Count | None = None
    """Pixels that were ignored for a NaN or infinite value (data.nonFinite: Ignore), of the patches that were read."""
    checkpoint_uri: Annotated[str, Field(max_length=2048)] = ""
    """The kept checkpoint."""
    artifact_uri: Annotated[str, Field(max_length=2048)] = ""
    """The run's folder."""
    data_digest: Annotated[str, Field(max_length=64)] = ""
    """Digest of the data set that was read."""
    splits_digest: Annotated[str, Field(max_length=64)] = ""
    """Digest of the membership of the parts."""
    failure: FailureStatus | None = None
    """The latest failure."""
    usage: Usage = Usage()
    """What the ended attempts used."""
    summary: TrainRunSummary = TrainRunSummary()
    """Texts for printer columns."""


class TrainRun(Model):
    """One training of one configuration on one fold with one seed; alone, or owned by a CrossValidation."""

    spec: TrainRunSpec
    """What is wanted."""
    status: TrainRunStatus | None = None
    """What is."""

    max_name: ClassVar[int] = 56
    short_name: ClassVar[str] = "tr"
    columns: ClassVar[tuple[tuple[str, ...], ...]] = (
        ("Phase", "string", ".status.phase"),
        ("Epoch", "string", ".status.summary.epoch"),
        ("Score", "string", ".status.summary.score"),
        ("Try", "integer", ".status.attempt"),
        ("Preempted", "integer", ".status.preemptions"),
        ("ETA", "string", ".status.eta", "wide"),
        ("Node", "string", ".status.node", "wide"),
        ("Reason", "string", ".status.summary.reason", "wide"),
        ("Age", "date", ".metadata.creationTimestamp"),
    )
