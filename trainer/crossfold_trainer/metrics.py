"""The pixel metrics of the contract's table, accumulated on the device and read once an epoch.

A ratio without a single case (recall where nothing is positive, AUROC where one class is missing) counts 0, so
that a metric is a number wherever there is a valid pixel; a score of 0 is unstable and never best.
Without any valid pixel every metric is NaN.
"""

import math
from typing import TypedDict

import torch
from torch import Tensor

from crossfold_trainer.data import IGNORE

THRESHOLD = 0.5
"""Above it a pixel is a yes."""
N_THRESHOLDS = 20
"""Of AUROC and AveragePrecision: evenly spaced from 0 to 1."""


class MetricState(TypedDict):
    """What a checkpoint keeps of half an epoch."""

    confusion: Tensor
    loss: Tensor


class PixelMetrics:
    """Counts over any number of batches.

    Shapes: logits (B, H, W), y (B, H, W) with 0 no, 1 yes, 2 ignore.
    """

    def __init__(self, device: torch.device, *, curves: bool) -> None:
        """Start from nothing; `curves` adds what AUROC and AveragePrecision need."""
        self._confusion = torch.zeros(4, dtype=torch.int64, device=device)  # tn, fp, fn, tp
        self._loss = torch.zeros(2, dtype=torch.float64, device=device)  # sum over valid pixels, their number
        self._curve = torch.zeros(2, N_THRESHOLDS + 1, dtype=torch.int64, device=device) if curves else None
        self._thresholds = torch.linspace(0, 1, N_THRESHOLDS, device=device)

    def update(self, probability: Tensor, y: Tensor, loss_sum: Tensor, pixels: Tensor) -> None:
        """Add a batch."""
        valid = y != IGNORE
        positive = y == 1
        predicted = probability > THRESHOLD
        true_positive = (predicted & positive).sum()
        false_positive = (predicted & valid & ~positive).sum()
        false_negative = (positive & ~predicted).sum()
        true_negative = valid.sum() - true_positive - false_positive - false_negative
        self._confusion += torch.stack([true_negative, false_positive, false_negative, true_positive])
        self._loss += torch.stack([loss_sum.detach().double(), pixels.double()])
        if self._curve is not None:
            # How many thresholds a pixel reaches: 0 to N_THRESHOLDS. Ignored pixels go to a bin of their own.
            reached = torch.bucketize(probability, self._thresholds, right=True)
            bins = torch.where(valid, reached + (N_THRESHOLDS + 1) * positive, 2 * (N_THRESHOLDS + 1))
            counts = torch.bincount(bins.flatten(), minlength=2 * (N_THRESHOLDS + 1) + 1)
            self._curve += counts[:-1].view(2, N_THRESHOLDS + 1)

    def compute(self) -> dict[str, float]:
        """Every metric by the name that the contract gives it."""
        tn, fp, fn, tp = (int(v) for v in self._confusion.tolist())
        loss, pixels = self._loss.tolist()
        values = confusion_metrics(tn, fp, fn, tp)
        if self._curve is not None:
            values |= curve_metrics(self._curve[1].tolist(), self._curve[0].tolist())
        values["loss"] = loss / pixels if pixels else math.nan
        return values

    def state(self) -> MetricState:
        """For a checkpoint in the middle of an epoch."""
        return {"confusion": self._confusion.cpu(), "loss": self._loss.cpu()}

    def load(self, state: MetricState) -> None:
        """Go on where a checkpoint was."""
        self._confusion.copy_(state["confusion"])
        self._loss.copy_(state["loss"])


def confusion_metrics(tn: int, fp: int, fn: int, tp: int) -> dict[str, float]:
    """The metrics that follow from the counts at one threshold."""
    total = tn + fp + fn + tp
    if total == 0:
        return dict.fromkeys(
            (
                "Accuracy",
                "Precision",
                "Specificity",
                "Recall",
                "F1Score",
                "JaccardIndex",
                "CohenKappa",
                "HammingDistance",
            ),
            math.nan,
        )
    accuracy = (tp + tn) / total
    by_chance = ((tp + fp) * (tp + fn) + (tn + fn) * (tn + fp)) / total**2
    return {
        "Accuracy": accuracy,
        "Precision": _ratio(tp, tp + fp),
        "Specificity": _ratio(tn, tn + fp),
        "Recall": _ratio(tp, tp + fn),
        "F1Score": _ratio(2 * tp, 2 * tp + fp + fn),
        "JaccardIndex": _ratio(tp, tp + fp + fn),
        "CohenKappa": _ratio(accuracy - by_chance, 1 - by_chance),
        "HammingDistance": 1 - accuracy,
    }


def curve_metrics(positives: list[int], negatives: list[int]) -> dict[str, float]:
    """AUROC and AveragePrecision from histograms by the number of thresholds reached (0 to N_THRESHOLDS)."""
    n_positive, n_negative = sum(positives), sum(negatives)
    if n_positive + n_negative == 0:
        return {"AUROC": math.nan, "AveragePrecision": math.nan}
    auroc = average_precision = 0.0
    tp = fp = 0
    recall = false_rate = 0.0
    for reached in range(N_THRESHOLDS, 0, -1):  # from the highest threshold down
        tp += positives[reached]
        fp += negatives[reached]
        new_recall, new_false_rate = _ratio(tp, n_positive), _ratio(fp, n_negative)
        auroc += (new_false_rate - false_rate) * (new_recall + recall) / 2
        average_precision += (new_recall - recall) * _ratio(tp, tp + fp)
        recall, false_rate = new_recall, new_false_rate
    return {"AUROC": auroc, "AveragePrecision": average_precision}


def _ratio(part: float, whole: float) -> float:
    return part / whole if whole else 0.0
