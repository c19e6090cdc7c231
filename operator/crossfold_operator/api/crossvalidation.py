"""CrossValidation: one configuration on every fold with every seed."""

from typing import Annotated, ClassVar

from pydantic import Field

from crossfold_operator.api.fields import (
    MUTABLE,
    PARTLY_MUTABLE,
    Conditions,
    Count,
    Decimal,
    MetricSummary,
    NamedValue,
    RetriesSpec,
    Text,
    Timestamp,
    Usage,
    named_list,
)
from crossfold_operator.api.pruning import CurveRecords, RunLookSpec
from crossfold_operator.api.racing import LookSpec
from crossfold_operator.api.template import TemplateSpec
from crossfold_operator.api.trainrun import DecimalMap, RunTemplate, StopSpec
from crossfold_operator.names import CrossValidationPhase, TrainRunPhase
from crossfold_trainer.contract.base import Model, Rule, ShortText
from crossfold_trainer.contract.crossvalidation import CrossValidationSpec as FoldsAndSeeds


class RootSpec(RunTemplate):
    """What a Tune and a CrossValidation share: the runs below them, and how many at a time."""

    cross_validation: FoldsAndSeeds = FoldsAndSeeds()
    """Folds and seeds of every trial."""
    template: Annotated[TemplateSpec, Field(json_schema_extra=PARTLY_MUTABLE)] = TemplateSpec()
    """The pods that train; a trial of a Tune takes the Tune's."""
    retries: Annotated[RetriesSpec, Field(json_schema_extra=MUTABLE)] = RetriesSpec()
    """How often a run is tried again, for runs not yet created."""
    parallelism: Annotated[int, Field(ge=1, le=10_000, json_schema_extra=MUTABLE)] = 1
    """TrainRuns in flight, all trials together; a trial of a Tune counts in the Tune's."""
    suspend: Annotated[bool, Field(json_schema_extra=MUTABLE)] = False
    """Pauses: nothing new starts, running Jobs are checkpointed and stopped; false goes on from there."""


class TrialStopSpec(StopSpec):
    """Ends a trial before its time; once set it stays."""

    time: Timestamp | None = None
    """When it was decided, where the operator decided it."""
    look: LookSpec | None = None
    """The numbers of the decision, where racing made it."""
    run_look: RunLookSpec | None = None
    """The numbers of the decision, where pruning made it."""

    rules = (
        Rule(
            "self.reason != 'Pruned' || (has(self.time) && has(self.look) != has(self.runLook))",
            "reason Pruned is the operator's, and comes with time and either look or runLook: use reason Stopped",
        ),
    )


class AuditSpec(Model):
    """A decision of racing or pruning that is not carried out, so that it can be checked."""

    time: Timestamp
    """When it was made."""
    message: Text
    """Why, with the numbers."""
    look: LookSpec | None = None
    """The numbers, where racing made it."""
    run_look: RunLookSpec | None = None
    """The numbers, where pruning made it."""

    rules = (Rule("has(self.look) != has(self.runLook)", "audit has either look or runLook: it is the operator's"),)


class CrossValidationSpec(RootSpec):
    """One configuration, and the folds and seeds it is trained on."""

    hyperparameters: Annotated[list[NamedValue], named_list(128)] = []
    """Hyperparameters; what is not here has its default."""
    stop: Annotated[TrialStopSpec, Field(json_schema_extra=MUTABLE)] | None = None
    """Ends the trial: no further run starts and those in flight are stopped."""
    audit: Annotated[AuditSpec, Field(json_schema_extra=MUTABLE)] | None = None
    """The trial would have been pruned, and runs to its end all the same to measure how often that is wrong."""

    rules = (
        Rule(
            "!has(self.retries) || !has(self.retries.outOfMemory) || self.retries.outOfMemory != 'Constrain'",
            "retries.outOfMemory Constrain goes with a Tune, whose search learns from it: use Fail or HalveBatch",
        ),
    )


class RunRecord(Model):
    """A run that was created, in brief."""

    fold: Count
    """Its fold."""
    seed: Count
    """Its seed."""
    run: Annotated[str, Field(max_length=63)]
    """Name of the TrainRun."""
    phase: TrainRunPhase
    """Its phase."""
    score: Decimal | None = None
    """Its score."""
    stable: bool | None = None
    """Whether the score may be compared."""
    values: DecimalMap = {}
    """The objective's metrics."""
    curve: CurveRecords = []
    """Its scores at some epochs, where runs are looked into."""
    preemptions: Count = 0
    """Attempts that were interrupted."""
    failure_class: Annotated[str, Field(max_length=32)] = ""
    """Class of its failure, when it failed."""
    message: Annotated[str, Field(max_length=512)] = ""
    """Why it failed or is not stable, shortened."""
    data_digest: Annotated[str, Field(max_length=64)] = ""
    """Digest of the data set that it read."""
    usage: Usage = Usage()
    """What it used."""


class CrossValidationSummary(Model):
    """Texts for printer columns."""

    runs: ShortText = ""
    """Succeeded of expected runs."""
    score: ShortText = ""
    """Mean score."""
    std: ShortText = ""
    """Standard deviation of the scores."""
    gpu: ShortText = ""
    """GPU-hours."""
    reason: ShortText = ""
    """Why it is in this phase."""


class CrossValidationStatus(Model):
    """What became of the runs."""

    observed_generation: Count | None = None
    """Generation of the spec that was last acted on."""
    phase: CrossValidationPhase = CrossValidationPhase.PENDING
    """One word for people: Pending, Running, Suspended, Complete, Pruned, Stopped, Unstable or Failed."""
    conditions: Conditions = []
    """Valid, Suspended, Degraded, Complete, Failed."""
    image: Annotated[str, Field(max_length=512)] = ""
    """Trainer image of all runs, resolved once."""
    data_digest: Annotated[str, Field(max_length=64)] = ""
    """Digest of the data set; the same for all runs."""
    score: Decimal | None = None
    """Mean score of the runs that have one."""
    std: Decimal | None = None
    """Sample standard deviation of those scores."""
    stable: bool = False
    """Every expected run succeeded with a score that may be compared."""
    metrics: Annotated[dict[str, MetricSummary], Field(max_length=64)] = {}
    """The objective's metrics over the runs."""
    expected: Count = 0
    """Runs of a full cross-validation: folds run times seeds."""
    succeeded: Count = 0
    """Runs that succeeded."""
    failed: Count = 0
    """Runs that failed."""
    unstable: Count = 0
    """Runs that succeeded without a score that may be compared."""
    running: Count = 0
    """Runs in flight."""
    preemptions: Count = 0
    """Attempts of all runs that were interrupted."""
    runs: Annotated[list[RunRecord], Field(max_length=300)] = []
    """Every run that was created, in the order of folds and seeds."""
    artifact_uri: Annotated[str, Field(max_length=2048)] = ""
    """The folder of the runs."""
    end_time: Timestamp | None = None
    """When its latest attempt that has ended did so."""
    usage: Usage = Usage()
    """What the runs used."""
    summary: CrossValidationSummary = CrossValidationSummary()
    """Texts for printer columns."""


class CrossValidation(Model):
    """One configuration on every fold with every seed; alone, or a trial of a Tune."""

    spec: CrossValidationSpec
    """What is wanted."""
    status: CrossValidationStatus | None = None
    """What is."""

    max_name: ClassVar[int] = 47
    short_name: ClassVar[str] = "cv"
    columns: ClassVar[tuple[tuple[str, ...], ...]] = (
        ("Phase", "string", ".status.phase"),
        ("Runs", "string", ".status.summary.runs"),
        ("Score", "string", ".status.summary.score"),
        ("Std", "string", ".status.summary.std"),
        ("GPU", "string", ".status.summary.gpu"),
        ("Reason", "string", ".status.summary.reason", "wide"),
        ("Age", "date", ".metadata.creationTimestamp"),
    )
