"""Metrics of objects: connected areas of one class, matched one to one. For the test part only; on the host.

Objects are 8-connected inside a patch. An object of the answer and one of the labels match when their
IoU is at least 0.3; where several would do, the greatest IoU goes first. With several classes, those above 0 are
taken one after the other and their counts added. Ignored pixels belong to no object.
"""

import math
from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from crossfold_trainer.labels import Labels
from crossfold_trainer.metrics import N_THRESHOLDS, answers, ratio

MATCH_IOU = 0.3
BOUNDARY_SHARE = 0.02
"""Width of a boundary as a share of a patch's diagonal (Cheng et al. 2021)."""

Mask = NDArray[np.bool_]
Objects = NDArray[np.int64]
"""0: none; else the number of the object."""


class InstanceMetrics:
    """Counts of objects and boundary pixels over any number of batches."""

    def __init__(self, labels: Labels) -> None:
        """Start from nothing."""
        self._labels = labels
        self._at_answer = np.zeros(3, np.int64)  # tp, fp, fn
        self._at_threshold = np.zeros((N_THRESHOLDS, 3), np.int64)
        self._boundary = np.zeros(2, np.int64)  # intersection, union
        self._pixels = np.zeros(1, np.int64)

    def update(self, probability: Tensor, y: Tensor) -> None:
        """Add a batch: probability (B, H, W), or (B, K, H, W) with several classes; y (B, H, W)."""
        valid = y != self._labels.ignore
        self._pixels += int(valid.sum())
        answer = answers(probability, self._labels)
        for k, own in self._by_class(probability):
            truth, answered = (y == k) & valid, (answer == k) & valid
            self._boundary += _boundary_overlap(truth, answered, valid)
            objects = connected(truth.cpu().numpy())
            self._at_answer += count_matches(objects, connected(answered.cpu().numpy()))
            reachable = (own.nan_to_num(nan=0.0) * valid).cpu().numpy()
            for i, threshold in enumerate(np.linspace(0, 1, N_THRESHOLDS)):
                reached = (reachable >= np.float32(threshold)) & valid.cpu().numpy()
                self._at_threshold[i] += count_matches(objects, connected(reached))

    @property
    def counts(self) -> list[NDArray[np.int64]]:
        """What was counted."""
        return [self._at_answer, self._at_threshold, self._boundary, self._pixels]

    def add(self, counts: list[NDArray[np.int64]]) -> None:
        """Add what another one has counted."""
        for own, other in zip(self.counts, counts, strict=True):
            own += other  # noqa: PLW2901 -- in place

    def _by_class(self, probability: Tensor) -> Iterator[tuple[int, Tensor]]:
        """Each class that has objects, and its probability (B, H, W)."""
        if self._labels.binary:
            yield 1, probability
        else:
            yield from ((k, probability[:, k]) for k in range(1, len(self._labels.names)))

    def compute(self) -> dict[str, float]:
        """Every metric by the name that the contract gives it; NaN without a valid pixel, 0 for a ratio of nothing."""
        tp, fp, fn = self._at_answer.tolist()
        intersection, union = self._boundary.tolist()
        values = {
            "InstanceAccuracy": ratio(tp, tp + fp + fn),
            "InstancePrecision": ratio(tp, tp + fp),
            "InstanceRecall": ratio(tp, tp + fn),
            "InstanceF1Score": ratio(2 * tp, 2 * tp + fp + fn),
            "InstanceAveragePrecision": self._average_precision(),
            "InstanceBoundaryIoU": ratio(intersection, union),
        }
        return values if self._pixels.any() else dict.fromkeys(values, math.nan)

    def _average_precision(self) -> float:
        """Precision over the recall that it adds, from the highest threshold down; recall may fall and adds nothing."""
        total = highest = 0.0
        for tp, fp, fn in reversed(self._at_threshold.tolist()):
            recall = ratio(tp, tp + fn)
            total += max(0.0, recall - highest) * ratio(tp, tp + fp)
            highest = max(highest, recall)
        return total


def connected(mask: Mask) -> Objects:
    """(B, H, W) -> (B, H, W): numbers its 8-connected areas from 1; none reaches into another patch.

    Works on runs of pixels in a row, whose neighbours in the row above are found by binary search.
    """
    height, width = mask.shape[-2:]
    edges = np.diff(np.pad(mask.reshape(-1, width), ((0, 0), (1, 1))).astype(np.int8), axis=1)  # (B H, W + 1)
    rows, starts = np.nonzero(edges == 1)
    ends = np.nonzero(edges == -1)[1]  # exclusive
    stride = width + 2
    start_at, end_at = rows * stride + starts, rows * stride + ends
    first = np.searchsorted(end_at, start_at - stride)
    last = np.searchsorted(start_at, end_at - stride, side="right")
    above = np.where(rows % height > 0, np.maximum(last - first, 0), 0)  # touching runs in the row above
    lower = np.repeat(np.arange(len(rows)), above)
    upper = np.repeat(first, above) + np.arange(len(lower)) - np.repeat(np.cumsum(above) - above, above)
    root = _join(len(rows), lower, upper)
    number = np.unique(root, return_inverse=True)[1] + 1
    objects = np.zeros(mask.shape, np.int64)
    objects[mask] = np.repeat(number, ends - starts)
    return objects


def _join(n: int, a: NDArray[np.int64], b: NDArray[np.int64]) -> NDArray[np.int64]:
    """The least member of the set of each of n things when a[i] and b[i] are in one set."""
    root = np.arange(n)
    while True:
        one, other = root[a], root[b]
        if (one == other).all():
            return root
        np.minimum.at(root, np.maximum(one, other), np.minimum(one, other))
        while not np.array_equal(root, root[root]):
            root = root[root]


def count_matches(truth: Objects, answer: Objects) -> NDArray[np.int64]:
    """Objects of both that match, of the answer alone, of the labels alone: (tp, fp, fn)."""
    n_truth, n_answer = int(truth.max(initial=0)), int(answer.max(initial=0))
    tp = 0
    if n_truth and n_answer:
        both = (truth > 0) & (answer > 0)
        pair, shared = np.unique(truth[both] * (n_answer + 1) + answer[both], return_counts=True)
        t, a = np.divmod(pair, n_answer + 1)
        iou = shared / (np.bincount(truth.ravel())[t] + np.bincount(answer.ravel())[a] - shared)
        taken_t, taken_a = set[int](), set[int]()
        for i in np.argsort(-iou, kind="stable"):
            if iou[i] < MATCH_IOU:
                break
            if int(t[i]) not in taken_t and int(a[i]) not in taken_a:
                taken_t.add(int(t[i]))
                taken_a.add(int(a[i]))
        tp = len(taken_t)
    return np.array([tp, n_answer - tp, n_truth - tp])


def _boundary_overlap(truth: Tensor, answer: Tensor, valid: Tensor) -> NDArray[np.int64]:
    """Valid pixels in both boundaries, and in either."""
    one, other = boundary(truth) & valid, boundary(answer) & valid
    return torch.stack([(one & other).sum(), (one | other).sum()]).cpu().numpy()


def boundary(mask: Tensor) -> Tensor:
    """(B, H, W) -> (B, H, W): pixels of the mask close to its edge; a patch's border is an edge."""
    height, width = mask.shape[-2:]
    d = max(1, round(BOUNDARY_SHARE * math.hypot(height, width)))
    outside = functional.pad((~mask).float().unsqueeze(1), (d, d, d, d), value=1.0)
    near = functional.max_pool2d(outside, 2 * d + 1, stride=1).squeeze(1) > 0
    return mask & near
