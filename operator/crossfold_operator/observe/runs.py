"""TrainRuns -> the runs of a trial. Pure."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from crossfold_operator.api.crossvalidation import RunRecord
from crossfold_operator.api.fields import Usage
from crossfold_operator.names import TERMINAL_TRAIN_RUN, TrainRunPhase
from crossfold_operator.observe.metadata import Obj, is_deleting


def finite(text: str | None) -> float | None:
    """A decimal as a status writes it; None where there is none, or none that may be reckoned with."""
    value = float(text) if text is not None else math.nan
    return value if math.isfinite(value) else None


@dataclass(frozen=True)
class Run:
    """A TrainRun as its CrossValidation and its root see it."""

    record: RunRecord
    uid: str = ""
    """Empty when the object is gone and only its record is left."""
    deleting: bool = False
    stopping: bool = False
    """spec.stop is set."""
    suspended: bool = False
    """spec.suspend is set."""
    waiting: tuple[str, str] | None = None
    """Reason and message of its Degraded condition."""
    started: str | None = None
    """When the container of its attempt under way started."""
    ended: str | None = None
    """When its latest attempt that has ended did so."""

    @property
    def unit(self) -> tuple[int, int]:
        """Fold and seed."""
        return self.record.fold, self.record.seed

    @property
    def terminal(self) -> bool:
        """Whether it has ended for good."""
        return self.record.phase in TERMINAL_TRAIN_RUN


def spoilt(runs: Iterable[Run]) -> bool:
    """Whether a run failed, was stopped, or has no score that may be compared: no further run is then started."""
    return any(
        run.record.phase in (TrainRunPhase.FAILED, TrainRunPhase.STOPPED)
        or (run.record.phase is TrainRunPhase.SUCCEEDED and not run.record.stable)
        for run in runs
    )


def read_runs(train_runs: Iterable[Obj], remembered: Iterable[RunRecord]) -> list[Run]:
    """The runs of a trial: those that exist, and finished ones that are remembered and gone."""
    seen = {run.unit: run for run in map(_run, train_runs)}
    for record in remembered:
        unit = (record.fold, record.seed)
        if record.phase in TERMINAL_TRAIN_RUN and (unit not in seen or not seen[unit].terminal):
            seen[unit] = Run(record)
    return sorted(seen.values(), key=lambda run: run.unit)


def _run(obj: Obj) -> Run:
    spec, status = obj["spec"], obj.get("status") or {}
    phase = TrainRunPhase(status.get("phase", TrainRunPhase.QUEUED))
    failure = status.get("failure") or {}
    scored = phase is TrainRunPhase.SUCCEEDED
    record = RunRecord(
        fold=spec.get("fold", 0),
        seed=spec.get("seed", 42),
        run=obj["metadata"]["name"],
        phase=phase,
        score=status.get("score") if scored else None,
        stable=status.get("stable", False) if scored else None,
        values=status.get("values", {}) if scored else {},
        curve=status.get("curve", ()),
        preemptions=status.get("preemptions", 0),
        failure_class=failure.get("class", "") if phase is TrainRunPhase.FAILED else "",
        message=_brief(phase, status, failure),
        data_digest=status.get("dataDigest", ""),
        usage=Usage.model_validate(status.get("usage", {})),
    )
    degraded = next(
        (c for c in status.get("conditions", ()) if c["type"] == "Degraded" and c["status"] == "True"), None
    )
    return Run(
        record,
        uid=obj["metadata"]["uid"],
        deleting=is_deleting(obj),
        stopping="stop" in spec,
        suspended=spec.get("suspend", False),
        started=(status.get("current") or {}).get("startTime"),
        ended=status.get("endTime"),
        waiting=(degraded["reason"], degraded.get("message", "")) if degraded else None,
    )


def _brief(phase: TrainRunPhase, status: Mapping[str, Any], failure: Mapping[str, Any]) -> str:
    if phase is TrainRunPhase.FAILED:
        return str(failure.get("message", ""))[:512]
    if phase is TrainRunPhase.SUCCEEDED and not status.get("stable", False):
        return str(status.get("summary", {}).get("reason", ""))[:512]
    return ""
