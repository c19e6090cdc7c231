"""Augmentations of training batches, on the device, each sample drawn on its own.

Shapes: x (B, C, H, W) float32 in [0, 1]; y (B, H, W) uint8. Masks move with images.
What changes values (not places) leaves ignored pixels as they are and stays in [0, 1].
All chances come from torch's global generators, which the training loop seeds for every step.
"""

from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Tensor
from torch.nn import functional

Batch = tuple[Tensor, Tensor]
Augmentation = Callable[[Tensor, Tensor], Batch]
Recolouring = Callable[[Tensor], tuple[Tensor, Tensor]]
"""x -> which samples are touched (B,), and the new values of all of them (B, C, H, W)."""

P = 0.5
"""Chance of each augmentation for each sample, unless said otherwise."""
FLIPS_AND_TURNS = frozenset({"HorizontalFlip", "VerticalFlip", "RandomRotate90"})
BRIGHTNESS = CONTRAST = 0.2
NOISE = 0.1
BLUR_SIZES = (3, 5, 7)
POSTERIZE_LEVELS = 16
"""4 bits of 8."""


def compose(names: Sequence[str], ignore: int) -> Augmentation:
    """The listed augmentations in their order; both flips with turns become one D4 that always happens, first.

    Args:
        names: out of `hyperparameters.AUGMENTATIONS`.
        ignore: the label of pixels whose values stay.
    """
    steps: list[Augmentation] = []
    if set(names) >= FLIPS_AND_TURNS:
        names = [name for name in names if name not in FLIPS_AND_TURNS]
        steps.append(lambda x, y: _d4(x, y, p=1.0))
    steps += [_MOVES[name] if name in _MOVES else partial(_recolour, _RECOLOURINGS[name], ignore) for name in names]

    def augment(x: Tensor, y: Tensor) -> Batch:
        for step in steps:
            x, y = step(x, y)
        return x, y

    return augment


def _chance(x: Tensor, p: float = P) -> Tensor:
    """(B,) bool: which samples are touched."""
    return torch.rand(len(x), device=x.device) < p


def _uniform(x: Tensor, low: float, high: float) -> Tensor:
    """(B, 1, 1, 1): one number a sample."""
    return torch.empty(len(x), 1, 1, 1, device=x.device).uniform_(low, high)


def _where(touched: Tensor, x: Tensor, y: Tensor, move: Callable[[Tensor], Tensor]) -> Batch:
    """Move the touched samples, image and mask alike. `move` works on the last two axes."""
    return (
        torch.where(touched.view(-1, 1, 1, 1), move(x), x),
        torch.where(touched.view(-1, 1, 1), move(y), y),
    )


def _horizontal_flip(x: Tensor, y: Tensor) -> Batch:
    return _where(_chance(x), x, y, lambda t: t.flip(-1))


def _vertical_flip(x: Tensor, y: Tensor) -> Batch:
    return _where(_chance(x), x, y, lambda t: t.flip(-2))


def _rotate_90(x: Tensor, y: Tensor) -> Batch:
    """A quarter turn, a half or three quarters (or none); patches that are not square only turn by a half."""
    touched = _chance(x)
    turns = torch.randint(4, (len(x),), device=x.device)
    x, y = _where(touched & (turns >= 2), x, y, lambda t: t.flip(-1, -2))
    if x.shape[-1] == x.shape[-2]:
        x, y = _where(touched & (turns % 2 == 1), x, y, lambda t: t.transpose(-1, -2).flip(-2))
    return x, y


def _d4(x: Tensor, y: Tensor, p: float = P) -> Batch:
    """One of the eight symmetries of the square; of the rectangle, for patches that are not square."""
    touched = _chance(x, p)
    if x.shape[-1] == x.shape[-2]:
        x, y = _where(touched & _chance(x), x, y, lambda t: t.transpose(-1, -2))
    x, y = _where(touched & _chance(x), x, y, lambda t: t.flip(-1))
    return _where(touched & _chance(x), x, y, lambda t: t.flip(-2))


def _recolour(recolouring: Recolouring, ignore: int, x: Tensor, y: Tensor) -> Batch:
    """Take the new values of the touched samples where the label counts."""
    touched, new = recolouring(x)
    change = touched.view(-1, 1, 1, 1) & (y != ignore).unsqueeze(1)  # (B, 1, H, W)
    return torch.where(change, new.clamp(0, 1), x), y


def _blur(x: Tensor) -> tuple[Tensor, Tensor]:
    """A box blur of 3, 5 or 7 pixels."""
    size = torch.randint(len(BLUR_SIZES), (len(x),), device=x.device).view(-1, 1, 1, 1)
    blurred = x
    for i, n in enumerate(BLUR_SIZES):
        mode = "reflect" if min(x.shape[-2:]) > n // 2 else "replicate"
        padded = functional.pad(x, (n // 2,) * 4, mode=mode)
        blurred = torch.where(size == i, functional.avg_pool2d(padded, n, stride=1), blurred)
    return _chance(x), blurred


def _brightness_contrast(x: Tensor) -> tuple[Tensor, Tensor]:
    new = x * (1 + _uniform(x, -CONTRAST, CONTRAST)) + _uniform(x, -BRIGHTNESS, BRIGHTNESS)
    return _chance(x), new


def _multiplicative_noise(x: Tensor) -> tuple[Tensor, Tensor]:
    new = x * _uniform(x, 1 - NOISE, 1 + NOISE)
    return _chance(x), new


def _posterize(x: Tensor) -> tuple[Tensor, Tensor]:
    """Keep the upper 4 of 8 bits, always."""
    new = (x * 255).round().div(POSTERIZE_LEVELS, rounding_mode="floor") * POSTERIZE_LEVELS / 255
    return torch.ones(len(x), dtype=torch.bool, device=x.device), new


_MOVES: dict[str, Augmentation] = {
    "HorizontalFlip": _horizontal_flip,
    "VerticalFlip": _vertical_flip,
    "RandomRotate90": _rotate_90,
    "D4": _d4,
}
_RECOLOURINGS: dict[str, Recolouring] = {
    "Blur": _blur,
    "RandomBrightnessContrast": _brightness_contrast,
    "MultiplicativeNoise": _multiplicative_noise,
    "Posterize": _posterize,
}
