"""The scores of a run at a few epochs, as its record has them. Pure."""

from bisect import bisect_right
from dataclasses import dataclass
from typing import NamedTuple

from crossfold_operator.api.crossvalidation import RunRecord
from crossfold_operator.names import TrainRunPhase


class Point(NamedTuple):
    """A run's scores up to an epoch."""

    epoch: int
    best: float
    mean: float


@dataclass(frozen=True)
class Curve:
    """A run's points by epoch, at least one."""

    points: tuple[Point, ...]
    completed: bool
    """It ended by itself, with a score that may be compared: neither under way, nor failed, nor stopped."""

    @property
    def last(self) -> Point:
        """The latest point."""
        return self.points[-1]

    def at(self, epoch: int) -> Point | None:
        """The point of an epoch; of a run that ended by itself before, its last one."""
        place = bisect_right(self.points, epoch, key=lambda point: point.epoch)
        if not place:
            return None
        found = self.points[place - 1]
        return found if found.epoch == epoch or (self.completed and place == len(self.points)) else None


def curve_of(record: RunRecord) -> Curve:
    """The curve of a run that has one."""
    points = sorted(Point(seen.epoch, float(seen.best), float(seen.mean)) for seen in record.curve)
    completed = record.phase is TrainRunPhase.SUCCEEDED and bool(record.stable)
    return Curve(tuple(points), completed)
