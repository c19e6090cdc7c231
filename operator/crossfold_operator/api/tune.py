"""Tune: a search for the configuration with the best cross-validated score."""

from enum import StrEnum
from typing import Annotated, Any, ClassVar

from pydantic import Field, JsonValue

from crossfold_operator.api.crossvalidation import RootSpec
from crossfold_operator.api.fields import (
    ANY_JSON,
    MUTABLE,
    Conditions,
    Count,
    Decimal,
    MetricSummary,
    NamedValue,
    Usage,
    named_list,
)
from crossfold_operator.api.parameters import ParameterSpec
from crossfold_operator.names import TunePhase
from crossfold_trainer.contract.base import Model, Rule
from crossfold_trainer.contract.config import ShortText


class AlgorithmName(StrEnum):
    """How parameters are chosen."""

    TPE = "TPE"
    RANDOM = "Random"
    GRID = "Grid"


class AlgorithmSpec(Model):
    """How parameters are chosen."""

    name: AlgorithmName = AlgorithmName.TPE
    """TPE (multivariate, with the running trials taken into account), Random, or Grid (every cell once)."""
    seed: Annotated[int, Field(ge=0, le=2**31 - 1)] = 42
    """Seed of the search: the same history gives the same parameters."""


class TuneSpec(RootSpec):
    """A search space, an objective, and how much to spend."""

    parameters: Annotated[list[ParameterSpec], named_list(64), Field(min_length=1)]
    """The search space."""
    fixed: Annotated[list[NamedValue], named_list(64)] = []
    """Hyperparameters that do not vary."""
    algorithm: AlgorithmSpec = AlgorithmSpec()
    """How parameters are chosen."""
    max_trials: Annotated[int, Field(ge=1, le=10_000, json_schema_extra=MUTABLE)] = 20
    """Trials to ask for. Set below the number asked, nothing new starts and what runs finishes."""
    max_failed_trials: Annotated[int, Field(ge=0, le=10_000, json_schema_extra=MUTABLE)] | None = None
    """Failed trials that are put up with: one more fails the Tune; null: 10, or maxTrials - 1 when that is less."""

    rules = (
        Rule(
            "!has(self.maxFailedTrials) || self.maxFailedTrials <= self.maxTrials",
            "maxFailedTrials must not exceed maxTrials",
        ),
        Rule(
            "self.algorithm.name != 'Grid' || self.parameters.all(p, p.type == 'Categorical' || has(p.step))",
            "algorithm Grid needs every parameter to be Categorical or to have a step",
        ),
        Rule(
            "!has(self.fixed) || self.fixed.all(f, !self.parameters.exists(p,"
            " p.name.replace('-', '_') == f.name.replace('-', '_')))",
            "a hyperparameter is either in parameters or in fixed, not in both",
        ),
    )

    @property
    def failed_trials_allowed(self) -> int:
        """Failed trials that are put up with."""
        if self.max_failed_trials is not None:
            return self.max_failed_trials
        return min(10, self.max_trials - 1)


class TrialCounts(Model):
    """Trials, by what became of them."""

    asked: Count = 0
    """Trials that got their parameters."""
    running: Count = 0
    """Trials under way."""
    complete: Count = 0
    """Trials with a score."""
    stopped: Count = 0
    """Trials that were stopped."""
    unstable: Count = 0
    """Trials with a run whose score may not be compared."""
    failed: Count = 0
    """Trials with a failed run, and trials that were deleted."""


class RunCounts(Model):
    """TrainRuns, by what became of them."""

    queued: Count = 0
    """Waiting for a node, an image, or for their next attempt."""
    running: Count = 0
    """Training."""
    succeeded: Count = 0
    """With a result."""
    failed: Count = 0
    """Without one, after all retries."""
    stopped: Count = 0
    """Stopped before their end."""
    preemptions: Count = 0
    """Attempts that were interrupted, all runs together."""


class TrialBrief(Model):
    """A complete trial, in brief."""

    trial: Count
    """Its number, from 0."""
    cross_validation: Annotated[str, Field(min_length=1, max_length=63)]
    """Name of its CrossValidation."""
    score: Decimal
    """Mean score over its runs."""
    std: Decimal
    """Sample standard deviation of the scores."""


class BestTrial(TrialBrief):
    """The trial with the best mean score."""

    parameters: Annotated[dict[str, JsonValue], Field(json_schema_extra={"type": "object", **ANY_JSON})] = {}
    """Its parameters."""
    metrics: Annotated[dict[str, MetricSummary], Field(max_length=64)] = {}
    """The objective's metrics over its runs."""
    artifact_uri: Annotated[str, Field(max_length=2048)] = ""
    """The folder of its runs."""


class TuneSummary(Model):
    """Texts for printer columns."""

    trials: ShortText = ""
    """Finished of wanted trials."""
    best: ShortText = ""
    """Mean and standard deviation of the best trial."""
    gpu: ShortText = ""
    """GPU-hours."""
    objective: ShortText = ""
    """What is optimised."""
    reason: ShortText = ""
    """Why it is in this phase."""


class SearchStatus(Model):
    """What chose the parameters."""

    sampler: ShortText = ""
    """The sampler, and the version of Optuna."""
    exhausted: bool = False
    """The space has no further point."""


class TuneStatus(Model):
    """What became of the search."""

    observed_generation: Count | None = None
    """Generation of the spec that was last acted on."""
    phase: TunePhase = TunePhase.PENDING
    """One word for people: Pending, Running, Suspended, Complete or Failed."""
    conditions: Conditions = []
    """Valid, Suspended, Degraded, Complete, Failed."""
    image: Annotated[str, Field(max_length=512)] = ""
    """Trainer image of all runs, resolved once."""
    data_digest: Annotated[str, Field(max_length=64)] = ""
    """Digest of the data set; the same for all runs."""
    search: SearchStatus = SearchStatus()
    """What chose the parameters."""
    trials: TrialCounts = TrialCounts()
    """Trials, counted."""
    runs: RunCounts = RunCounts()
    """TrainRuns, counted."""
    best: BestTrial | None = None
    """The best trial."""
    top: Annotated[list[TrialBrief], Field(max_length=10)] = []
    """The ten best trials, best first."""
    usage: Usage = Usage()
    """What all runs used."""
    summary: TuneSummary = TuneSummary()
    """Texts for printer columns."""


class Tune(Model):
    """A search for the configuration with the best cross-validated score."""

    spec: TuneSpec
    """What is wanted."""
    status: TuneStatus | None = None
    """What is."""

    max_name: ClassVar[int] = 40
    short_name: ClassVar[str] = "tn"
    scale: ClassVar[dict[str, Any]] = {
        "specReplicasPath": ".spec.parallelism",
        "statusReplicasPath": ".status.runs.running",
    }
    columns: ClassVar[tuple[tuple[str, ...], ...]] = (
        ("Phase", "string", ".status.phase"),
        ("Trials", "string", ".status.summary.trials"),
        ("Best", "string", ".status.summary.best"),
        ("Failed", "integer", ".status.trials.failed"),
        ("GPU", "string", ".status.summary.gpu"),
        ("Objective", "string", ".status.summary.objective", "wide"),
        ("Algorithm", "string", ".spec.algorithm.name", "wide"),
        ("Reason", "string", ".status.summary.reason", "wide"),
        ("Age", "date", ".metadata.creationTimestamp"),
    )
