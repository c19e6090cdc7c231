"""What a sampler is told of the trials of a Tune, and of those of the Tunes that it starts from."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property
from hashlib import sha256
from typing import Any


class TrialState(StrEnum):
    """How a trial stands, as far as a sampler cares."""

    RUNNING = "Running"
    """Asked and not ended; a preempted trial is running."""
    COMPLETE = "Complete"
    """With a mean score that may be compared."""
    PRUNED = "Pruned"
    """Stopped since it could hardly become the best, with the mean that it was predicted to reach."""
    UNSTABLE = "Unstable"
    """Diverged, or with a score that may not be compared: a bad place to look."""
    FAILED = "Failed"
    """Without a score, for reasons that say nothing about its parameters' quality."""
    INFEASIBLE = "Infeasible"
    """Failed since a run did not fit into the accelerator's memory, where that is a constraint of the search."""
    STOPPED = "Stopped"
    """Ended before its time by a decision that is not about its quality."""
    DELETED = "Deleted"
    """Its number was given out and its CrossValidation is gone, with its parameters."""


@dataclass(frozen=True)
class Trial:
    """A trial that was asked.

    Attributes:
        number: its index in its Tune, from 0.
        parameters: its searched parameters, by name ('-' equals '_'); empty when DELETED. Of a trial of another Tune:
            all its hyperparameters, until ``warm_start`` took those that are searched here.
        state: how it stands.
        value: its mean score, when COMPLETE; the predicted mean over all its runs, when PRUNED.
        step: the runs that had ended when it was PRUNED; 0 inside its first one.
        source: the finished Tune that it is a trial of; empty for a trial of this one.
    """

    number: int
    parameters: Mapping[str, Any]
    state: TrialState
    value: float | None = None
    step: int = 0
    source: str = ""

    @cached_property
    def text(self) -> str:
        """All of it, in one spelling. A finished trial is told again and again."""
        parameters = json.dumps(_plain(self.parameters), sort_keys=True)
        return f"{self.source}\0{self.number}\0{self.state}\0{self.value!r}\0{self.step}\0{parameters}"


def digest(history: Iterable[Trial]) -> str:
    """SHA-256, in hexadecimal, of all that a sampler is told: the same for the same trials in any order."""
    return sha256("\n".join(sorted(trial.text for trial in history)).encode()).hexdigest()


def _plain(value: Any) -> Any:
    """A value as JSON brings it back: 8.0 is 8, a tuple is a list."""
    match value:
        case float() if value.is_integer():
            return int(value)
        case Mapping():
            return {name: _plain(item) for name, item in value.items()}
        case list() | tuple():
            return [_plain(item) for item in value]
        case _:
            return value
