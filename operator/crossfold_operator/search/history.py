"""What a sampler is told of a Tune's trials."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any


class TrialState(StrEnum):
    """How a trial stands, as far as a sampler cares."""

    RUNNING = "Running"
    """Asked and not ended; a preempted trial is running."""
    COMPLETE = "Complete"
    """With a mean score that may be compared."""
    FAILED = "Failed"
    """Without a score, for reasons that say nothing about its parameters' quality."""
    UNSTABLE = "Unstable"
    """Diverged, or with a score that may not be compared: a bad place to look."""
    STOPPED = "Stopped"
    """Ended before its time by a decision that is not about its quality."""


@dataclass(frozen=True)
class Trial:
    """A trial that was asked.

    Attributes:
        number: its index in the Tune, from 0.
        parameters: its searched parameters, by name ('-' equals '_').
        state: how it stands.
        value: its mean score, when COMPLETE.
    """

    number: int
    parameters: Mapping[str, Any]
    state: TrialState
    value: float | None = None
