"""Augmentations: masks move with images, ignored pixels stay, values stay in range, seeds repeat."""

import numpy as np
import pytest
import torch
from scipy import ndimage
from torch import Tensor

from crossfold_trainer.contract.hyperparameters import AUGMENTATIONS
from crossfold_trainer.transforms import compose
from tests.unit.trainer.test_step import NoReading

MOVES = ("HorizontalFlip", "VerticalFlip", "RandomRotate90", "D4")
RECOLOURS = tuple(name for name in AUGMENTATIONS if name not in MOVES)


def batch(height: int = 6, width: int = 6, n: int = 64) -> tuple[Tensor, Tensor]:
    """Images whose first band tells each pixel's place and whose second repeats the label."""
    generator = torch.Generator().manual_seed(1)
    y = torch.randint(3, (n, height, width), dtype=torch.uint8, generator=generator)
    place = (torch.arange(height * width, dtype=torch.float32) / (height * width)).view(1, height, width)
    x = torch.stack([place.expand(n, -1, -1), y.float() / 2], dim=1)
    return x, y


def augmented(names: list[str], x: Tensor, y: Tensor, seed: int = 0) -> tuple[Tensor, Tensor]:
    torch.manual_seed(seed)
    return compose(names, ignore=2)(x, y)


@pytest.mark.parametrize("name", MOVES)
@pytest.mark.parametrize("width", [6, 8])
def test_masks_move_with_images(name: str, width: int) -> None:
    x, y = batch(width=width)
    new_x, new_y = augmented([name], x, y)
    assert new_x.shape == x.shape
    assert torch.equal(new_x[:, 1], new_y.float() / 2)
    assert torch.equal(new_x[:, 0].flatten(1).sort().values, x[:, 0].flatten(1).sort().values)
    moved = (new_x[:, 0] != x[:, 0]).flatten(1).any(1).float().mean()
    assert 0.15 < moved < 0.85


def test_all_eight_symmetries_come_up() -> None:
    x, y = batch(n=400)
    seen = {tuple(image.flatten().tolist()) for image in augmented(["D4"], x, y)[0][:, 0]}
    assert len(seen) == 8


def test_both_flips_and_turns_are_one_d4_that_always_happens_first() -> None:
    x, y = batch(n=800)
    names = ["Posterize", "HorizontalFlip", "VerticalFlip", "RandomRotate90"]
    counts: dict[tuple[float, ...], int] = {}
    for image in augmented(names[1:], x, y)[0][:, 0]:
        key = tuple(image.flatten().tolist())
        counts[key] = counts.get(key, 0) + 1
    assert len(counts) == 8
    assert max(counts.values()) < 150  # each of them as likely, the identity too
    torch.manual_seed(3)
    first = compose(names, ignore=2)(x, y)
    torch.manual_seed(3)
    assert torch.equal(first[0], compose(["Posterize"], ignore=2)(*compose(names[1:], ignore=2)(x, y))[0])


@pytest.mark.parametrize("name", RECOLOURS)
def test_recolouring_stays_in_range_and_leaves_ignored_pixels(name: str) -> None:
    x, y = batch()
    x = torch.rand(x.shape, generator=torch.Generator().manual_seed(2)) * (y != 2).unsqueeze(1)
    new_x, new_y = augmented([name], x, y)
    assert torch.equal(new_y, y)
    assert new_x.min() >= 0
    assert new_x.max() <= 1
    ignored = (y == 2).unsqueeze(1).expand_as(x)
    assert not new_x[ignored].any()
    touched = (new_x != x).flatten(1).any(1).float().mean()
    assert touched == 1 if name == "Posterize" else 0.3 < touched < 0.7


def test_the_label_that_is_ignored_is_the_data_sets_own() -> None:
    x = torch.rand(4, 1, 8, 8)
    y = torch.full((4, 8, 8), 2, dtype=torch.uint8)
    y[:, :4] = 255
    new, _ = compose(["Posterize"], ignore=255)(x, y)
    assert torch.equal(new[:, :, :4], x[:, :, :4])
    assert (new[:, :, 4:] != x[:, :, 4:]).float().mean() > 0.9


def test_what_is_listed_first_is_done_first() -> None:
    x = torch.rand(16, 1, 8, 8)
    y = torch.zeros(16, 8, 8, dtype=torch.uint8)
    one, other = (augmented(names, x, y, seed=4)[0] for names in (["Posterize", "Blur"], ["Blur", "Posterize"]))
    assert len(other.unique()) <= 16 < len(one.unique())


def test_posterize_keeps_16_levels() -> None:
    x = torch.rand(2, 1, 32, 32)
    new, _ = augmented(["Posterize"], x, torch.zeros(2, 32, 32, dtype=torch.uint8))
    assert len(new.unique()) <= 16
    assert (new - x).abs().max() <= 16 / 255


@pytest.mark.parametrize("name", AUGMENTATIONS)
def test_a_seed_repeats(name: str) -> None:
    x, y = batch()
    one, again, other = (augmented([name], x, y, seed) for seed in (5, 5, 6))
    assert torch.equal(one[0], again[0])
    assert torch.equal(one[1], again[1])
    if name != "Posterize":
        assert not torch.equal(one[0], other[0])


@pytest.mark.parametrize("name", AUGMENTATIONS)
def test_nothing_waits_for_the_device(name: str) -> None:
    x, y = batch(n=4)
    with NoReading():
        new, _ = augmented([name], x, y)
        with pytest.raises(AssertionError, match="reads a number back"):
            new.sum().item()


def touched_pairs(name: str, low: float = 0.0, high: float = 1.0) -> list[tuple[np.ndarray, np.ndarray]]:
    """Patches without ignored pixels that an augmentation has changed: before and after, (C, H, W)."""
    x = low + (high - low) * torch.rand(64, 3, 12, 10, generator=torch.Generator().manual_seed(3))
    new, _ = augmented([name], x, torch.zeros(64, 12, 10, dtype=torch.uint8))
    return [(a.numpy(), b.numpy()) for a, b in zip(x, new, strict=True) if not torch.equal(a, b)]


def test_a_blur_is_the_mean_of_3_5_or_7_pixels_around() -> None:
    sizes = set()
    for before, after in touched_pairs("Blur"):
        means = {n: ndimage.uniform_filter(before, (1, n, n), mode="mirror") for n in (3, 5, 7)}
        fits = [n for n, mean in means.items() if np.allclose(mean, after, atol=1e-5)]
        assert len(fits) == 1
        sizes.update(fits)
    assert sizes == {3, 5, 7}


def test_brightness_and_contrast_are_one_line_for_all_bands_within_a_fifth() -> None:
    slopes, shifts = [], []
    for before, after in touched_pairs("RandomBrightnessContrast", 0.3, 0.6):  # so that nothing is cut off
        slope, shift = np.polyfit(before.ravel(), after.ravel(), 1)
        assert np.allclose(slope * before + shift, after, atol=1e-5)
        slopes.append(slope - 1)
        shifts.append(shift)
    for drawn in (slopes, shifts):
        assert max(map(abs, drawn)) <= 0.2 + 1e-5
        assert min(drawn) < -0.1
        assert max(drawn) > 0.1


def test_noise_is_one_factor_a_patch_within_a_tenth() -> None:
    factors = []
    for before, after in touched_pairs("MultiplicativeNoise", 0.2, 0.8):
        ratio = after / before
        assert np.ptp(ratio) < 1e-5
        factors.append(float(ratio.mean()))
    assert 0.9 - 1e-5 <= min(factors) < 0.95
    assert 1.05 < max(factors) <= 1.1 + 1e-5


def test_turns_are_quarters_either_way_and_halves() -> None:
    x, y = batch(n=200)
    new = augmented(["RandomRotate90"], x, y)[0][:, 0].numpy()
    turned = [np.rot90(x[0, 0].numpy(), k) for k in range(4)]
    counts = [sum(np.array_equal(image, one) for image in new) for one in turned]
    assert sum(counts) == 200
    assert counts[0] > 90  # half of them untouched, and a quarter of the rest
    assert min(counts[1:]) > 10


def test_two_of_the_three_moves_stay_what_they_are() -> None:
    x, y = batch(n=300)
    seen = {tuple(image.flatten().tolist()) for image in augmented(["HorizontalFlip", "VerticalFlip"], x, y)[0][:, 0]}
    assert len(seen) == 4


def test_masks_of_many_classes_keep_their_values() -> None:
    y = torch.arange(36, dtype=torch.uint8).view(1, 6, 6).expand(16, -1, -1).contiguous() * 7
    x = y.float().unsqueeze(1) / 255
    torch.manual_seed(0)
    new_x, new_y = compose(["D4", "RandomRotate90"], ignore=255)(x, y)
    assert new_y.dtype == torch.uint8
    assert torch.equal(new_x[:, 0], new_y.float() / 255)


def test_tiny_patches_can_be_blurred() -> None:
    x = torch.rand(64, 1, 2, 2, generator=torch.Generator().manual_seed(3))
    new, _ = augmented(["Blur"], x, torch.zeros(64, 2, 2, dtype=torch.uint8))
    assert not torch.equal(new, x)
    assert new.isfinite().all()
    assert x.min() <= new.min() <= new.max() <= x.max()
