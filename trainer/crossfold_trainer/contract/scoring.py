"""From metric values to a run's score, and from runs to a trial's score. The only place that computes them.

A metric m enters a combined score as m' = m (Maximize) or 1/m (Minimize), so that more is always better.
A single metric is scored as it is and keeps its own direction.
"""

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple, assert_never

from crossfold_trainer.contract.metrics import Direction, metric_info
from crossfold_trainer.contract.objective import Combine, ObjectiveSpec


class Score(NamedTuple):
    """A score and whether it may be compared: an unstable one is shown and never best."""

    value: float | None
    stable: bool
    reason: str = ""


def score_direction(objective: ObjectiveSpec) -> Direction:
    """The direction of the objective's score: the single metric's own, Maximize for a combined one."""
    if len(objective.metrics) == 1:
        return objective.metrics[0].resolved_direction
    return Direction.MAXIMIZE


def run_score(values: Mapping[str, float | None], objective: ObjectiveSpec) -> Score:
    """Combine the scoring metrics of one run.

    Args:
        values: metric values by full name (``val/JaccardIndex``).
        objective: the metrics to combine, and how.

    Returns:
        The score; unstable, with the reason, when a scoring metric is missing, non-finite or 0, or
        negative under Harmonic or Geometric.
    """
    single = len(objective.metrics) == 1
    positive_only = not single and objective.combine in (Combine.HARMONIC, Combine.GEOMETRIC)
    terms: list[float] = []
    for metric in objective.metrics:
        value = values.get(metric.name)
        if value is None or not math.isfinite(value):
            return Score(None, False, f"{metric.name} is {'missing' if value is None else value}")
        if value == 0:
            return Score(0.0 if single else None, False, f"{metric.name} is 0")
        if value < 0 and positive_only:
            return Score(None, False, f"{metric.name} is negative under {objective.combine}")
        invert = not single and metric.resolved_direction is Direction.MINIMIZE
        terms.append(1 / value if invert else value)
    score = _combine(terms, objective.combine)
    if not math.isfinite(score):
        return Score(None, False, f"{objective.combine} of {', '.join(map(repr, terms))} is not finite")
    return Score(score, True)


def _combine(terms: Sequence[float], combine: Combine) -> float:
    if len(terms) == 1:
        return terms[0]
    match combine:
        case Combine.HARMONIC:
            return len(terms) / sum(1 / t for t in terms)
        case Combine.ARITHMETIC:
            return sum(terms) / len(terms)
        case Combine.GEOMETRIC:
            return math.prod(terms) ** (1 / len(terms))
        case Combine.MIN:
            return min(terms)
        case _:
            assert_never(combine)


def score_range(objective: ObjectiveSpec) -> tuple[float | None, float | None]:
    """Least and greatest score that the objective can have; None where it is unbounded, or a metric is not known."""
    infos = [metric_info(metric.name) for metric in objective.metrics]
    if len(infos) == 1:
        return (infos[0].low, infos[0].high) if infos[0] is not None else (None, None)
    lows: list[float | None] = []
    highs: list[float | None] = []
    for metric, info in zip(objective.metrics, infos, strict=True):
        if info is None or (metric.resolved_direction is Direction.MINIMIZE and (info.low is None or info.low < 0)):
            lows.append(None)
            highs.append(None)
        elif metric.resolved_direction is Direction.MINIMIZE:
            lows.append(0.0 if info.high is None else 1 / info.high)
            highs.append(1 / info.low if info.low else None)
        else:
            lows.append(info.low)
            highs.append(info.high)
    # Every way of combining grows with each of its terms.
    known = [high for high in highs if high is not None and high > 0]
    high = _combine(known, objective.combine) if len(known) == len(highs) else None
    known_lows = [low for low in lows if low is not None]
    return (min(known_lows) if len(known_lows) == len(lows) else None), high


def mean_std(values: Sequence[float]) -> tuple[float, float]:
    """Mean and sample standard deviation (n-1; 0 for a single value) of a non-empty sequence."""
    try:
        mean = math.fsum(values) / len(values)
    except OverflowError:
        mean = math.fsum(v / len(values) for v in values)
    if len(values) == 1:
        return mean, 0.0
    return mean, math.hypot(*(v - mean for v in values)) / math.sqrt(len(values) - 1)


def better(a: float, b: float, direction: Direction) -> bool:
    """Whether score ``a`` is strictly better than ``b``."""
    return a > b if direction is Direction.MAXIMIZE else a < b


def rank(score: float, trial: int, direction: Direction) -> tuple[float, int]:
    """What complete trials are sorted by, the best first: of equal scores the lower number."""
    return (-score if direction is Direction.MAXIMIZE else score), trial
