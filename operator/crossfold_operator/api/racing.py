"""Racing: when a trial's remaining runs are not worth their price, as a person writes it and as it was decided."""

from enum import StrEnum
from typing import Annotated

from pydantic import Field

from crossfold_operator.api.fields import MUTABLE, Count
from crossfold_trainer.contract.base import Model


class RacingSpec(Model):
    """Stops the remaining runs of trials that would not become the best, with a bounded error."""

    enabled: bool = True
    """Whether trials are raced; false: every trial gets all its runs."""
    alpha: Annotated[float, Field(gt=0, le=0.5, json_schema_extra=MUTABLE)] = 0.05
    """Greatest accepted probability of pruning a trial that its complete cross-validation would make the best."""
    warmup_trials: Annotated[int, Field(ge=2, le=1000)] = 4
    """Completed trials before the first is pruned; with few folds more are needed (3 folds: 6, 2 folds: 11)."""
    min_delta: Annotated[float, Field(ge=0, le=1e9)] = 0
    """How much better than the best a trial must promise to be to go on, in units of the score."""
    audit: Annotated[float, Field(ge=0, le=1)] = 0
    """Share of the trials that run to the end although they would be pruned, to measure how often pruning is wrong."""


class LookRule(StrEnum):
    """What a look at a trial rests on."""

    EVIDENCE = "Evidence"
    BOUNDS = "Bounds"


class LookSpec(Model):
    """A look at a trial that found it not worth going on, with its numbers. Scores are in units of the objective."""

    rule: LookRule
    """Evidence: p <= alpha; Bounds: not even perfect remaining runs would make it the best."""
    runs_done: Count
    """Runs that had ended (n)."""
    runs_total: Count
    """Runs of the complete trial (N)."""
    incumbent: Count
    """Number of the best completed trial."""
    bar: float
    """Mean that the trial had to beat: the incumbent's, plus minDelta in the direction that is better."""
    predicted: float
    """Predicted mean of the complete trial (m)."""
    standard_error: Annotated[float, Field(ge=0)]
    """Of the prediction."""
    p: Annotated[float, Field(ge=0, le=1)]
    """Anytime-valid p-value of a mean at the bar or better."""
    alpha: Annotated[float, Field(gt=0, le=0.5)]
    """What p was compared with."""
    probability: Annotated[float, Field(ge=0, le=1)]
    """Of beating the bar, for display."""
    references: Count
    """Completed trials that the noise was estimated from (R)."""
    variance_fold: Annotated[float, Field(ge=0)]
    """Estimated trial x fold variance (a)."""
    variance_run: Annotated[float, Field(ge=0)]
    """Estimated variance of a run (e)."""
    variance_factor: Annotated[float, Field(ge=1)]
    """By which the trial's own scatter widened the prediction (lambda)."""
