"""Focal loss: golden values, ignored pixels, and where it must not become NaN."""

import math

import pytest
import torch

from crossfold_trainer.losses import focal_loss


def one_pixel(logit: float, label: int, alpha: float | None = None, gamma: float = 2.0) -> float:
    return focal_loss(torch.tensor([[[logit]]]), torch.tensor([[[label]]], dtype=torch.uint8), alpha, gamma).item()


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


def test_ignored_pixels_are_left_out_of_value_and_slope() -> None:
    y = torch.tensor([[[1, 0, 2, 2]]], dtype=torch.uint8)
    logits = torch.tensor([[[0.3, -0.7, 9.0, -9.0]]], requires_grad=True)
    loss = focal_loss(logits, y)
    assert loss.item() == pytest.approx(focal_loss(logits.detach()[..., :2], y[..., :2]).item())
    loss.backward()
    assert logits.grad is not None
    assert logits.grad[0, 0, 2:].tolist() == [0.0, 0.0]


def test_a_batch_without_valid_pixels_contributes_0() -> None:
    logits = torch.zeros(2, 3, 3, requires_grad=True)
    loss = focal_loss(logits, torch.full((2, 3, 3), 2, dtype=torch.uint8))
    loss.backward()
    assert loss.item() == 0
    assert logits.grad is not None
    assert not logits.grad.any()


@pytest.mark.parametrize("gamma", [0.0, 0.3, 1.0, 2.0, 5.0])
def test_the_slope_is_finite_at_certain_answers(gamma: float) -> None:
    logits = torch.tensor([[[200.0, -200.0, 200.0, -200.0]]], requires_grad=True)
    focal_loss(logits, torch.tensor([[[1, 0, 0, 1]]], dtype=torch.uint8), gamma=gamma).backward()
    assert logits.grad is not None
    assert logits.grad.isfinite().all()
