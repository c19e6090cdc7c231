"""Losses on logits. Ignored pixels are left out of value and slope; a batch without any valid pixel contributes 0.

Shapes: B batch, K classes, H x W pixels. Binary: logits (B, H, W), y 0 no, 1 yes. Several classes: logits
(B, K, H, W), y 0 to K-1. y (B, H, W) uint8.

A loss comes as the sum over the valid pixels and their number, so that batches of different size can be added up; a
loss of regions (Dice and its kin, Lovász) is that of the whole batch, times its pixels. Nothing here reads a value
back from the device.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, assert_never

import torch
from torch import Tensor
from torch.nn import functional

from crossfold_trainer.contract.trainer import Loss, TrainerSpec
from crossfold_trainer.errors import ConfigError
from crossfold_trainer.labels import Labels

TINY = 1e-12
"""Base of the focal factor of a perfect answer: with gamma below 1 the slope at 0 would be infinite."""
SMOOTH = 1.0
"""Pixels added to both sides of an overlap, so that a batch without a positive has a loss with a slope."""


class LossSum(NamedTuple):
    """A batch's loss; both scalars float32 on the device."""

    total: Tensor
    """The loss times `pixels`."""
    pixels: Tensor
    """Valid pixels."""

    @property
    def mean(self) -> Tensor:
        """The loss; 0 without valid pixels."""
        return self.total / self.pixels.clamp(min=1)


class _Clean(NamedTuple):
    """A batch in which ignored pixels can do no harm: the logit of an ignored pixel is 0 and has no slope."""

    logits: Tensor
    label: Tensor
    """(B, H, W) int64, 0 where ignored."""
    valid: Tensor
    """(B, H, W) bool."""


Part = Callable[[_Clean], Tensor]
"""A loss, summed over the valid pixels."""


class Criterion:
    """A weighted sum of losses."""

    def __init__(self, parts: Sequence[tuple[Part, float]], labels: Labels) -> None:
        """Add up these losses, each times its weight."""
        self._parts = parts
        self._labels = labels

    def pixels(self, y: Tensor) -> Tensor:
        """Number of pixels that count (a scalar, float32)."""
        return (y != self._labels.ignore).sum().float()

    def __call__(self, logits: Tensor, y: Tensor) -> LossSum:
        """The loss of a batch."""
        valid = y != self._labels.ignore
        seen = valid if self._labels.binary else valid.unsqueeze(1)
        # where, not a product: a non-finite logit of an ignored pixel must not spread.
        clean = _Clean(logits.float().where(seen, 0.0), y.long().where(valid, 0), valid)
        total = torch.stack([weight * part(clean) for part, weight in self._parts]).sum()
        return LossSum(total, valid.sum().float())


def make_criterion(settings: TrainerSpec, hyperparameters: Mapping[str, Any], labels: Labels) -> Criterion:
    """The loss that `trainer.loss` names; `Sum` adds the terms of `trainer.lossSum` by their weights.

    Raises:
        ConfigError: a sum without terms, or with a sum among them.
    """
    terms = [(settings.loss, 1.0)]
    if settings.loss is Loss.SUM:
        terms = [(term.loss, term.weight) for term in settings.loss_sum]
        if not terms:
            raise ConfigError("trainer.lossSum", "loss Sum needs at least two losses to add: list them")
    return Criterion([(_part(loss, settings, hyperparameters, labels), weight) for loss, weight in terms], labels)


def _part(loss: Loss, settings: TrainerSpec, hyperparameters: Mapping[str, Any], labels: Labels) -> Part:
    match loss:
        case Loss.FOCAL:
            alpha, gamma = hyperparameters["focal_loss_alpha"], hyperparameters["focal_loss_gamma"]
            return lambda batch: _focal(batch, alpha, gamma)
        case Loss.BCE:
            return lambda batch: _cross_entropy(batch).where(batch.valid, 0.0).sum()
        case Loss.DICE:
            return lambda batch: _overlap(batch, 0.5, 0.5)
        case Loss.JACCARD:
            return lambda batch: _overlap(batch, 1.0, 1.0)
        case Loss.TVERSKY:
            alpha, beta = settings.tversky_alpha, settings.tversky_beta
            return lambda batch: _overlap(batch, alpha, beta)
        case Loss.LOVASZ:
            return _lovasz_hinge if labels.binary else _lovasz_softmax
        case Loss.SUM:
            raise ConfigError("trainer.lossSum", "a sum has no Sum among its losses: name another loss")
        case _:
            assert_never(loss)


def _cross_entropy(batch: _Clean) -> Tensor:
    """(B, H, W): -log of the probability of each pixel's own label."""
    if batch.logits.dim() == batch.label.dim():
        return functional.binary_cross_entropy_with_logits(batch.logits, batch.label.float(), reduction="none")
    return functional.cross_entropy(batch.logits, batch.label, reduction="none")


def _focal(batch: _Clean, alpha: float | None, gamma: float) -> Tensor:
    """Focal loss (Lin et al. 2017), summed.

    Each pixel costs ``-w (1 - p)^gamma log(p)`` with p the probability of its own label and w = alpha for every
    label but 0, 1 - alpha for 0, 1 without alpha. A perfect answer costs 0.
    """
    cross_entropy = _cross_entropy(batch)
    own = (-cross_entropy).exp()  # probability of the pixel's own label
    cost = cross_entropy * (1 - own).clamp(min=TINY) ** gamma
    if alpha is not None:
        cost = cost * torch.where(batch.label > 0, alpha, 1 - alpha)
    return cost.where(batch.valid, 0.0).sum()


def _by_class(batch: _Clean) -> tuple[Tensor, Tensor]:
    """Probabilities and truths (K, pixels), 0 where ignored; K is 1 in the binary case: yes."""
    if batch.logits.dim() == batch.label.dim():
        probability = batch.logits.sigmoid().unsqueeze(0)  # (B, H, W) -> (1, B, H, W)
        truth = (batch.label == 1).unsqueeze(0)
    else:
        probability = batch.logits.softmax(1).transpose(0, 1)  # (B, K, H, W) -> (K, B, H, W)
        classes = torch.arange(batch.logits.shape[1], device=batch.label.device)
        truth = batch.label == classes.view(-1, 1, 1, 1)
    return (probability * batch.valid).flatten(1), (truth * batch.valid).float().flatten(1)


def _over_classes(losses: Tensor, truth: Tensor, pixels: Tensor) -> Tensor:
    """Mean over the classes that the batch holds (in the binary case: of yes, held or not), times the pixels."""
    held = (truth.sum(1) > 0).float() if len(losses) > 1 else torch.ones_like(losses)
    return (losses * held).sum() / held.sum().clamp(min=1) * pixels


def _overlap(batch: _Clean, alpha: float, beta: float) -> Tensor:
    """``1 - (I + s) / (I + alpha FP + beta FN + s)`` over the batch, soft counts: Tversky (Salehi et al. 2017).

    Dice is alpha = beta = 0.5, Jaccard alpha = beta = 1.
    """
    probability, truth = _by_class(batch)
    hits = (probability * truth).sum(1)  # (K,)
    false_positive = probability.sum(1) - hits
    false_negative = truth.sum(1) - hits
    losses = 1 - (hits + SMOOTH) / (hits + alpha * false_positive + beta * false_negative + SMOOTH)
    return _over_classes(losses, truth, batch.valid.sum())


def _lovasz_slope(truth: Tensor) -> Tensor:
    """(K, pixels) -> (K, pixels): the slope of the Lovász extension of the Jaccard loss, errors sorted downwards.

    Berman, Triki and Blaschko 2018, algorithm 1.
    """
    counted = truth.long()  # whole numbers add up exactly, and deterministically on a GPU too
    positives = counted.sum(1, keepdim=True)
    intersection = positives - counted.cumsum(1)
    union = positives + (1 - counted).cumsum(1)
    jaccard = 1 - intersection / union.clamp(min=1)
    return torch.cat([jaccard[:, :1], jaccard.diff(dim=1)], dim=1)


def _lovasz_hinge(batch: _Clean) -> Tensor:
    """The Lovász hinge over the batch, times its pixels."""
    truth = (batch.label == 1).float().flatten().unsqueeze(0)  # (1, pixels)
    errors = 1 - batch.logits.flatten().unsqueeze(0) * (2 * truth - 1)
    # Ignored pixels come last and cost nothing; what comes before them does not see them.
    errors, order = errors.where(batch.valid.flatten(), -torch.inf).sort(dim=1, descending=True, stable=True)
    slope = _lovasz_slope(truth.gather(1, order))
    return (errors.clamp(min=0) * slope).sum() * batch.valid.sum()


def _lovasz_softmax(batch: _Clean) -> Tensor:
    """Lovász-softmax over the classes that the batch holds, times its pixels."""
    probability, truth = _by_class(batch)
    # An ignored pixel has error 0 and truth 0: it moves no other pixel's slope that has an error.
    errors, order = (truth - probability).abs().sort(dim=1, descending=True, stable=True)
    losses = (errors * _lovasz_slope(truth.gather(1, order))).sum(1)
    return _over_classes(losses, truth, batch.valid.sum())
