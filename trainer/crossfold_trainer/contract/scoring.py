"""From metric values to a run's score, and from runs to a trial's score. The only place that computes them.

A single metric is scored as it is and keeps its own direction. Several metrics make one score, of which more is always
better: a metric m enters it as m' = m (Maximize) or 1 / max(m, LEAST) (Minimize).

0 makes a score unstable only where more is better: there it says that the model has learned nothing. Where less is
better it is the best value there is. Its inverse is unbounded, and so are an arithmetic and a geometric mean with it;
therefore values below LEAST count as LEAST. Any other value for the inverse of 0 would either be overtaken by the
inverses of small values, so that a better metric gave a worse score, or be infinite, so that no mean over runs could be
compared. This one is continuous, and differs from the limit of a harmonic mean (or of Min) by a part in 1e9.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple, assert_never

from crossfold_trainer.contract.metrics import Direction, metric_info
from crossfold_trainer.contract.objective import Combine, ObjectiveMetric, ObjectiveSpec

LEAST = 1e-9
"""In a combined score, values of a metric to be minimised are not told apart below this: one wrong pixel in 1e9."""
_ROUNDING = 1e-5
"""What a loss may lie below 0 by single precision alone: it counts as 0."""


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
        The score; unstable, with the reason, when a scoring metric is missing or non-finite; 0 where more is better;
        or negative where the combination has no place for it.
    """
    single = len(objective.metrics) == 1
    terms: list[float] = []
    for metric in objective.metrics:
        value = values.get(metric.name)
        if value is None or not math.isfinite(value):
            return Score(None, False, f"{metric.name} is {'missing' if value is None else value}")
        if value == 0 and metric.resolved_direction is Direction.MAXIMIZE:
            return Score(0.0 if single else None, False, f"{metric.name} is 0")
        if single:
            return Score(value + 0.0, True)  # -0.0 is 0
        if value < 0 and (problem := _negative(metric, value, objective.combine)):
            return Score(None, False, f"{metric.name} is negative {problem}")
        terms.append(_term(metric, value))
    score = _combine(terms, objective.combine)
    if not math.isfinite(score):
        return Score(None, False, f"{objective.combine} of {', '.join(map(repr, terms))} is not finite")
    return Score(score, True)


def unreported(missing: Iterable[str], reported: Iterable[str]) -> str:
    """What is wrong where a trainer does not report a metric of the objective, and what to do."""
    found = ", ".join(reported) or "none"
    return f"spec.objective.metrics: the trainer reports no {', '.join(missing)}: name one that it reports ({found})"


def _negative(metric: ObjectiveMetric, value: float, combine: Combine) -> str:
    """Why a negative value of a metric cannot be combined; empty where it can."""
    if metric.resolved_direction is Direction.MAXIMIZE:
        return f"under {combine}" if combine in (Combine.HARMONIC, Combine.GEOMETRIC) else ""
    return "" if value >= -_ROUNDING else "and to be minimised: 1/value has no order below 0, score it alone"


def _term(metric: ObjectiveMetric, value: float) -> float:
    """What a value enters a combined score as: more is better."""
    return value if metric.resolved_direction is Direction.MAXIMIZE else 1 / max(value, LEAST)


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
        low, high = (None, None) if info is None else (info.low, info.high)
        # An unknown metric must say its direction, but is asked before anyone has seen to that.
        if (info is not None or metric.direction is not None) and metric.resolved_direction is Direction.MINIMIZE:
            # What is negative is not combined, but for rounding.
            low, high = (0.0 if high is None else _term(metric, high)), _term(metric, low or 0.0)
        lows.append(low)
        highs.append(high)
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


def decimals_of(score: float, least: int) -> int:
    """Decimals in which a score is shown, and the numbers beside it: so that ``least`` of its digits are seen.

    Where less is better good scores are near 0, and differ in digits that a fixed number of decimals would hide.

    Args:
        score: any number.
        least: decimals of 0, and of a score from 0.1 on.

    Returns:
        From ``least`` to 12.
    """
    if score == 0 or not math.isfinite(score):
        return least
    return min(12, max(least, least - 1 - math.floor(math.log10(abs(score)))))
