"""What a checkpoint holds of training: taken from model, optimiser and step, and given back to them."""

from dataclasses import asdict
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import LRScheduler

from crossfold_trainer import spread
from crossfold_trainer.metrics import PixelMetrics
from crossfold_trainer.progress import Best, Progress, progress_from
from crossfold_trainer.step import TrainStep
from crossfold_trainer.task import Task


class TrainingState:
    """Takes the training state out and puts it back. Of a sharded model all ranks together do so."""

    def __init__(
        self,
        model: nn.Module,
        optimiser: torch.optim.Optimizer,
        scheduler: LRScheduler,
        step: TrainStep,
        *,
        sharded: bool,
        leads: bool,
    ) -> None:
        """Changes nothing.

        Args:
            model: as its weights are named in a checkpoint, in shards or whole.
            optimiser: of its parameters.
            scheduler: of the optimiser's learning rate.
            step: that trains it.
            sharded: each rank holds a shard of the model only.
            leads: this rank writes checkpoints; another one's are empty of a sharded model's weights.
        """
        self._model = model
        self._optimiser = optimiser
        self._scheduler = scheduler
        self._step = step
        self._sharded = sharded
        self._leads = leads

    def take(self, progress: Progress, counts: PixelMetrics, validated: int | None) -> dict[str, Any]:
        """The training state as it is now, on the host: packing and uploading it need not hold training up.

        Args:
            progress: where training is.
            counts: the metrics of the epoch under way, of all ranks.
            validated: the epoch that was validated with these very weights.
        """
        held = {"model": self._model.state_dict(), "optimiser": self._optimiser.state_dict()}
        state: dict[str, Any] = _on_host(
            {
                **(spread.whole(held, keep=self._leads) if self._sharded else held),
                "progress": asdict(progress),
                "halvings": self._step.halvings,
                "scheduler": self._scheduler.state_dict(),
                "scaler": self._step.scaler.state_dict(),
                "train_metrics": dict(counts.state()),
                "validated": validated,
            }
        )
        return state

    def load(self, content: dict[str, Any]) -> Progress:
        """Go on from what `take` gave; returns where that was."""
        spread.load_weights(self._model, content["model"])
        spread.load_optimiser(self._optimiser, content["optimiser"])
        self._scheduler.load_state_dict(content["scheduler"])
        self._step.scaler.load_state_dict(content["scaler"])
        self._step.begin_with(content["halvings"])
        if self._leads:
            self._step.metrics.load(content["train_metrics"])
        return progress_from(content)


def kept_content(weights: dict[str, Any], best: Best, task: Task) -> dict[str, Any]:
    """What the checkpoint of the kept epoch holds: its weights, and all that is needed to use them."""
    return {
        "model": weights,
        "epoch": best.epoch,
        "score": best.score,
        "metrics": best.metrics,
        "hyperparameters": task.hyperparameters,
        "bands": list(task.data.bands),
        "ranges": [list(each) for each in task.data.ranges],
        "patch_shape": list(task.data.shape),
        "classes": list(task.data.labels.names),
        "outputs": task.data.labels.outputs,
    }


def _on_host(value: Any) -> Any:
    """A copy of tensors in dictionaries and lists that training does not change any more."""
    match value:
        case Tensor():
            return value.detach().to("cpu", copy=True)
        case dict():
            return {key: _on_host(item) for key, item in value.items()}
        case list() | tuple():
            return [_on_host(item) for item in value]
        case _:
            return value
