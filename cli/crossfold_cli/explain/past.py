"""A Tune as it stood when a decision was made, from the objects as they are now. Pure.

Objects keep when they were created and when their conditions changed, to the second. That is what the operator knew and
when, since it writes both.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from itertools import combinations
from typing import Any, cast

from crossfold_operator import names
from crossfold_operator.api.crossvalidation import RunRecord
from crossfold_operator.api.tune import TuneSpec, TuneStatus
from crossfold_operator.cluster.base import Cluster
from crossfold_operator.cluster.cache import Cache
from crossfold_operator.names import Condition, CrossValidationPhase, TrainRunPhase
from crossfold_operator.observe.reader import TrialReader
from crossfold_operator.observe.runs import Run, read_runs
from crossfold_operator.observe.trials import Trial
from crossfold_operator.plan.crossvalidation import Unit
from crossfold_operator.reconcile.sources import Sources
from crossfold_operator.search.history import Trial as Told
from crossfold_operator.times import parse_time

Obj = Mapping[str, Any]

_SAME = 1e-9
"""Difference, relative or absolute, up to which two numbers are the same."""
_DOUBT = 1.0
"""Seconds by which two times may differ and still be in either order."""
_DOUBTFUL = 4
"""Trials of which both orders are considered."""


@dataclass(frozen=True)
class Seen:
    """A trial, and when the search knew what of it.

    Attributes:
        trial: as it is now.
        asked: when it got its parameters.
        ended: when the search knew that it was over; None while it is not.
        runs: its runs.
        known: when the search knew that a run was over, by fold and seed; not of a run whose object is gone.
    """

    trial: Trial
    asked: datetime
    ended: datetime | None
    runs: tuple[Run, ...]
    known: Mapping[Unit, datetime] = field(default_factory=dict)

    @property
    def undated(self) -> int:
        """Runs that came to an end of their own, and nobody knows when: their TrainRuns are gone."""
        ends = (TrainRunPhase.SUCCEEDED, TrainRunPhase.FAILED)
        return sum(run.record.phase in ends and run.unit not in self.known for run in self.runs)


@dataclass(frozen=True)
class Past:
    """A Tune with all that is left of it.

    Attributes:
        name: its name.
        namespace: its namespace.
        spec: its spec.
        status: its status.
        trials: those that exist, by number.
        asked: numbers below this one have been given out.
        start: trials of other Tunes that the sampler started from.
    """

    name: str
    namespace: str
    spec: TuneSpec
    status: TuneStatus
    trials: tuple[Seen, ...]
    asked: int
    start: tuple[Told, ...] = ()

    def get(self, number: int) -> Seen | None:
        """The trial of a number; None when its CrossValidation is gone."""
        return next((seen for seen in self.trials if seen.trial.number == number), None)

    @property
    def gone(self) -> tuple[int, ...]:
        """Numbers of the trials whose CrossValidation was deleted."""
        there = {seen.trial.number for seen in self.trials}
        return tuple(number for number in range(self.asked) if number not in there)

    @property
    def now(self) -> list[Trial]:
        """The trials as they are."""
        return [seen.trial for seen in self.trials]


def past_of(
    tune: Obj, cross_validations: Iterable[Obj], train_runs: Iterable[Obj], sources: Iterable[Obj] = ()
) -> Past:
    """Read the objects of a Tune.

    Args:
        tune: the Tune.
        cross_validations: its trials.
        train_runs: their runs; those of ended trials need not be there.
        sources: the finished Tunes of spec.warmStart, and their trials.
    """
    spec = TuneSpec.model_validate(tune["spec"])
    status = TuneStatus.model_validate(tune.get("status") or {})
    objects = {cv["metadata"]["uid"]: cv for cv in cross_validations}
    below: dict[str, list[Obj]] = {}
    for run in train_runs:
        for owner in run["metadata"].get("ownerReferences", ()):
            below.setdefault(owner["uid"], []).append(run)

    def runs_of(uid: str) -> Sequence[Obj]:
        return below.get(uid, [])

    reader = TrialReader(tune["metadata"]["name"], [parameter.name for parameter in spec.parameters])
    seen = [_seen(trial, objects[trial.uid], runs_of) for trial in reader.read(objects.values(), runs_of)]
    return Past(
        name=tune["metadata"]["name"],
        namespace=tune["metadata"].get("namespace", "default"),
        spec=spec,
        status=status,
        trials=tuple(seen),
        asked=max(status.trials.asked, seen[-1].trial.number + 1 if seen else 0),
        start=_start(tune, spec, sources),
    )


def _start(tune: Obj, spec: TuneSpec, sources: Iterable[Obj]) -> tuple[Told, ...]:
    """What the sampler was told of other Tunes."""
    cache = Cache()
    for obj in sources:
        cache.put(dict(obj))
    # It reads objects by key and by owner, which is what a cache does.
    return Sources(cast("Cluster", cache)).read(dict(tune), spec, begun=True).trials


def _seen(trial: Trial, cv: Obj, runs_of: Callable[[str], Sequence[Obj]]) -> Seen:
    status = cv.get("status") or {}
    annotations = cv["metadata"].get("annotations") or {}
    asked = annotations.get(names.ANNOTATION_ASKED) or cv["metadata"]["creationTimestamp"]
    remembered = [RunRecord.model_validate(record) for record in status.get("runs", ())]
    return Seen(
        trial=trial,
        asked=parse_time(asked),
        ended=_ended(trial, status),
        runs=tuple(read_runs(runs_of(trial.uid), remembered)),
        known={
            (run["spec"].get("fold", 0), run["spec"].get("seed", 42)): at
            for run in runs_of(trial.uid)
            if (at := _over(run.get("status") or {})) is not None
        },
    )


def _ended(trial: Trial, status: Mapping[str, Any]) -> datetime | None:
    """When a trial was over for the search: when it was pruned, or when its status said so."""
    if trial.pruned and (at := decided(trial)) is not None:
        return at
    return _over(status) if trial.terminal else None


def _over(status: Mapping[str, Any]) -> datetime | None:
    """When a status came to say that all is over; None while it does not."""
    times = [
        parse_time(condition["lastTransitionTime"])
        for condition in status.get("conditions", ())
        if condition["type"] in (Condition.COMPLETE, Condition.FAILED) and condition["status"] == "True"
    ]
    return max(times, default=None)


def decided(trial: Trial) -> datetime | None:
    """When racing or pruning decided about a trial; None where neither did."""
    decision = trial.decision
    return None if decision is None or decision.time is None else parse_time(decision.time)


def same_numbers(pairs: Iterable[tuple[float | None, float]]) -> bool:
    """Whether all numbers come out as they were written down; one that was not computed does not."""
    return all(own is not None and math.isclose(own, written, rel_tol=_SAME, abs_tol=_SAME) for own, written in pairs)


def known_at(past: Past, number: int) -> list[list[Trial]]:
    """The trials below a number as they were known when it was asked: the likeliest answer first.

    There are several when something ended in the very second.
    """
    asked = next(seen.asked for seen in past.trials if seen.trial.number == number)
    return list(known_then([seen for seen in past.trials if seen.trial.number < number], asked))


def known_then(others: Sequence[Seen], at: datetime) -> Iterator[list[Trial]]:
    """Trials as they were known at a time: the likeliest answer first, others where something ended in that second."""
    certain = [seen.ended is not None and seen.ended <= at for seen in others]
    doubtful = [
        i
        for i, seen in enumerate(others)
        if seen.ended is not None and abs((seen.ended - at).total_seconds()) <= _DOUBT
    ][-_DOUBTFUL:]
    for size in range(len(doubtful) + 1):
        for flipped in combinations(doubtful, size):
            over = [known != (i in flipped) for i, known in enumerate(certain)]
            yield [seen.trial if known else under_way(seen.trial) for seen, known in zip(others, over, strict=True)]


def under_way(trial: Trial) -> Trial:
    """An ended trial as it was before that."""
    return replace(trial, phase=CrossValidationPhase.RUNNING, score=None, std=None, ended=None, stop=None, audit=None)
