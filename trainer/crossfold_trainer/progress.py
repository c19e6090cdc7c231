"""Where training is and what was best so far: all that a run knows of itself beside weights and optimiser."""

from dataclasses import dataclass, field
from typing import Any

from crossfold_trainer.contract.metrics import Direction
from crossfold_trainer.contract.scoring import Score, better
from crossfold_trainer.contract.trainer import TrainerSpec


@dataclass
class Best:
    """The kept validation."""

    epoch: int
    score: float
    metrics: dict[str, float]


@dataclass
class Progress:
    """Where training is. Changed by the training loop only."""

    epoch: int = 0
    """The epoch under way, from 0."""
    batch: int = 0
    """Batches of it that are done."""
    step: int = 0
    """Optimiser steps done, all epochs together."""
    wait: int = 0
    """Validations since the best one."""
    validations: int = 0
    best: Best | None = None
    last_metrics: dict[str, float] = field(default_factory=dict)
    """Of the last validation."""
    last_validated: int | None = None
    test: dict[str, float] = field(default_factory=dict)
    """Metrics of the test part, with the weights of the kept epoch."""
    ignored: dict[int, int] = field(default_factory=dict)
    """Row -> pixels that are ignored for a NaN or infinite value; of the patches that were read, by all ranks."""
    history: list[dict[str, float]] = field(default_factory=list)
    """One row an epoch: what metrics.csv says."""

    def finished(self, settings: TrainerSpec) -> str | None:
        """Why training is over; None while it is not."""
        if self.epoch >= settings.max_epochs:
            return f"all {settings.max_epochs} epochs trained"
        patience = settings.early_stopping_patience
        if patience is not None and self.wait >= patience:
            return f"no better score in {patience} validations, stopped after epoch {self.epoch}"
        return None

    def count_validation(self, epoch: int, score: Score, values: dict[str, float], direction: Direction) -> bool:
        """Count in what an epoch was measured to be; whether it is the best so far."""
        self.validations += 1
        self.last_validated, self.last_metrics = epoch, dict(values)
        best = self.best
        if score.stable and score.value is not None and (best is None or better(score.value, best.score, direction)):
            self.best, self.wait = Best(epoch, score.value, dict(values)), 0
            return True
        self.wait += 1
        return False


def progress_from(content: dict[str, Any]) -> Progress:
    """The position that a checkpoint holds."""
    values = dict(content["progress"])
    best = values.pop("best")
    return Progress(best=Best(**best) if best else None, **values)
