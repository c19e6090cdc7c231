"""Pixel metrics against scikit-learn, ignored pixels, missing classes, and a state in the middle of an epoch."""

import math

import numpy as np
import pytest
import torch
from sklearn import metrics as sk

from crossfold_trainer.contract.metrics import METRICS
from crossfold_trainer.metrics import N_THRESHOLDS, PixelMetrics

CPU = torch.device("cpu")


def measured(probability: np.ndarray, y: np.ndarray, batches: int = 1) -> dict[str, float]:
    metrics = PixelMetrics(CPU, curves=True)
    for p, t in zip(np.array_split(probability, batches), np.array_split(y, batches), strict=True):
        metrics.update(torch.from_numpy(p), torch.from_numpy(t), torch.tensor(1.5), torch.tensor(float((t != 2).sum())))
    return metrics.compute()


def sample(seed: int, n: int = 6) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    y = rng.choice(3, (n, 8, 9), p=(0.6, 0.3, 0.1)).astype(np.uint8)
    probability = np.clip(rng.normal(0.35 + 0.25 * (y == 1), 0.25), 0, 1).astype(np.float32)
    return probability, y


@pytest.mark.parametrize("seed", range(5))
def test_like_scikit_learn(seed: int) -> None:
    probability, y = sample(seed)
    valid = y != 2
    truth, p = (y[valid] == 1).astype(int), probability[valid]
    predicted = (p > 0.5).astype(int)
    # At 20 thresholds a probability counts as the highest threshold that it reaches.
    stepped = np.floor(p.astype(np.float64) * (N_THRESHOLDS - 1) + 1e-6)
    expected = {
        "Accuracy": sk.accuracy_score(truth, predicted),
        "Precision": sk.precision_score(truth, predicted),
        "Specificity": sk.recall_score(truth, predicted, pos_label=0),
        "Recall": sk.recall_score(truth, predicted),
        "F1Score": sk.f1_score(truth, predicted),
        "JaccardIndex": sk.jaccard_score(truth, predicted),
        "CohenKappa": sk.cohen_kappa_score(truth, predicted),
        "HammingDistance": sk.hamming_loss(truth, predicted),
        "AUROC": sk.roc_auc_score(truth, stepped),
        "AveragePrecision": sk.average_precision_score(truth, stepped),
    }
    got = measured(probability, y, batches=3)
    assert set(got) == set(METRICS)
    for name, value in expected.items():
        assert got[name] == pytest.approx(value, abs=1e-9), name
    assert got["loss"] == pytest.approx(3 * 1.5 / valid.sum())


@pytest.mark.parametrize(("label", "answer"), [(0, 0.1), (0, 0.9), (1, 0.1), (1, 0.9)])
def test_a_missing_class_gives_numbers(label: int, answer: float) -> None:
    got = measured(np.full((1, 4, 4), answer, np.float32), np.full((1, 4, 4), label, np.uint8))
    assert all(math.isfinite(value) for value in got.values())
    for name, value in got.items():
        info = METRICS[name]
        assert info.low is None or value >= info.low, name
        assert info.high is None or value <= info.high, name
    assert got["JaccardIndex"] == (1.0 if label == 1 and answer > 0.5 else 0.0)


def test_nothing_valid_is_nan() -> None:
    got = measured(np.full((1, 2, 2), 0.5, np.float32), np.full((1, 2, 2), 2, np.uint8))
    assert all(math.isnan(value) for value in got.values())


def test_a_nan_probability_is_a_no() -> None:
    got = measured(np.array([[[math.nan, 0.9]]], np.float32), np.array([[[1, 1]]], np.uint8))
    assert got["Recall"] == 0.5


def test_state_goes_on_in_the_middle() -> None:
    probability, y = (torch.from_numpy(a) for a in sample(7))
    whole, first, second = (PixelMetrics(CPU, curves=False) for _ in range(3))
    one, pixels = torch.tensor(0.5), torch.tensor(10.0)
    for i in range(6):
        whole.update(probability[i : i + 1], y[i : i + 1], one, pixels)
        if i < 3:
            first.update(probability[i : i + 1], y[i : i + 1], one, pixels)
    second.load(first.state())
    for i in range(3, 6):
        second.update(probability[i : i + 1], y[i : i + 1], one, pixels)
    assert second.compute() == whole.compute()
