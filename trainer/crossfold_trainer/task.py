"""What one run trains on: its configuration and what was made of it before torch is imported."""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

from crossfold_trainer.contract.config import RunConfig
from crossfold_trainer.data import DataSet
from crossfold_trainer.splits import Splits


@dataclass(frozen=True)
class Identity:
    """What a checkpoint must share with a run to be resumed by it."""

    digest: str
    data_digest: str
    splits_digest: str


@dataclass(frozen=True)
class Task:
    """One run: checked, its data set open, its parts known."""

    config: RunConfig
    hyperparameters: dict[str, Any]
    """All of them, by their canonical names."""
    data: DataSet
    splits: Splits

    @cached_property
    def identity(self) -> Identity:
        """The digests of configuration, data and parts."""
        return Identity(self.config.digest, self.data.digest, self.splits.digest(len(self.data)))
