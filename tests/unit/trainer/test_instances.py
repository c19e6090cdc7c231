"""Metrics of objects: SciPy's areas and erosion, a slow matching, ignored pixels and empty parts."""

import math
from itertools import product

import numpy as np
import pytest
import torch
from scipy import ndimage

from crossfold_trainer.contract.metrics import KNOWN_OBJECTIVES, TEST_METRICS, Direction, metric_info
from crossfold_trainer.instances import InstanceMetrics, boundary, connected, count_matches
from crossfold_trainer.labels import BINARY, Labels
from crossfold_trainer.metrics import N_THRESHOLDS

SQUARE = np.ones((3, 3))


def blobs(seed: int, n: int = 3, side: int = 40) -> tuple[np.ndarray, np.ndarray]:
    """Probability and label of patches with a few objects each; some are missed, some invented, a part is ignored."""
    rng = np.random.default_rng(seed)
    field = ndimage.gaussian_filter(rng.normal(size=(n, side, side)), (0, 3, 3))
    y = (field > 0.06).astype(np.uint8)
    seen = field + ndimage.gaussian_filter(rng.normal(0, 0.5, (n, side, side)), (0, 2, 2))
    probability = 1 / (1 + np.exp(-(seen - 0.06) * 15))
    y[:, :5, :20] = 2
    return probability.astype(np.float32), y


def slow_objects(mask: np.ndarray) -> list[set[tuple[int, int, int]]]:
    found = []
    for b, patch in enumerate(mask):
        numbered, n = ndimage.label(patch, SQUARE)
        found += [{(b, int(i), int(j)) for i, j in np.argwhere(numbered == k + 1)} for k in range(n)]
    return found


def slow_matches(truth: np.ndarray, answer: np.ndarray) -> tuple[int, int, int]:
    one, other = slow_objects(truth), slow_objects(answer)
    iou = {(i, j): len(a & b) / len(a | b) for (i, a), (j, b) in product(enumerate(one), enumerate(other)) if a & b}
    matched = 0
    while iou and max(iou.values()) >= 0.3:
        i, j = max(iou, key=lambda pair: iou[pair])
        matched += 1
        iou = {pair: value for pair, value in iou.items() if pair[0] != i and pair[1] != j}
    return matched, len(other) - matched, len(one) - matched


def measured(probability: np.ndarray, y: np.ndarray, labels: Labels = BINARY) -> dict[str, float]:
    metrics = InstanceMetrics(labels)
    for i in range(len(y)):
        metrics.update(torch.from_numpy(probability[i : i + 1]), torch.from_numpy(y[i : i + 1]))
    return metrics.compute()


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("share", [0.15, 0.4, 0.6])
def test_areas_are_those_of_scipy(seed: int, share: float) -> None:
    mask = np.random.default_rng(seed).random((4, 17, 23)) < share
    got = connected(mask)
    assert np.array_equal(got > 0, mask)
    expected = slow_objects(mask)
    assert got.max() == len(expected)
    assert {frozenset(map(tuple, np.argwhere(got == k + 1).tolist())) for k in range(got.max())} == set(
        map(frozenset, expected)
    )


def test_a_spiral_is_one_area_and_patches_do_not_touch() -> None:
    spiral = np.array([list(row) for row in ("1111", "0001", "1101", "1001", "1111")]) == "1"
    assert connected(spiral[None]).max() == 1
    assert connected(np.stack([spiral, spiral])).max() == 2
    assert connected(np.zeros((2, 3, 3), bool)).max() == 0
    assert connected(np.ones((2, 3, 3), bool)).max() == 2


@pytest.mark.parametrize("seed", range(6))
def test_matching_like_a_slow_reference(seed: int) -> None:
    probability, y = blobs(seed)
    truth, answer = y == 1, probability > 0.5
    got = tuple(count_matches(connected(truth), connected(answer)).tolist())
    assert got == slow_matches(truth, answer)
    assert min(got) >= 0


def test_one_object_matches_once() -> None:
    truth = np.zeros((1, 4, 9), bool)
    truth[0, :, :8] = True
    answer = truth.copy()
    answer[0, :, 4] = False  # two halves, each with an IoU of at least 0.3
    assert count_matches(connected(truth), connected(answer)).tolist() == [1, 1, 0]
    assert count_matches(connected(answer), connected(truth)).tolist() == [1, 0, 1]


@pytest.mark.parametrize("seed", range(3))
def test_metrics_like_a_slow_reference(seed: int) -> None:
    probability, y = blobs(seed)
    valid = y != 2
    truth = y == 1
    tp, fp, fn = slow_matches(truth, (probability > 0.5) & valid)
    assert tp
    assert fp
    precision_recall = []
    for threshold in np.linspace(0, 1, N_THRESHOLDS)[::-1]:
        a, b, c = slow_matches(truth, (probability >= np.float32(threshold)) & valid)
        precision_recall.append((a / (a + b) if a + b else 0, a / (a + c)))
    average, highest = 0.0, 0.0
    for precision, recall in precision_recall:
        if recall > highest:
            average += (recall - highest) * precision
            highest = recall
    d = max(1, round(0.02 * math.hypot(40, 40)))
    edges = []
    for mask in (truth, (probability > 0.5) & valid):
        inner = np.stack([ndimage.binary_erosion(patch, SQUARE, iterations=d) for patch in mask])
        edges.append(mask & ~inner & valid)
    expected = {
        "InstanceAccuracy": tp / (tp + fp + fn),
        "InstancePrecision": tp / (tp + fp),
        "InstanceRecall": tp / (tp + fn),
        "InstanceF1Score": 2 * tp / (2 * tp + fp + fn),
        "InstanceAveragePrecision": average,
        "InstanceBoundaryIoU": (edges[0] & edges[1]).sum() / (edges[0] | edges[1]).sum(),
    }
    assert measured(probability, y) == pytest.approx(expected)


def test_a_boundary_is_as_wide_as_a_share_of_the_diagonal() -> None:
    mask = torch.ones(1, 150, 200, dtype=torch.bool)  # diagonal 250, so 5 pixels
    inner = ~boundary(mask)[0]
    assert inner.sum() == 140 * 190
    assert inner[5, 5]
    assert not inner[4].any()


def test_what_is_ignored_belongs_to_no_object() -> None:
    y = np.full((1, 20, 20), 2, np.uint8)
    y[0, :10] = 0
    y[0, 2:8, 2:8] = 1
    probability = np.zeros((1, 20, 20), np.float32)
    probability[0, 2:8, 2:8] = 0.9
    probability[0, 12:18, 2:8] = 0.9  # on ignored ground
    assert set(measured(probability, y).values()) == {1.0}


def test_without_objects_metrics_are_0_and_without_pixels_nan() -> None:
    nothing = np.zeros((1, 8, 8), np.float32)
    assert set(measured(nothing, np.zeros((1, 8, 8), np.uint8)).values()) == {0.0}
    without_pixels = measured(nothing, np.full((1, 8, 8), 2, np.uint8))
    assert without_pixels.keys() == measured(nothing, np.zeros((1, 8, 8), np.uint8)).keys()
    assert all(map(math.isnan, without_pixels.values()))
    assert measured(np.full((1, 8, 8), math.nan, np.float32), np.ones((1, 8, 8), np.uint8))["InstanceRecall"] == 0


def test_counts_of_several_classes_are_added() -> None:
    labels = Labels(("ground", "water", "ice"), ignore=255, binary=False)
    y = np.zeros((1, 20, 20), np.uint8)
    y[0, :8, :8], y[0, 10:18, 10:18] = 1, 2
    probability = np.zeros((1, 3, 20, 20), np.float32)
    probability[:, 0] = 0.6
    probability[0, 1, :8, :8], probability[0, 0, :8, :8] = 0.8, 0.2
    got = measured(probability, y, labels)
    assert got["InstanceRecall"] == 0.5  # water found, ice missed
    assert got["InstancePrecision"] == 1
    assert set(got) == set(TEST_METRICS)


def test_metrics_of_objects_are_no_objectives() -> None:
    assert not {name.rpartition("/")[2] for name in KNOWN_OBJECTIVES} & set(TEST_METRICS)
    assert metric_info("val/InstanceRecall") is None
    info = metric_info("test/InstanceRecall")
    assert info is not None
    assert info.direction is Direction.MAXIMIZE
