"""What an administrator allows, whatever a spec asks for. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeVar

from crossfold_operator.api.crossvalidation import CrossValidationSpec
from crossfold_operator.api.tune import TuneSpec
from crossfold_operator.names import Reason

SpecT = TypeVar("SpecT", TuneSpec, CrossValidationSpec)


@dataclass(frozen=True)
class Limits:
    """Limits for all namespaces; 0: none.

    Attributes:
        trials: of a Tune.
        parallelism: runs in flight of a Tune, or of a CrossValidation of its own.
        runs: in flight, of all that is in a namespace.
    """

    trials: int = 0
    parallelism: int = 0
    runs: int = 0


@dataclass(frozen=True)
class Held:
    """A limit that holds something back, and what can be done about it."""

    reason: Reason
    message: str


def within(spec: SpecT, limits: Limits) -> tuple[SpecT, list[Held]]:
    """The spec as far as it is within the limits, and which of them it exceeds."""
    changes: dict[str, int] = {}
    held: list[Held] = []
    if isinstance(spec, TuneSpec) and 0 < limits.trials < spec.max_trials:
        changes["max_trials"] = limits.trials
        text = f"spec.maxTrials is {spec.max_trials}, and a Tune may have {limits.trials} trials"
        held.append(Held(Reason.TRIALS_LIMITED, f"{text}: {_remedy('trialsPerTune', 'spec.maxTrials')}"))
    if 0 < limits.parallelism < spec.parallelism:
        changes["parallelism"] = limits.parallelism
        text = f"spec.parallelism is {spec.parallelism}, and {limits.parallelism} runs may be in flight"
        held.append(Held(Reason.PARALLELISM_LIMITED, f"{text}: {_remedy('parallelismPerTune', 'spec.parallelism')}"))
    return (spec.model_copy(update=changes) if changes else spec), held


def shared(limits: Limits) -> Held:
    """The namespace has no run left to give."""
    text = f"the runs in flight of this namespace are limited to {limits.runs}, and shared among what is in it"
    remedy = "further runs start as others end, or when the operator's administrator raises limits.runsPerNamespace"
    return Held(Reason.RUNS_LIMITED, f"{text}: {remedy}")


def _remedy(value: str, field: str) -> str:
    return f"the operator's administrator may raise limits.{value}; lower {field} to be rid of this"


def fair_shares(limit: int, demands: Mapping[str, int]) -> dict[str, int]:
    """Max-min fair shares: nobody gets more than it asks for, and who gets less gets no less than any other.

    Args:
        limit: what there is.
        demands: what each asks for; of a remainder, the first ones get one more.

    Returns:
        The shares, by the keys of ``demands``.
    """
    shares: dict[str, int] = {}
    left = limit
    waiting = sorted(demands, key=demands.__getitem__)
    while waiting:
        least = waiting[0]
        if demands[least] * len(waiting) > left:
            break
        shares[least] = demands[least]
        left -= demands[least]
        waiting.pop(0)
    order = [one for one in demands if one not in shares]
    for place, one in enumerate(order):
        shares[one] = left // len(order) + (place < left % len(order))
    return shares
