"""Losses on logits. Ignored pixels are left out; a batch without any valid pixel contributes 0.

Shapes: logits (B, H, W) float; y (B, H, W) uint8 with 0 no, 1 yes, 2 ignore.
"""

from torch import Tensor
from torch.nn import functional

from crossfold_trainer.data import IGNORE

TINY = 1e-12
"""Base of the focal factor of a perfect answer: with gamma below 1 the slope at 0 would be infinite."""


def valid_pixels(y: Tensor) -> Tensor:
    """Number of pixels that count (a scalar, float32)."""
    return (y != IGNORE).sum().float()


def focal_sum(logits: Tensor, y: Tensor, alpha: float | None, gamma: float) -> tuple[Tensor, Tensor]:
    """Focal loss summed over the valid pixels, and their number (both scalars, float32).

    Each pixel costs ``-w (1 - p)^gamma log(p)`` with p the probability of its own label and w = alpha for yes,
    1 - alpha for no, 1 without alpha. A perfect answer costs 0.
    """
    logits = logits.float()
    valid = y != IGNORE  # (B, H, W)
    target = (y == 1).float()
    cross_entropy = functional.binary_cross_entropy_with_logits(logits, target, reduction="none")
    own = (-cross_entropy).exp()  # probability of the pixel's own label
    cost = cross_entropy * (1 - own).clamp(min=TINY) ** gamma
    if alpha is not None:
        cost = cost * (alpha * target + (1 - alpha) * (1 - target))
    # where, not a product: a non-finite logit of an ignored pixel must not spread.
    return cost.where(valid, 0.0).sum(), valid.sum().float()


def focal_loss(logits: Tensor, y: Tensor, alpha: float | None = None, gamma: float = 2.0) -> Tensor:
    """Mean focal loss of the valid pixels; 0 when there is none."""
    total, count = focal_sum(logits, y, alpha, gamma)
    return total / count.clamp(min=1)
