"""What a tracker is: somewhere else that a run's numbers and pictures go while it trains.

This package runs in a process of its own, in a Python environment of its own: it imports nothing of the trainer, and
each tracker's library only where that tracker is wanted.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol


@dataclass(frozen=True)
class RunFacts:
    """The run as trackers know it."""

    id: str
    """The same for every attempt of a run, and for no other run: 16 hexadecimal characters."""
    name: str
    """Of the TrainRun."""
    namespace: str
    tune: str
    """Empty for a run without one."""
    cross_validation: str
    """Empty for a run without one."""
    fold: int
    seed: int
    uri: str
    """Folder of its artifacts."""
    hyperparameters: Mapping[str, Any]
    folder: str
    """A local folder for what a tracker writes."""
    credentials: str
    """A local folder with one file per variable; it need not exist."""
    known: Mapping[str, str] = field(default_factory=dict)
    """What trackers called this run in a former attempt, by tracker."""

    @property
    def group(self) -> str:
        """What runs are grouped by: the search, else the CrossValidation, else nothing."""
        return self.tune or self.cross_validation

    @property
    def tags(self) -> dict[str, str]:
        """What it is searched by."""
        tags = {
            "crossfold.id": self.id,
            "crossfold.namespace": self.namespace,
            "crossfold.tune": self.tune,
            "crossfold.cross_validation": self.cross_validation,
            "crossfold.fold": str(self.fold),
            "crossfold.seed": str(self.seed),
            "crossfold.artifacts": self.uri,
        }
        return {name: value for name, value in tags.items() if value}


class Tracker(Protocol):
    """One service. Methods are called in one thread, in order, `open` first and `finish` last; each may raise.

    What is logged before a checkpoint from which a run resumes is logged again: a tracker is told of steps twice.
    """

    def open(self, run: RunFacts) -> str:
        """Begin, or go on with, the run; returns what the service calls it."""
        ...

    def log_scalars(self, values: Mapping[str, float], step: int) -> None:
        """Finite numbers by full name, at an optimiser step."""
        ...

    def log_image(self, name: str, png: bytes, step: int) -> None:
        """A picture, at an optimiser step."""
        ...

    def finish(self, values: Mapping[str, Any], *, ended: bool) -> None:
        """The end of this attempt: its last numbers, and whether the run ended with it (else it will be resumed)."""
        ...
