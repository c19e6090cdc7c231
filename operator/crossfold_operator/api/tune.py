"""Tune: a search for the configuration with the best cross-validated score."""

from enum import StrEnum
from typing import Annotated, Any, ClassVar

from pydantic import Field

from crossfold_operator.api.algorithm import AlgorithmSpec
from crossfold_operator.api.crossvalidation import RootSpec
from crossfold_operator.api.fields import (
    MUTABLE,
    PARTLY_MUTABLE,
    Conditions,
    Count,
    Decimal,
    MetricSummary,
    NamedValue,
    Timestamp,
    Usage,
    named_list,
)
from crossfold_operator.api.parameters import InitialTrial, ParameterSpec, ParameterValue
from crossfold_operator.api.pruning import PruningSpec
from crossfold_operator.api.racing import RacingSpec
from crossfold_operator.api.stopping import BudgetSpec, EarlyStoppingSpec
from crossfold_operator.names import MOST_TRIALS, TunePhase
from crossfold_trainer.contract.base import Model, Rule, ShortText


class WarmStartSpec(Model):
    """A finished Tune whose trials inform the search."""

    name: Annotated[str, Field(min_length=1, max_length=40)]
    """Name of the Tune, in the same namespace."""


class TuneSpec(RootSpec):
    """A search space, an objective, and how much to spend."""

    parameters: Annotated[list[ParameterSpec], named_list(64), Field(min_length=1)]
    """The search space."""
    fixed: Annotated[list[NamedValue], named_list(64)] = []
    """Hyperparameters that do not vary."""
    algorithm: AlgorithmSpec = AlgorithmSpec()
    """How parameters are chosen."""
    initial_trials: Annotated[
        list[InitialTrial], Field(max_length=100, json_schema_extra={"x-kubernetes-list-type": "atomic"})
    ] = []
    """Trials to ask first, in this order."""
    warm_start: Annotated[list[WarmStartSpec], named_list(10)] = []
    """Finished Tunes whose trials inform the search; it begins when all of them have finished."""
    max_trials: Annotated[int, Field(ge=1, le=MOST_TRIALS, json_schema_extra=MUTABLE)] = 20
    """Trials to ask for. Set below the number asked, nothing new starts and what runs finishes."""
    max_failed_trials: Annotated[int, Field(ge=0, le=10_000, json_schema_extra=MUTABLE)] | None = None
    """Failed trials that are put up with: one more fails the Tune; null: 10, or maxTrials - 1 when that is less.
    Trials that did not fit into the accelerator's memory do not count under retries.outOfMemory Constrain, as long as
    there is one that did."""
    target: Annotated[float, Field(ge=-1e9, le=1e9, json_schema_extra=MUTABLE)] | None = None
    """Score that is good enough: the first trial that reaches it ends the search."""
    early_stopping: Annotated[EarlyStoppingSpec, Field(json_schema_extra=MUTABLE)] | None = None
    """Ends the search when it no longer finds anything better; null: never."""
    budget: Annotated[BudgetSpec, Field(json_schema_extra=MUTABLE)] | None = None
    """What may be spent; null: whatever maxTrials takes."""
    racing: Annotated[RacingSpec, Field(json_schema_extra=PARTLY_MUTABLE)] = RacingSpec()
    """Stops the remaining runs of trials that would not become the best; on by default."""
    pruning: PruningSpec = PruningSpec()
    """Ends trials in the middle of their first run; off by default."""

    rules = (
        Rule(
            "self.pruning.method == 'None' || !has(self.pruning.minEpochs)"
            " || (self.pruning.minEpochs + self.trainer.checkValEveryNEpoch - 1) / self.trainer.checkValEveryNEpoch"
            " * self.trainer.checkValEveryNEpoch < self.trainer.maxEpochs",
            "pruning needs a validation from minEpochs on that is not the last: lower pruning.minEpochs or"
            " trainer.checkValEveryNEpoch, or raise trainer.maxEpochs",
        ),
        Rule(
            "!has(self.maxFailedTrials) || self.maxFailedTrials <= self.maxTrials",
            "maxFailedTrials must not exceed maxTrials",
        ),
        Rule(
            "self.algorithm.name != 'Grid' || self.parameters.all(p, p.type == 'Categorical' || has(p.step))",
            "algorithm Grid needs every parameter to be Categorical or to have a step",
        ),
        Rule(
            "self.algorithm.name != 'CMAES' || self.parameters.exists(p, p.type != 'Categorical')",
            "algorithm CMAES needs a Float or Int parameter: use TPE where all are Categorical",
        ),
        Rule(
            "!has(self.retries) || !has(self.retries.outOfMemory) || self.retries.outOfMemory != 'Constrain'"
            " || self.algorithm.name in ['TPE', 'GP', 'CMAES']",
            "retries.outOfMemory Constrain needs an algorithm that learns: use TPE, GP or CMAES, or Fail or HalveBatch",
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


class DecisionAction(StrEnum):
    """What racing or pruning did about a trial."""

    PRUNED = "Pruned"
    AUDITED = "Audited"


class TrialCounts(Model):
    """Trials, by what became of them."""

    asked: Count = 0
    """Trials that got their parameters."""
    running: Count = 0
    """Trials under way."""
    complete: Count = 0
    """Trials with a score."""
    pruned: Count = 0
    """Trials that racing or pruning stopped."""
    stopped: Count = 0
    """Trials that were stopped by a person or since the search ended."""
    unstable: Count = 0
    """Trials with a run whose score may not be compared."""
    failed: Count = 0
    """Trials with a failed run, and trials that were deleted."""
    out_of_memory: Count = 0
    """Failed ones with a run that did not fit into the accelerator's memory. Under retries.outOfMemory Constrain they
    do not count towards maxFailedTrials, once a trial has fitted."""


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
    skipped: Count = 0
    """Never started, since their trial was pruned."""
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

    parameters: Annotated[list[ParameterValue], named_list(64)] = []
    """Its parameters; one without a value is null."""
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
    """GPU-hours of all attempts, those that run included."""
    saved: ShortText = ""
    """Share of the planned runs of the trials so far that were not needed, since their trial was pruned."""
    eta: ShortText = ""
    """Time that the trials to come take at the pace so far."""
    objective: ShortText = ""
    """What is optimised."""
    reason: ShortText = ""
    """Why it is in this phase."""


class WarmStartStatus(Model):
    """The trials of other Tunes."""

    trials: Count = 0
    """Trials that inform the search."""
    unfit: Count = 0
    """Trials that do not fit it."""
    message: Annotated[str, Field(max_length=1024)] = ""
    """Why they do not."""


class SearchStatus(Model):
    """What chose the parameters."""

    sampler: ShortText = ""
    """The sampler, and the version of Optuna."""
    history_digest: Annotated[str, Field(max_length=64)] = ""
    """SHA-256 over all that the sampler is told of the trials so far: with the spec it determines the next one."""
    warm_start: WarmStartStatus | None = None
    """The trials of other Tunes that the search starts from."""
    exhausted: bool = False
    """The space has no further point."""


class WallClock(Model):
    """The time in which at least one run trained."""

    seconds: Count = 0
    """Of such times that have ended."""
    running_since: Timestamp | None = None
    """When the one that lasts began."""
    idle_since: Timestamp | None = None
    """When the last one ended."""


class LastDecision(Model):
    """What racing or pruning decided last."""

    trial: Count
    """Number of the trial."""
    action: DecisionAction
    """Pruned: its remaining runs were stopped; Audited: it would have been pruned, and runs to its end as a sample."""
    time: Timestamp
    """When it was decided."""
    message: Annotated[str, Field(max_length=1024)] = ""
    """Why, with the numbers."""


class AuditStatus(Model):
    """How often pruning was wrong, measured on trials that ran to their end although they would have been pruned."""

    checked: Count = 0
    """Such trials that are complete."""
    would_have_won: Count = 0
    """Those of them that beat the bar they were measured against."""


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
    """What the attempts that have ended used."""
    wall_clock: WallClock = WallClock()
    """Time in which runs trained."""
    last_decision: LastDecision | None = None
    """What racing or pruning decided last."""
    audit: AuditStatus | None = None
    """How often racing was wrong, where spec.racing.audit is not 0."""
    pruning_audit: AuditStatus | None = None
    """How often pruning was wrong, where spec.pruning.audit is not 0."""
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
        ("Pruned", "integer", ".status.trials.pruned"),
        ("Failed", "integer", ".status.trials.failed"),
        ("GPU", "string", ".status.summary.gpu"),
        ("Saved", "string", ".status.summary.saved"),
        ("ETA", "string", ".status.summary.eta"),
        ("Objective", "string", ".status.summary.objective", "wide"),
        ("Algorithm", "string", ".spec.algorithm.name", "wide"),
        ("Reason", "string", ".status.summary.reason", "wide"),
        ("Age", "date", ".metadata.creationTimestamp"),
    )
