"""Pixel metrics against scikit-learn, ignored pixels, missing classes, and a state in the middle of an epoch."""

import math

import numpy as np
import pytest
import torch
from sklearn import metrics as sk

from crossfold_trainer.contract.metrics import METRICS
from crossfold_trainer.labels import BINARY, Labels
from crossfold_trainer.losses import LossSum
from crossfold_trainer.metrics import N_THRESHOLDS, PixelMetrics

CPU = torch.device("cpu")
CLASSES = Labels(("ground", "water", "ice", "rock"), ignore=255, binary=False)


def measured(probability: np.ndarray, y: np.ndarray, batches: int = 1, labels: Labels = BINARY) -> dict[str, float]:
    metrics = PixelMetrics(CPU, labels, curves=True)
    for p, t in zip(np.array_split(probability, batches), np.array_split(y, batches), strict=True):
        pixels = torch.tensor(float((t != labels.ignore).sum()))
        metrics.update(torch.from_numpy(p), torch.from_numpy(t), LossSum(torch.tensor(1.5), pixels))
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
    assert set(got) == set(METRICS)
    assert all(math.isfinite(value) for value in got.values())
    for name, value in got.items():
        info = METRICS[name]
        assert info.low is None or value >= info.low, name
        assert info.high is None or value <= info.high, name
    assert got["JaccardIndex"] == (1.0 if label == 1 and answer > 0.5 else 0.0)


def test_nothing_valid_is_nan() -> None:
    got = measured(np.full((1, 2, 2), 0.5, np.float32), np.full((1, 2, 2), 2, np.uint8))
    assert set(got) == set(METRICS)
    assert all(math.isnan(value) for value in got.values())


def test_a_nan_probability_is_a_no() -> None:
    got = measured(np.array([[[math.nan, 0.9]]], np.float32), np.array([[[1, 1]]], np.uint8))
    assert got["Recall"] == 0.5
    got = measured(np.array([[[math.nan, 0.2]]], np.float32), np.array([[[0, 1]]], np.uint8))
    assert got["AUROC"] == 1


# -- several classes -----------------------------------------------------------------------------------------------


def classes_sample(seed: int, held: tuple[int, ...] = (0, 1, 2, 3)) -> tuple[np.ndarray, np.ndarray]:
    """Answers that are often right; only the held classes are labelled."""
    rng = np.random.default_rng(seed)
    y = rng.choice([*held, 255], (6, 8, 9)).astype(np.uint8)
    logits = rng.normal(0, 1, (6, 4, 8, 9))
    for k in held:
        logits[:, k] += 1.5 * (y == k)
    powers = np.exp(logits)
    return (powers / powers.sum(1, keepdims=True)).astype(np.float32), y


@pytest.mark.parametrize("held", [(0, 1, 2, 3), (0, 2)])
@pytest.mark.parametrize("seed", range(3))
def test_classes_like_scikit_learn(seed: int, held: tuple[int, ...]) -> None:
    probability, y = classes_sample(seed, held)
    valid = y != 255
    truth, p = y[valid].astype(int), np.moveaxis(probability, 1, -1)[valid]  # (pixels,), (pixels, K)
    predicted = p.argmax(1)
    stepped = np.floor(p.astype(np.float64) * (N_THRESHOLDS - 1) + 1e-6)
    occurring = sorted(set(truth) | set(predicted))
    expected = {
        "Accuracy": sk.accuracy_score(truth, predicted),
        "Precision": sk.precision_score(truth, predicted, average="macro", zero_division=0),
        "Specificity": np.mean([sk.recall_score(truth != k, predicted != k) for k in occurring]),
        "Recall": sk.recall_score(truth, predicted, average="macro", zero_division=0),
        "F1Score": sk.f1_score(truth, predicted, average="macro", zero_division=0),
        "JaccardIndex": sk.jaccard_score(truth, predicted, average="macro", zero_division=0),
        "CohenKappa": sk.cohen_kappa_score(truth, predicted),
        "HammingDistance": sk.hamming_loss(truth, predicted),
        "AUROC": np.mean([sk.roc_auc_score(truth == k, stepped[:, k]) for k in held]),
        "AveragePrecision": np.mean([sk.average_precision_score(truth == k, stepped[:, k]) for k in held]),
    }
    got = measured(probability, y, batches=3, labels=CLASSES)
    assert set(got) == {*expected, "loss"}
    for name, value in expected.items():
        assert got[name] == pytest.approx(value, abs=1e-9), name


def test_a_class_that_does_not_occur_is_left_out_of_means() -> None:
    y = np.array([[[0, 0, 1, 1]]], np.uint8)
    probability = np.zeros((1, 4, 1, 4), np.float32)
    probability[0, [0, 0, 1, 1], 0, [0, 1, 2, 3]] = 1
    assert measured(probability, y, labels=CLASSES)["JaccardIndex"] == 1
    probability[0, :, 0, 3] = [0, 0, 0, 1]  # class 3 occurs now, as a wrong answer
    assert measured(probability, y, labels=CLASSES)["JaccardIndex"] == pytest.approx((1 + 0.5 + 0) / 3)


@pytest.mark.parametrize("label", [0, 3])
def test_one_class_alone_gives_numbers(label: int) -> None:
    probability, _ = classes_sample(0)
    got = measured(probability, np.full((6, 8, 9), label, np.uint8), labels=CLASSES)
    assert all(math.isfinite(value) for value in got.values())
    assert got["AUROC"] == 0


def test_no_class_anywhere_is_nan() -> None:
    probability, _ = classes_sample(0)
    got = measured(probability, np.full((6, 8, 9), 255, np.uint8), labels=CLASSES)
    assert len(got) == 11
    assert all(math.isnan(value) for value in got.values())


def test_state_goes_on_in_the_middle() -> None:
    probability, y = (torch.from_numpy(a) for a in sample(7))
    whole, first, second = (PixelMetrics(CPU, BINARY, curves=False) for _ in range(3))
    loss = LossSum(torch.tensor(0.5), torch.tensor(10.0))
    for i in range(6):
        whole.update(probability[i : i + 1], y[i : i + 1], loss)
        if i < 3:
            first.update(probability[i : i + 1], y[i : i + 1], loss)
    second.load(first.state())
    for i in range(3, 6):
        second.update(probability[i : i + 1], y[i : i + 1], loss)
    assert second.compute() == whole.compute()
