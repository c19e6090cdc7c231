"""Losses: golden values, slow references, ignored pixels, and where they must not become NaN."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from crossfold_trainer.contract import hyperparameters as hp
from crossfold_trainer.contract.trainer import Loss, TrainerSpec
from crossfold_trainer.errors import ConfigError
from crossfold_trainer.labels import BINARY, Labels
from crossfold_trainer.losses import Criterion, make_criterion

CLASSES = Labels(("ground", "water", "ice", "rock"), ignore=255, binary=False)
LOSSES = [loss for loss in Loss if loss is not Loss.SUM]


def criterion(
    loss: Loss = Loss.FOCAL, labels: Labels = BINARY, settings: dict[str, Any] | None = None, **values: Any
) -> Criterion:
    spec = TrainerSpec.model_validate({"loss": loss} | (settings or {}))
    return make_criterion(spec, hp.resolve(values), labels)


def batch(labels: Labels, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Two patches of 5 x 6 pixels; every fourth pixel or so is ignored, and the last class is missing."""
    rng = np.random.default_rng(seed)
    n = len(labels.names)
    held = n if labels.binary else n - 1
    y = np.where(rng.random((2, 5, 6)) < 0.25, labels.ignore, rng.integers(0, held, (2, 5, 6))).astype(np.uint8)
    shape = (2, 5, 6) if labels.binary else (2, n, 5, 6)
    return torch.from_numpy(rng.normal(0, 2, shape).astype(np.float32)), torch.from_numpy(y)


# -- slow references: one valid pixel after the other, in the words of the papers ---------------------------------


def pixels(logits: Tensor, y: Tensor, labels: Labels) -> list[tuple[list[float], int]]:
    """(probability of each class, label) of the valid pixels."""
    found = []
    for b, i, j in np.ndindex(*y.shape):
        label = int(y[b, i, j])
        if label == labels.ignore:
            continue
        if labels.binary:
            yes = 1 / (1 + math.exp(-float(logits[b, i, j])))
            found.append(([1 - yes, yes], label))
        else:
            powers = [math.exp(float(v)) for v in logits[b, :, i, j]]
            found.append(([p / sum(powers) for p in powers], label))
    return found


def overlap(found: Sequence[tuple[list[float], int]], labels: Labels, alpha: float, beta: float) -> float:
    losses = []
    for k in [1] if labels.binary else sorted({label for _, label in found}):
        hits = sum(p[k] for p, label in found if label == k)
        false_positive = sum(p[k] for p, label in found if label != k)
        missed = sum(1 - p[k] for p, label in found if label == k)
        losses.append(1 - (hits + 1) / (hits + alpha * false_positive + beta * missed + 1))
    return sum(losses) / len(losses)


def jaccard_of_mistakes(mistaken: set[int], positive: set[int]) -> float:
    """The Jaccard loss when exactly these pixels are mistaken."""
    answer = positive ^ mistaken
    return 1 - len(positive & answer) / len(positive | answer) if positive | answer else 0.0


def lovasz_extension(errors: Sequence[float], positive: set[int]) -> float:
    """Sum over the errors, largest first, of error times what this mistake adds to the Jaccard loss."""
    order = sorted(range(len(errors)), key=lambda i: -errors[i])
    total, mistaken = 0.0, set[int]()
    for i in order:
        total += errors[i] * (jaccard_of_mistakes(mistaken | {i}, positive) - jaccard_of_mistakes(mistaken, positive))
        mistaken.add(i)
    return total


def lovasz(found: Sequence[tuple[list[float], int]], labels: Labels) -> float:
    if labels.binary:
        logits = [math.log(p[1] / p[0]) for p, _ in found]
        errors = [max(0.0, 1 - v * (1 if label else -1)) for v, (_, label) in zip(logits, found, strict=True)]
        return lovasz_extension(errors, {i for i, (_, label) in enumerate(found) if label == 1})
    losses = []
    for k in sorted({label for _, label in found}):
        errors = [abs((label == k) - p[k]) for p, label in found]
        losses.append(lovasz_extension(errors, {i for i, (_, label) in enumerate(found) if label == k}))
    return sum(losses) / len(losses)


def reference(loss: Loss, logits: Tensor, y: Tensor, labels: Labels) -> float:
    found = pixels(logits, y, labels)
    match loss:
        case Loss.FOCAL:
            return sum(-((1 - p[k]) ** 2) * math.log(p[k]) for p, k in found) / len(found)
        case Loss.BCE:
            return sum(-math.log(p[k]) for p, k in found) / len(found)
        case Loss.DICE:
            return overlap(found, labels, 0.5, 0.5)
        case Loss.JACCARD:
            return overlap(found, labels, 1, 1)
        case Loss.TVERSKY:
            return overlap(found, labels, 0.3, 0.7)
        case Loss.LOVASZ:
            return lovasz(found, labels)
        case _:
            raise AssertionError(loss)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("labels", [BINARY, CLASSES], ids=["binary", "classes"])
@pytest.mark.parametrize("loss", LOSSES)
def test_like_a_slow_reference(loss: Loss, labels: Labels, seed: int) -> None:
    logits, y = batch(labels, seed)
    got = criterion(loss, labels)(logits, y)
    assert got.pixels.item() == (y != labels.ignore).sum()
    assert got.mean.item() == pytest.approx(reference(loss, logits, y, labels), rel=1e-4)


@pytest.mark.parametrize("labels", [BINARY, CLASSES], ids=["binary", "classes"])
@pytest.mark.parametrize("loss", LOSSES)
def test_ignored_pixels_are_left_out_of_value_and_slope(loss: Loss, labels: Labels) -> None:
    logits, y = batch(labels)
    ignored = y == labels.ignore
    ignored = ignored if labels.binary else ignored.unsqueeze(1).expand_as(logits)
    disturbed = logits.masked_fill(ignored, math.nan).requires_grad_()
    assert ignored.any()
    total = criterion(loss, labels)(disturbed, y)
    assert total.mean.item() == pytest.approx(criterion(loss, labels)(logits, y).mean.item())
    total.mean.backward()
    assert disturbed.grad is not None
    assert not disturbed.grad[ignored].any()
    assert disturbed.grad[~ignored].isfinite().all()
    assert disturbed.grad[~ignored].any()


@pytest.mark.parametrize("labels", [BINARY, CLASSES], ids=["binary", "classes"])
@pytest.mark.parametrize("loss", LOSSES)
def test_a_batch_without_valid_pixels_contributes_0(loss: Loss, labels: Labels) -> None:
    logits = torch.randn(2, 3, 3) if labels.binary else torch.randn(2, 4, 3, 3)
    logits.requires_grad_()
    got = criterion(loss, labels)(logits, torch.full((2, 3, 3), labels.ignore, dtype=torch.uint8))
    got.mean.backward()
    assert (got.total.item(), got.pixels.item(), got.mean.item()) == (0, 0, 0)
    assert logits.grad is not None
    assert not logits.grad.any()


@pytest.mark.parametrize("labels", [BINARY, CLASSES], ids=["binary", "classes"])
@pytest.mark.parametrize("loss", LOSSES)
def test_a_certain_right_answer_costs_nothing_and_a_better_one_less(loss: Loss, labels: Labels) -> None:
    _, y = batch(labels)
    label = y.long().where(y != labels.ignore, 0)
    right = (
        200.0 * (2.0 * label - 1)
        if labels.binary
        else 200.0 * torch.nn.functional.one_hot(label, len(labels.names)).movedim(-1, 1).float()
    )
    costs = [criterion(loss, labels)(right * scale, y).mean.item() for scale in (1, 1e-3, -1e-3, -1)]
    assert costs[0] == pytest.approx(0, abs=1e-6)
    assert costs == sorted(costs)
    assert costs[-1] > costs[0]


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("labels", [BINARY, CLASSES], ids=["binary", "classes"])
def test_the_slope_is_finite_at_certain_answers(loss: Loss, labels: Labels) -> None:
    logits = (
        torch.tensor([200.0, -200.0]).repeat(16).view(2, 4, 4)
        if labels.binary
        else torch.eye(4).mul(400).view(1, 4, 2, 2)
    )
    logits.requires_grad_()
    y = torch.arange(logits.numel() // labels.outputs, dtype=torch.uint8).remainder(2).view(-1, *logits.shape[-2:])
    criterion(loss, labels)(logits, y).mean.backward()
    assert logits.grad is not None
    assert logits.grad.isfinite().all()


# -- focal ---------------------------------------------------------------------------------------------------------


def one_pixel(logit: float, label: int, alpha: float | None = None, gamma: float = 2.0) -> float:
    focal = criterion(focal_loss_alpha=alpha, focal_loss_gamma=gamma)
    return focal(torch.tensor([[[logit]]]), torch.tensor([[[label]]], dtype=torch.uint8)).mean.item()


def test_a_perfect_negative_costs_nothing() -> None:
    assert one_pixel(-100.0, 0) == pytest.approx(0.0, abs=1e-12)


def test_a_sigmoid_applied_twice_would_cost_0_173() -> None:
    assert one_pixel(0.0, 0) == pytest.approx(0.25 * math.log(2), abs=1e-6)
    assert round(one_pixel(0.0, 0), 3) == 0.173


@pytest.mark.parametrize(
    ("logit", "label", "alpha", "gamma", "expected"),
    [
        (0.0, 1, None, 0.0, math.log(2)),
        (0.0, 1, 0.25, 2.0, 0.25 * 0.25 * math.log(2)),
        (0.0, 0, 0.25, 2.0, 0.75 * 0.25 * math.log(2)),
        (2.0, 1, None, 2.0, (1 - 1 / (1 + math.exp(-2))) ** 2 * math.log(1 + math.exp(-2))),
        (2.0, 0, None, 1.0, 1 / (1 + math.exp(-2)) * math.log(1 + math.exp(2))),
    ],
)
def test_golden(logit: float, label: int, alpha: float | None, gamma: float, expected: float) -> None:
    assert one_pixel(logit, label, alpha, gamma) == pytest.approx(expected, rel=1e-5)


def test_focal_with_two_classes_is_binary_focal() -> None:
    two = Labels(("a", "b"), ignore=255, binary=False)
    logits, y = batch(BINARY)
    y_two = y.where(y != 2, 255)
    both = torch.stack([torch.zeros_like(logits), logits], dim=1)
    settings = {"focal_loss_alpha": 0.3, "focal_loss_gamma": 1.5}
    expected = criterion(**settings)(logits, y).mean.item()
    assert criterion(labels=two, **settings)(both, y_two).mean.item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("gamma", [0.0, 0.3, 1.0, 5.0])
def test_the_focal_slope_is_finite_at_certain_answers(gamma: float) -> None:
    logits = torch.tensor([[[200.0, -200.0, 200.0, -200.0]]], requires_grad=True)
    y = torch.tensor([[[1, 0, 0, 1]]], dtype=torch.uint8)
    criterion(focal_loss_gamma=gamma)(logits, y).mean.backward()
    assert logits.grad is not None
    assert logits.grad.isfinite().all()


# -- sums and settings ---------------------------------------------------------------------------------------------


def test_a_sum_adds_its_terms_by_their_weights() -> None:
    logits, y = batch(BINARY)
    terms = [{"loss": "BCE", "weight": 0.5}, {"loss": "Dice"}, {"loss": "Lovasz", "weight": 2}]
    got = criterion(Loss.SUM, settings={"lossSum": terms})(logits, y)
    one = {loss: criterion(loss)(logits, y).mean.item() for loss in (Loss.BCE, Loss.DICE, Loss.LOVASZ)}
    assert got.mean.item() == pytest.approx(0.5 * one[Loss.BCE] + one[Loss.DICE] + 2 * one[Loss.LOVASZ], rel=1e-5)
    assert got.pixels.item() == (y != 2).sum()


@pytest.mark.parametrize("terms", [[], [{"loss": "Sum"}, {"loss": "Dice"}]])
def test_a_sum_of_nothing_or_of_sums_is_refused(terms: list[Any]) -> None:
    with pytest.raises(ConfigError, match=r"trainer\.lossSum: "):
        criterion(Loss.SUM, settings={"lossSum": terms})


def test_tversky_takes_its_weights() -> None:
    logits, y = batch(BINARY)
    got = criterion(Loss.TVERSKY, settings={"tverskyAlpha": 0.9, "tverskyBeta": 0.2})(logits, y).mean.item()
    assert got == pytest.approx(overlap(pixels(logits, y, BINARY), BINARY, 0.9, 0.2), rel=1e-4)


def test_sums_over_batches_add_up_for_pixel_losses() -> None:
    """A batch in two halves has the loss of the whole: what makes accumulated gradients exact."""
    logits, y = batch(BINARY)
    focal = criterion()
    whole, parts = focal(logits, y), [focal(logits[i : i + 1], y[i : i + 1]) for i in range(2)]
    assert sum(part.total.item() for part in parts) == pytest.approx(whole.total.item())
    assert sum(part.pixels.item() for part in parts) == whole.pixels.item()
