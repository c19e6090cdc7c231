"""The pixel metrics of the contract's table, accumulated on the device and read once an epoch.

With several classes, Precision, Specificity, Recall, F1Score and JaccardIndex are means over the classes that occur
in labels or answers (macro average); AUROC and AveragePrecision take one class against the rest and leave out what
has no positive (AUROC: or no negative) pixel. Accuracy, CohenKappa and HammingDistance count all classes at once.

A ratio without a single case (recall where nothing is positive, AUROC where one class is missing) counts 0, so
that a metric is a number wherever there is a valid pixel. Where more is better, 0 makes a score unstable.
Without any valid pixel every metric is NaN.
"""

import math
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import NamedTuple, TypedDict

import torch
from torch import Tensor

from crossfold_trainer.labels import Labels
from crossfold_trainer.losses import LossSum

THRESHOLD = 0.5
"""Above it a pixel is a yes."""
N_THRESHOLDS = 20
"""Of AUROC and AveragePrecision: evenly spaced from 0 to 1."""
BINS = N_THRESHOLDS + 1
"""How many thresholds a probability reaches: 0 to N_THRESHOLDS."""
MOST_BINS_OF_A_ROW = 512
"""Counts of more bins than this are not kept for each row of pixels: they would take more memory than the patches."""

Counts = Sequence[int]
Confusion = Sequence[Counts]
"""Pixels by label (row) and answer (column)."""


class MetricState(TypedDict):
    """What a checkpoint keeps of half an epoch."""

    confusion: Tensor
    loss: Tensor


def answers(probability: Tensor, labels: Labels) -> Tensor:
    """(B, H, W) or (B, K, H, W) -> (B, H, W) int64: the class that each pixel is given; a NaN is no answer for any."""
    if labels.binary:
        return (probability > THRESHOLD).long()
    return probability.nan_to_num(nan=-1.0).argmax(1)


class PixelMetrics:
    """Counts over any number of batches.

    Shapes: probability (B, H, W), or (B, K, H, W) with several classes; y (B, H, W) uint8.
    """

    def __init__(self, device: torch.device, labels: Labels, *, curves: bool) -> None:
        """Start from nothing; `curves` adds what AUROC and AveragePrecision need."""
        self._labels = labels
        n = len(labels.names)
        self._confusion = torch.zeros(n * n, dtype=torch.int64, device=device)
        self._loss = torch.zeros(2, dtype=torch.float64, device=device)  # sum over valid pixels, their number
        self._curve = (
            torch.zeros(labels.outputs, 2 * BINS, dtype=torch.int64, device=device) if curves else None
        )  # (classes, negatives by thresholds reached and then positives)
        self._thresholds = torch.linspace(0, 1, N_THRESHOLDS, device=device)

    def update(self, probability: Tensor, y: Tensor, loss: LossSum) -> None:
        """Add a batch. Reads nothing back from the device."""
        labels = self._labels
        valid = y != labels.ignore
        label = y.long()
        _count(self._confusion, label * len(labels.names) + answers(probability, labels), valid)
        self._loss += torch.stack([loss.total.detach().double(), loss.pixels.double()])
        if self._curve is not None:
            # One class at a time: bins of all would be the largest tensor of a validation.
            classes = [(1, probability)] if labels.binary else list(enumerate(probability.unbind(1)))
            for counts, (k, own) in zip(self._curve, classes, strict=True):
                reached = torch.bucketize(own.nan_to_num(nan=0.0), self._thresholds, right=True)
                _count(counts, reached + BINS * (label == k), valid)

    def compute(self) -> dict[str, float]:
        """Every metric by the name that the contract gives it."""
        loss, pixels = self._loss.tolist()
        confusion = self.confusion
        values = binary_metrics(confusion) if self._labels.binary else class_metrics(confusion)
        if self._curve is not None:
            values |= curve_metrics(self.histograms)
        values["loss"] = loss / pixels if pixels else math.nan
        return values

    @property
    def confusion(self) -> list[list[int]]:
        """Pixels by label (row) and answer (column)."""
        n = len(self._labels.names)
        rows: list[list[int]] = self._confusion.view(n, n).tolist()
        return rows

    @property
    def histograms(self) -> list[list[list[int]]]:
        """Of each class (of yes alone in the binary case): negative and positive pixels by thresholds reached."""
        if self._curve is None:
            raise ValueError("curves were not asked for")
        counts: list[list[list[int]]] = self._curve.view(-1, 2, BINS).tolist()
        return counts

    def reset(self) -> None:
        """Start from nothing again, in the same places."""
        for counts in (self._confusion, self._loss, self._curve):
            if counts is not None:
                counts.zero_()

    def add_up(self, add: Callable[[Tensor], Tensor]) -> None:
        """Replace every count by what `add` makes of it in place: the sum over the processes that train together."""
        for counts in (self._confusion, self._loss, self._curve):
            if counts is not None:
                add(counts)

    def state(self) -> MetricState:
        """For a checkpoint in the middle of an epoch."""
        return {"confusion": self._confusion.cpu(), "loss": self._loss.cpu()}

    def load(self, state: MetricState) -> None:
        """Go on where a checkpoint was."""
        self._confusion.copy_(state["confusion"])
        self._loss.copy_(state["loss"])


def _count(counts: Tensor, bins: Tensor, valid: Tensor) -> None:
    """Add the valid pixels of each bin (B, H, W) to its count. bincount would wait for the device."""
    n = len(counts)
    rows = bins.flatten(0, 1).where(valid.flatten(0, 1), n)  # n: counted and left out
    if bins.is_cuda and n <= MOST_BINS_OF_A_ROW:
        # A GPU adds to one place one after the other: each row of pixels gets places of its own.
        rows = rows + (n + 1) * torch.arange(len(rows), device=bins.device).unsqueeze(1)
        places = counts.new_zeros(len(rows), n + 1)
    else:
        places = counts.new_zeros(1, n + 1)
    places.view(-1).scatter_add_(0, rows.flatten(), counts.new_ones(1).expand(rows.numel()))
    counts += places.sum(0)[:n]


def binary_metrics(confusion: Confusion) -> dict[str, float]:
    """The metrics of yes and no that follow from the counts at one threshold."""
    (tn, fp), (fn, tp) = confusion
    return _ratios([(tp, fp, fn, tn)]) | _overall(confusion)


def class_metrics(confusion: Confusion) -> dict[str, float]:
    """The metrics of several classes: means over those that occur."""
    total = sum(map(sum, confusion))
    per_class = []
    for i, row in enumerate(confusion):
        tp, labelled, answered = row[i], sum(row), sum(other[i] for other in confusion)
        if labelled + answered:
            per_class.append((tp, answered - tp, labelled - tp, total - labelled - answered + tp))
    return _ratios(per_class) | _overall(confusion)


def _ratios(per_class: Sequence[tuple[int, int, int, int]]) -> dict[str, float]:
    """Means over classes of what follows from each one's (tp, fp, fn, tn)."""

    def mean(values: Sequence[float]) -> float:
        return sum(values) / len(values) if per_class and sum(per_class[0]) else math.nan

    return {
        "Precision": mean([ratio(tp, tp + fp) for tp, fp, _, _ in per_class]),
        "Specificity": mean([ratio(tn, tn + fp) for _, fp, _, tn in per_class]),
        "Recall": mean([ratio(tp, tp + fn) for tp, _, fn, _ in per_class]),
        "F1Score": mean([ratio(2 * tp, 2 * tp + fp + fn) for tp, fp, fn, _ in per_class]),
        "JaccardIndex": mean([ratio(tp, tp + fp + fn) for tp, fp, fn, _ in per_class]),
    }


def _overall(confusion: Confusion) -> dict[str, float]:
    """What counts all classes at once."""
    total = sum(map(sum, confusion))
    if total == 0:
        return dict.fromkeys(("Accuracy", "CohenKappa", "HammingDistance"), math.nan)
    accuracy = sum(row[i] for i, row in enumerate(confusion)) / total
    by_chance = sum(sum(row) * sum(other[i] for other in confusion) for i, row in enumerate(confusion)) / total**2
    return {
        "Accuracy": accuracy,
        "CohenKappa": ratio(accuracy - by_chance, 1 - by_chance),
        "HammingDistance": 1 - accuracy,
    }


def curve_metrics(histograms: Sequence[Sequence[Counts]]) -> dict[str, float]:
    """AUROC and AveragePrecision from histograms by the number of thresholds reached (0 to N_THRESHOLDS).

    Args:
        histograms: of each class its negative and its positive pixels.
    """
    if not sum(map(sum, histograms[0])):
        return {"AUROC": math.nan, "AveragePrecision": math.nan}
    areas, precisions = [], []
    for negatives, positives in histograms:
        if not sum(positives):
            continue
        points = curve_points(negatives, positives)
        if sum(negatives):
            areas.append(sum((b.fpr - a.fpr) * (b.recall + a.recall) / 2 for a, b in pairwise(points)))
        precisions.append(sum((b.recall - a.recall) * b.precision for a, b in pairwise(points)))
    return {"AUROC": _mean(areas), "AveragePrecision": _mean(precisions)}


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else 0.0


class CurvePoint(NamedTuple):
    """The rates at one threshold."""

    fpr: float
    recall: float
    precision: float


def curve_points(negatives: Counts, positives: Counts) -> list[CurvePoint]:
    """From "no" everywhere, then from the highest threshold down; precision is 1 where nothing is called a yes."""
    n_negative, n_positive = sum(negatives), sum(positives)
    points = [CurvePoint(0.0, 0.0, 1.0)]
    tp = fp = 0
    for reached in range(N_THRESHOLDS, 0, -1):
        tp += positives[reached]
        fp += negatives[reached]
        points.append(CurvePoint(ratio(fp, n_negative), ratio(tp, n_positive), ratio(tp, tp + fp) if tp + fp else 1.0))
    return points


def ratio(part: float, whole: float) -> float:
    """The share that a part is of a whole; 0 of nothing."""
    return part / whole if whole else 0.0
