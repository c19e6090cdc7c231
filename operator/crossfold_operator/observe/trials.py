"""A CrossValidation -> a trial of its Tune. Pure."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, TypeVar, TypeVarTuple

from crossfold_operator.api.crossvalidation import AuditSpec, CrossValidationStatus, RunRecord, TrialStopSpec
from crossfold_operator.api.fields import MetricSummary, Usage
from crossfold_operator.api.trainrun import StopReason
from crossfold_operator.names import TERMINAL_CROSS_VALIDATION, CrossValidationPhase, TrainRunPhase
from crossfold_operator.observe.curves import Curve, curve_of
from crossfold_operator.observe.metadata import Obj, is_deleting
from crossfold_operator.observe.runs import Run, finite, read_runs, spoilt
from crossfold_operator.observe.tally import Tally, tally
from crossfold_trainer.contract.base import Model
from crossfold_trainer.contract.result import FailureClass

ModelT = TypeVar("ModelT", bound=Model)
T = TypeVar("T")
Ts = TypeVarTuple("Ts")

Score = tuple[int, int, float]
"""Fold, seed and score of a run."""


@dataclass(frozen=True, eq=False)
class Ended:
    """What counts of a trial that has ended.

    It is the same object for as long as the CrossValidation has not changed, so that what is reckoned from many of them
    can be kept for the same ones.
    """

    succeeded: int = 0
    failed: int = 0
    stopped: int = 0
    preemptions: int = 0
    expected: int = 0
    """Runs of the complete trial."""
    created: int = 0
    """Runs that were started, whatever became of them."""
    scores: tuple[Score, ...] = ()
    """Of the runs that succeeded with a score that may be compared."""
    curves: Mapping[tuple[int, int], Curve] = field(default_factory=dict)
    """Of the runs that told one, by fold and seed."""
    usage: Usage = field(default_factory=Usage)
    end_time: str | None = None
    data_digest: str = ""
    metrics: Mapping[str, MetricSummary] = field(default_factory=dict)


@dataclass(frozen=True)
class Trial:
    """A CrossValidation as its Tune sees it.

    It is the same object for as long as nothing below the CrossValidation has changed, and keeps what was reckoned
    from it (``once``): a look at a Tune asks the same of all its trials, most of which are as they were.
    """

    number: int
    name: str
    uid: str
    phase: CrossValidationPhase
    parameters: Mapping[str, Any]
    score: float | None = None
    std: float | None = None
    config_failure: str = ""
    """Message of a run that failed for its configuration; empty when there is none."""
    out_of_memory: bool = False
    """Whether a run failed since the accelerator's memory did not suffice."""
    runs: tuple[Run, ...] = ()
    """Its runs while it is under way; none once it is terminal."""
    ended: Ended | None = None
    """What became of its runs, once it is terminal."""
    deleting: bool = False
    stop: TrialStopSpec | None = None
    """Why it is to end before its time."""
    audit: AuditSpec | None = None
    """It would have been pruned."""
    suspended: bool = False
    _known: dict[Callable[..., Any], tuple[tuple[Any, ...], Any]] = field(
        default_factory=dict, init=False, repr=False, compare=False
    )

    def once(self, reckon: "Callable[[Trial, *Ts], T]", *settings: *Ts) -> T:
        """``reckon(self, *settings)``, reckoned once for as long as the settings are the same."""
        known = self._known.get(reckon)
        if known is None or known[0] != settings:
            known = self._known[reckon] = (settings, reckon(self, *settings))
        found: T = known[1]
        return found

    @cached_property
    def tally(self) -> Tally:
        """Its runs while it is under way, counted."""
        return tally(self.runs)

    @cached_property
    def spoilt(self) -> bool:
        """Whether one of its runs was lost, so that no further one is started."""
        return spoilt(self.runs)

    @property
    def terminal(self) -> bool:
        """Whether it has ended for good."""
        return self.phase in TERMINAL_CROSS_VALIDATION

    @property
    def stopping(self) -> bool:
        """Whether it is to end before its time."""
        return self.stop is not None

    @property
    def pruned(self) -> bool:
        """Whether racing or pruning stopped it."""
        return self.stop is not None and self.stop.reason is StopReason.PRUNED

    @property
    def decision(self) -> TrialStopSpec | AuditSpec | None:
        """What racing or pruning decided about it, as it is written down: to stop it, or to audit it."""
        return self.stop if self.pruned else self.audit

    @cached_property
    def scores(self) -> tuple[Score, ...]:
        """Of its runs that succeeded with a score that may be compared."""
        return self.ended.scores if self.ended is not None else scores_of(run.record for run in self.runs)

    def run(self, unit: tuple[int, int]) -> Run | None:
        """The run of this fold and seed, while the trial is under way."""
        return next((run for run in self.runs if run.unit == unit), None)

    def curve(self, unit: tuple[int, int]) -> Curve | None:
        """The curve of the run of this fold and seed, if it told one."""
        if self.ended is not None:
            return self.ended.curves.get(unit)
        run = self.run(unit)
        return curve_of(run.record) if run is not None and run.record.curve else None


def read_trial(obj: Obj, number: int, searched: frozenset[str], runs_of: Callable[[str], Iterable[Obj]]) -> Trial:
    """One trial.

    Args:
        obj: its CrossValidation.
        number: its number.
        searched: canonical names of the hyperparameters of the search space.
        runs_of: its TrainRuns by its UID (not asked for once it is terminal).
    """
    status = obj.get("status") or {}
    phase = CrossValidationPhase(status.get("phase", CrossValidationPhase.PENDING))
    uid = obj["metadata"]["uid"]
    runs: Sequence[Run] = ()
    ended: Ended | None = None
    if phase in TERMINAL_CROSS_VALIDATION:
        seen = CrossValidationStatus.model_validate(dict(status))
        records = seen.runs
        ended = Ended(
            succeeded=seen.succeeded,
            failed=seen.failed,
            stopped=sum(record.phase is TrainRunPhase.STOPPED for record in records),
            preemptions=seen.preemptions,
            expected=seen.expected,
            created=len(records),
            scores=scores_of(records),
            curves={(record.fold, record.seed): curve_of(record) for record in records if record.curve},
            usage=seen.usage,
            end_time=seen.end_time,
            data_digest=seen.data_digest,
            metrics=seen.metrics,
        )
    else:
        runs = read_runs(runs_of(uid), [RunRecord.model_validate(r) for r in status.get("runs", ())])
        records = [run.record for run in runs]
    return Trial(
        number=number,
        name=obj["metadata"]["name"],
        uid=uid,
        phase=phase,
        parameters={p["name"]: p.get("value") for p in obj["spec"].get("hyperparameters", ()) if p["name"] in searched},
        score=finite(status.get("score")),
        std=finite(status.get("std")),
        config_failure=next((r.message for r in records if r.failure_class == FailureClass.CONFIG), ""),
        out_of_memory=any(r.failure_class == FailureClass.OUT_OF_MEMORY for r in records),
        runs=tuple(runs),
        ended=ended,
        deleting=is_deleting(obj),
        stop=_model(TrialStopSpec, obj["spec"].get("stop")),
        audit=_model(AuditSpec, obj["spec"].get("audit")),
        suspended=obj["spec"].get("suspend", False),
    )


def scores_of(records: Iterable[RunRecord]) -> tuple[Score, ...]:
    """The scores of the runs that succeeded with one that may be compared."""
    return tuple(
        (record.fold, record.seed, score)
        for record in records
        if record.phase is TrainRunPhase.SUCCEEDED and record.stable and (score := finite(record.score)) is not None
    )


def _model(model: type[ModelT], content: Any) -> ModelT | None:
    return None if content is None else model.model_validate(content)
