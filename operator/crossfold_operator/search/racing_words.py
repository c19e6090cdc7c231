"""A look of racing in words: what Events, log lines, status and ``crossfold explain`` say."""

import math
from collections.abc import Sequence
from typing import assert_never

from crossfold_operator.search.racing import Decision, Reason


def text(look: Decision) -> str:
    """A look in words, with its numbers."""
    runs = f"after {look.runs_done}/{look.runs_total} runs"
    match look.reason:
        case Reason.FAILED_RUN:
            return f"not raced {runs}: a run failed"
        case Reason.WARMUP:
            if look.warmup is None or look.warmup.needed is None:
                return f"not raced {runs}: a trial has but one run"
            return f"not raced {runs}: warm-up, {look.warmup.clean} of {look.warmup.needed} completed trials"
        case Reason.NO_LOOK:
            return f"not raced {runs}: {'none left to save' if look.runs_done == look.runs_total else 'no score yet'}"
        case Reason.BOUNDS:
            possible, bar = _or_zero(look.best_possible), _or_zero(look.bar)
            return f"pruned {runs}: even perfect remaining runs give {possible:z.4g}, not better than {bar:z.4g}"
        case Reason.EVIDENCE | Reason.UNDECIDED:
            verdict, relation = ("pruned", "<=") if look.prune else ("goes on", ">")
            predicted, bar_text, se = _decimals((look.predicted, look.bar, look.se), _or_zero(look.se))
            return (
                f"{verdict} {runs}: anytime p {_probability(look.p)} {relation} alpha = {look.alpha:g}; "
                f"predicted {predicted} +- {se} against {bar_text} (P(beat incumbent) {_probability(look.p_beat)})"
            )
        case _:
            assert_never(look.reason)


def _or_zero(value: float | None) -> float:
    return 0.0 if value is None else value


def _decimals(values: Sequence[float | None], resolution: float) -> list[str]:
    """Values with as many decimals as show two significant digits of a resolution > 0."""
    places = 0 if math.isinf(resolution) else min(12, max(0, 1 - math.floor(math.log10(resolution))))
    return [f"{_or_zero(value):z.{places}f}" for value in values]


def _probability(value: float | None) -> str:
    value = _or_zero(value)
    return "<1e-6" if value < 1e-6 else f"= {value:.2g}"
