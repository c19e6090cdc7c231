"""Pruning inside a run: when a trial is not worth its first run, as a person writes it and as it was decided."""

from enum import StrEnum
from typing import Annotated

from pydantic import Field

from crossfold_operator.api.fields import Count, Decimal, Timestamp
from crossfold_trainer.contract.base import Model, Rule
from crossfold_trainer.contract.curve import MOST_POINTS, CurveEpoch


class PruningMethod(StrEnum):
    """What a run is compared by while it trains."""

    NONE = "None"
    MEDIAN_STOP = "MedianStop"
    ASHA = "ASHA"


class PruningSpec(Model):
    """Ends trials in the middle of their first run, by its live score. Unlike racing it bounds no error."""

    method: PruningMethod = PruningMethod.NONE
    """MedianStop (its best score is worse than the median of others' running means), ASHA (it is not among the best
    1/reductionFactor of a rung), or None: runs are not looked into. Needs live progress."""
    min_epochs: CurveEpoch | None = None
    """Epochs that every trial's first run has for certain; compared from the first validation on that comes then."""
    reduction_factor: Annotated[int, Field(ge=2, le=16)] | None = None
    """ASHA: one in so many goes on at each rung, and rungs are so many times apart; null: 4."""
    min_peers: Annotated[int, Field(ge=1, le=1000)] = 4
    """First runs of other trials that there must be to compare with before one is stopped."""
    audit: Annotated[float, Field(ge=0, le=1)] = 0
    """Share of the trials that run to the end although they would be pruned, to measure how often that is wrong."""

    rules = (
        Rule(
            "self.method == 'None' || has(self.minEpochs)",
            "method MedianStop and ASHA need minEpochs: the epochs that every run has for certain",
        ),
        Rule(
            "self.method == 'ASHA' || !has(self.reductionFactor)",
            "reductionFactor goes with method ASHA: remove it, or set method: ASHA",
        ),
    )

    @property
    def enabled(self) -> bool:
        """Whether runs are looked into."""
        return self.method is not PruningMethod.NONE

    @property
    def resolved_reduction_factor(self) -> int:
        """The reduction factor that counts."""
        return 4 if self.reduction_factor is None else self.reduction_factor


class CurveRecord(Model):
    """A run's scores up to an epoch."""

    epoch: CurveEpoch
    """Epochs trained."""
    best: Decimal
    """The best score so far."""
    mean: Decimal
    """Mean of the scores of all validations so far."""
    time: Timestamp
    """When it was first seen."""


CurveRecords = Annotated[
    list[CurveRecord],
    Field(
        max_length=MOST_POINTS,
        json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["epoch"]},
    ),
]


class RunLookSpec(Model):
    """A look into a trial's first run that found it not worth going on, with its numbers, in units of the score."""

    method: PruningMethod
    """MedianStop or ASHA."""
    fold: Count
    """Fold of the run."""
    seed: Count
    """Seed of the run."""
    epoch: CurveEpoch
    """Epochs after which runs were compared."""
    best: float
    """Best score of the run up to then."""
    threshold: float
    """What it had to reach: the median of the others' running means, or the least score of the rung that goes on."""
    peers: Count
    """Runs of the same fold and seed that it was compared with."""
    runs_done: Count
    """Runs of the trial that had ended."""
    runs_total: Count
    """Runs of the complete trial."""
    predicted: float
    """What the sampler is told: the best score plus what complete trials gained from there to their mean on average."""
    incumbent: Count | None = None
    """Number of the best complete trial then; null: there was none."""
    bar: float | None = None
    """Its mean, plus racing.minDelta in the direction that is better."""
