"""The live metric of a run in a few points: what runs are compared by while they train.

Each point says all that came before it, so that a curve may be as coarse as one likes and a run that resumed has the
same one. The epochs of the points are fixed beforehand: curves of different runs can be laid beside each other.
"""

import math
from collections.abc import Iterable, Sequence
from typing import Annotated

from pydantic import Field

from crossfold_trainer.contract.base import Model
from crossfold_trainer.contract.metrics import Direction

MOST_POINTS = 16
"""Points of a curve, which travels in a message of 4 KB."""
DIGITS = 6
"""Significant digits of a point's numbers."""

CurveEpoch = Annotated[int, Field(ge=1, le=100_000)]
CurveEpochs = Annotated[list[CurveEpoch], Field(max_length=MOST_POINTS)]


class CurvePoint(Model):
    """A run's scores up to an epoch. Validations without a score that may be compared do not count."""

    epoch: CurveEpoch
    """Epochs trained."""
    best: Annotated[float, Field(allow_inf_nan=False)]
    """The best score of the validations so far."""
    mean: Annotated[float, Field(allow_inf_nan=False)]
    """The mean of their scores."""


def curve_of(scores: Iterable[tuple[int, float]], epochs: Sequence[int], direction: Direction) -> list[CurvePoint]:
    """The curve of a run.

    Args:
        scores: (epoch, score) of its validations that may be compared, epochs counted from 1.
        epochs: those of the points, as far as the run has come; before its first score it has none.
        direction: which scores are better.
    """
    seen = sorted(scores)
    points = []
    for epoch in sorted(set(epochs)):
        before = [score for at, score in seen if at <= epoch]
        if before:
            best = max(before) if direction is Direction.MAXIMIZE else min(before)
            # Each is divided on its own: a sum may overflow where the mean does not.
            mean = math.fsum(score / len(before) for score in before)
            points.append(CurvePoint(epoch=epoch, best=_rounded(best), mean=_rounded(mean)))
    return points


def _rounded(value: float) -> float:
    return float(f"{value:.{DIGITS}g}")
