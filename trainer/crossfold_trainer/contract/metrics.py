"""The metrics that a trainer reports, with the direction and the range of each."""

from enum import StrEnum
from typing import NamedTuple


class Direction(StrEnum):
    """Which values of a metric are better."""

    MAXIMIZE = "Maximize"
    MINIMIZE = "Minimize"


class MetricInfo(NamedTuple):
    """A metric's direction and closed range of values (None: unbounded on that side)."""

    direction: Direction
    low: float | None
    high: float | None


_HIGHER = MetricInfo(Direction.MAXIMIZE, 0.0, 1.0)

METRICS: dict[str, MetricInfo] = {
    "Accuracy": _HIGHER,
    "Precision": _HIGHER,
    "Specificity": _HIGHER,
    "Recall": _HIGHER,
    "F1Score": _HIGHER,
    "JaccardIndex": _HIGHER,
    "CohenKappa": MetricInfo(Direction.MAXIMIZE, -1.0, 1.0),
    "HammingDistance": MetricInfo(Direction.MINIMIZE, 0.0, 1.0),
    "AUROC": _HIGHER,
    "AveragePrecision": _HIGHER,
    "loss": MetricInfo(Direction.MINIMIZE, 0.0, None),
}
"""Metrics by their name without the ``train/``, ``val/`` or ``test/`` prefix (torchmetrics' names)."""

TEST_METRICS: dict[str, MetricInfo] = {
    "InstanceAccuracy": _HIGHER,
    "InstancePrecision": _HIGHER,
    "InstanceRecall": _HIGHER,
    "InstanceF1Score": _HIGHER,
    "InstanceAveragePrecision": _HIGHER,
    "InstanceBoundaryIoU": _HIGHER,
}
"""Metrics of objects, reported for the test part alone (``test/``): they can be no objective."""

REPORTED: tuple[str, ...] = (
    *(f"train/{name}" for name in METRICS if name not in ("AUROC", "AveragePrecision")),
    *(f"{part}/{name}" for part in ("val", "test") for name in METRICS),
    *(f"test/{name}" for name in TEST_METRICS),
)
"""Every metric that a result may have, by full name."""

KNOWN_OBJECTIVES: tuple[str, ...] = tuple(f"val/{name}" for name in METRICS)
"""The metrics whose direction need not be said in an objective."""


def metric_info(name: str) -> MetricInfo | None:
    """Look a prefixed metric name (``val/JaccardIndex``) up in the tables; None when it is in none."""
    prefix, _, own = name.rpartition("/")
    return METRICS.get(own) or (TEST_METRICS.get(own) if prefix == "test" else None)
