"""When a search ends before it has asked all its trials, as a person writes it."""

from typing import Annotated

from pydantic import Field

from crossfold_trainer.contract.base import Model, Rule

_NUMBER = "[1-9][0-9]{0,5}"
Duration = Annotated[str, Field(max_length=24, pattern=f"^{_NUMBER}(h({_NUMBER}m)?({_NUMBER}s)?|m({_NUMBER}s)?|s)$")]
"""Hours, minutes and seconds: 48h, 90m, 1h30m, 45s."""


class BudgetSpec(Model):
    """What may be spent. Nothing new starts beyond it, and what is in flight finishes."""

    gpu_hours: Annotated[float, Field(gt=0, le=10_000_000)] | None = None
    """GPU-hours of all attempts of all runs, whatever became of them; a run without GPUs counts as one."""
    wall_clock: Duration | None = None
    """Time in which at least one run trained, such as 48h or 1h30m; waiting and suspended time is not counted."""

    rules = (
        Rule(
            "has(self.gpuHours) || has(self.wallClock)",
            "budget needs gpuHours, wallClock or both: add one, or remove budget",
        ),
    )


class EarlyStoppingSpec(Model):
    """Ends the search when it no longer finds anything better."""

    patience: Annotated[int, Field(ge=1, le=10_000)]
    """Trials without a new best, failed ones not counted, after which the search ends."""
    min_delta: Annotated[float, Field(ge=0, le=1e9)] = 0
    """How much better than the best so far a score must be to count as a new best."""
