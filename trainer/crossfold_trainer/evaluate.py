"""Validating and testing: what the model answers, counted over all ranks.

Shapes: x (B, C, H, W) float32, y (B, H, W) uint8, logits (B, H, W) or (B, K, H, W).
"""

import copy
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from crossfold_trainer.data import DataSet
from crossfold_trainer.drawing import PartFigures
from crossfold_trainer.figures import Sample
from crossfold_trainer.instances import InstanceMetrics
from crossfold_trainer.interrupt import Interrupt, Stop
from crossfold_trainer.loader import Loader
from crossfold_trainer.losses import Criterion
from crossfold_trainer.metrics import PixelMetrics
from crossfold_trainer.model import probabilities
from crossfold_trainer.ranks import Ranks
from crossfold_trainer.splits import Index

Predict = Callable[[Tensor, int], Tensor]
"""x, and the patches that each rank has at least -> logits, as `TrainStep.predict`."""


class Measured(NamedTuple):
    """What an evaluation found."""

    metrics: PixelMetrics
    """Of all ranks, with curves."""
    samples: list[Sample]
    """To draw, of all ranks; at the leader alone."""


class Evaluation:
    """Has a model answer batches, each rank its share of them, and counts the answers. All ranks do so together."""

    def __init__(
        self,
        model: nn.Module,
        predict: Predict,
        criterion: Criterion,
        data: DataSet,
        *,
        ranks: Ranks,
        interrupt: Interrupt,
        sharded: bool,
    ) -> None:
        """Know what to ask.

        Args:
            model: left in evaluation mode.
            predict: has it answer.
            criterion: the loss.
            data: which batches are of.
            ranks: those that evaluate together.
            interrupt: says when to end early.
            sharded: each rank holds a shard of the model only.
        """
        self._model = model
        self._predict = predict
        self._criterion = criterion
        self._data = data
        self._ranks = ranks
        self._device = ranks.device()
        self._interrupt = interrupt
        self._sharded = sharded

    def measure(
        self, loader: Loader, batches: Sequence[Index], figures: PartFigures, instances: InstanceMetrics | None = None
    ) -> Measured:
        """Answer these batches, the same ones on every rank.

        Args:
            loader: reads them.
            batches: rows of the data set.
            figures: knows which patches are drawn.
            instances: counts too; the leader's have in the end what all ranks counted.

        Raises:
            Stop: SIGTERM arrived, at one rank at least.
        """
        metrics = PixelMetrics(self._device, self._data.labels, curves=True)
        samples: list[Sample] = []
        self._model.eval()
        # What is gathered of a sharded model in inference mode could not be trained on later.
        with torch.no_grad() if self._sharded else torch.inference_mode():
            for rows, x, y, logits in self._answered(loader, batches):
                probability = probabilities(logits)
                metrics.update(probability, y, self._criterion(logits, y))
                samples += figures.samples(rows, x, y, probability)
                if instances is not None:
                    instances.update(probability, y)
        if instances is not None:
            for others in self._ranks.gather([instances.counts])[1:]:
                instances.add(others)
        return Measured(of_all(metrics, self._ranks), self._ranks.gather(samples))

    def _answered(self, loader: Loader, batches: Sequence[Index]) -> Iterator[tuple[Index, Tensor, Tensor, Tensor]]:
        """This rank's rows, x, y and logits of each batch of which it has any."""
        ranks = self._ranks
        shares = [ranks.share(rows) for rows in batches]
        loaded = loader.batches([rows for rows in shares if len(rows)])
        for batch, rows in zip(batches, shares, strict=True):
            least = ranks.least(len(batch))
            if len(rows):
                x, y = next(loaded)
                yield rows, x, y, self._predict(x, least)
            elif self._sharded:
                self._predict(blank_patch(self._data, self._device), least)  # the others wait for this rank's shards
            if any(ranks.any(self._interrupt.requested)):
                raise Stop


def blank_patch(data: DataSet, device: torch.device) -> Tensor:
    """(1, C, H, W): a batch that says nothing, for a model that must be called."""
    return torch.zeros(1, len(data.bands), *data.shape, device=device)


def of_all(metrics: PixelMetrics, ranks: Ranks) -> PixelMetrics:
    """The metrics of all ranks, which call this together; the given ones go on counting this rank's own."""
    if ranks.size == 1:
        return metrics
    whole = copy.deepcopy(metrics)
    whole.add_up(ranks.add)
    return whole
