"""The status of a Tune: (spec, trials, previous, now) -> status. Pure."""

from collections.abc import Sequence
from datetime import datetime

from crossfold_operator.api.parameters import ParameterValue
from crossfold_operator.api.tune import (
    AuditStatus,
    BestTrial,
    DecisionAction,
    LastDecision,
    RunCounts,
    SearchStatus,
    TrialBrief,
    TrialCounts,
    TuneSpec,
    TuneStatus,
    TuneSummary,
)
from crossfold_operator.names import (
    Condition,
    CrossValidationPhase,
    Reason,
    TrainRunPhase,
    TunePhase,
)
from crossfold_operator.observe.runs import Run
from crossfold_operator.observe.trials import Trial
from crossfold_operator.plan.spending import spent, usages, wall_clock
from crossfold_operator.plan.tune import in_flight
from crossfold_operator.plan.verdict import Verdict, failed_trials, halt, out_of_memory, verdict
from crossfold_operator.status.eta import eta
from crossfold_operator.status.facts import (
    Fact,
    conditions,
    data_digest,
    decimal,
    hours,
    run_counts,
    score_text,
    total,
    valid,
)
from crossfold_operator.times import parse_time
from crossfold_trainer.contract.config import ObjectiveSpec
from crossfold_trainer.contract.scoring import better, rank, score_direction

TOP = 10
"""Trials in the ranking."""


def tune_status(
    *,
    spec: TuneSpec,
    previous: TuneStatus,
    trials: Sequence[Trial],
    asked: int,
    search: SearchStatus,
    artifact_uri: str,
    degraded: Fact | None,
    now: datetime,
    generation: int | None,
    reporting: bool = True,
) -> TuneStatus:
    """The status of a Tune.

    Args:
        spec: its spec.
        previous: the status so far.
        trials: the trials that exist, by number.
        asked: numbers given out.
        search: what chooses the parameters.
        artifact_uri: the folder of the Tune.
        degraded: a problem that the reconcile met.
        now: the time.
        generation: of the spec.
        reporting: whether the operator hears from runs while they train.
    """
    clock = wall_clock(previous.wall_clock, trials, now)
    used = spent(spec, trials, clock, now)
    over = verdict(spec, trials, asked, used, exhausted=search.exhausted)
    ending = halt(spec, trials, used)
    runs = [run for trial in trials for run in trial.runs]
    finished = [trial.ended for trial in trials if trial.ended is not None]
    counts = _all_runs(trials)
    trial_counts = _trial_counts(trials, asked)
    usage = total(usages(trials))
    order = ranking(spec.objective, trials)
    best = _best(order[0], artifact_uri) if order else None
    degraded = _tune_degraded(previous, trials, runs, degraded) or _unheard(spec, reporting=reporting)
    phase = _tune_phase(spec, over, trials, counts)
    complete = over is not None and not over.failed
    message = over.message if over else ending.message if ending else ""
    if not message and degraded and degraded.status:
        message = degraded.message
    facts = [
        valid([]),
        Fact(Condition.SUSPENDED, spec.suspend, Reason.SUSPENDED if spec.suspend else Reason.NOT_SUSPENDED),
        degraded or Fact(Condition.DEGRADED, False, Reason.AS_EXPECTED),
        Fact(
            Condition.COMPLETE,
            complete,
            over.reason if over and complete else Reason.IN_PROGRESS,
            over.message if over and complete else "",
        ),
        Fact(
            Condition.FAILED,
            over is not None and over.failed,
            over.reason if over and over.failed else Reason.AS_EXPECTED,
            over.message if over and over.failed else "",
        ),
    ]
    ended = asked - trial_counts.running
    return TuneStatus(
        observed_generation=generation,
        phase=phase,
        conditions=conditions(previous.conditions, facts, now, generation),
        image=previous.image,
        data_digest=previous.data_digest or next((ended.data_digest for ended in finished if ended.data_digest), ""),
        search=search,
        trials=trial_counts,
        runs=counts,
        best=best,
        top=[_brief(trial) for trial in order[:TOP]],
        usage=usage,
        wall_clock=clock,
        last_decision=_last_decision(trials),
        audit=_audit(spec, trials) if spec.racing.enabled and spec.racing.audit else None,
        pruning_audit=_audit(spec, trials, inside=True) if spec.pruning.enabled and spec.pruning.audit else None,
        summary=TuneSummary(
            trials=f"{ended}/{max(asked, spec.max_trials) if not search.exhausted else asked}",
            best=score_text(best.score, best.std) if best else "",
            gpu=hours(used.gpu_seconds),
            saved=_saved(counts),
            eta=eta(spec, trials, asked, usage, ending=search.exhausted or ending is not None)
            if phase is TunePhase.RUNNING
            else "",
            objective=objective_text(spec.objective)[:253],
            reason=message[:253],
        ),
    )


def objective_text(objective: ObjectiveSpec) -> str:
    """The objective in a few words, for a column."""
    metrics = [f"{m.resolved_direction} {m.name}" for m in objective.metrics]
    return metrics[0] if len(metrics) == 1 else f"{objective.combine}({', '.join(metrics)})"


def _tune_phase(spec: TuneSpec, over: Verdict | None, trials: Sequence[Trial], counts: RunCounts) -> TunePhase:
    if over is not None:
        return TunePhase.FAILED if over.failed else TunePhase.COMPLETE
    stopped = all(run.record.phase is TrainRunPhase.SUSPENDED for run in in_flight(trials))
    if spec.suspend and stopped:
        return TunePhase.SUSPENDED
    return TunePhase.RUNNING if trials or counts.running else TunePhase.PENDING


def _all_runs(trials: Sequence[Trial]) -> RunCounts:
    active = run_counts([run for trial in trials for run in trial.runs])
    finished = [trial.ended for trial in trials if trial.ended is not None]
    return active.model_copy(
        update={
            "succeeded": active.succeeded + sum(ended.succeeded for ended in finished),
            "failed": active.failed + sum(ended.failed for ended in finished),
            "stopped": active.stopped + sum(ended.stopped for ended in finished),
            "skipped": sum(
                trial.ended.expected - trial.ended.created for trial in trials if trial.ended and trial.pruned
            ),
            "preemptions": active.preemptions + sum(ended.preemptions for ended in finished),
        }
    )


def _trial_counts(trials: Sequence[Trial], asked: int) -> TrialCounts:
    phases = [trial.phase for trial in trials]
    return TrialCounts(
        asked=asked,
        running=sum(not trial.terminal for trial in trials),
        complete=phases.count(CrossValidationPhase.COMPLETE),
        pruned=phases.count(CrossValidationPhase.PRUNED),
        stopped=phases.count(CrossValidationPhase.STOPPED),
        unstable=phases.count(CrossValidationPhase.UNSTABLE),
        failed=failed_trials(trials, asked),
        out_of_memory=out_of_memory(trials),
    )


def _saved(counts: RunCounts) -> str:
    """Of the runs planned for the trials so far, the share that racing did not need; empty for none."""
    started = counts.queued + counts.running + counts.succeeded + counts.failed + counts.stopped
    return f"{100 * counts.skipped / (counts.skipped + started):.0f}%" if counts.skipped else ""


def _last_decision(trials: Sequence[Trial]) -> LastDecision | None:
    """The latest decision to prune; of several at one time the one about the trial with the highest number."""
    made = [
        LastDecision(trial=trial.number, action=DecisionAction.PRUNED, time=trial.stop.time, message=trial.stop.message)
        for trial in trials
        if trial.pruned and trial.stop is not None and trial.stop.time is not None
    ]
    made += [
        LastDecision(
            trial=trial.number, action=DecisionAction.AUDITED, time=trial.audit.time, message=trial.audit.message
        )
        for trial in trials
        if trial.audit is not None
    ]
    return max(made, key=lambda decision: (parse_time(decision.time), decision.trial), default=None)


def _audit(spec: TuneSpec, trials: Sequence[Trial], *, inside: bool = False) -> AuditStatus:
    """How often racing was wrong, or pruning inside a run; where no other trial was complete then, any score wins."""
    direction = score_direction(spec.objective)
    checked = [
        look.bar is None or better(trial.score, look.bar, direction)
        for trial in trials
        if trial.phase is CrossValidationPhase.COMPLETE and trial.audit is not None and trial.score is not None
        if (look := trial.audit.run_look if inside else trial.audit.look) is not None
    ]
    return AuditStatus(checked=len(checked), would_have_won=sum(checked))


def ranking(objective: ObjectiveSpec, trials: Sequence[Trial]) -> list[Trial]:
    """Complete trials, best first; of equal ones the older first."""
    direction = score_direction(objective)
    scored = [t for t in trials if t.phase is CrossValidationPhase.COMPLETE and t.score is not None]
    return sorted(scored, key=lambda t: rank(t.score or 0.0, t.number, direction))


def _brief(trial: Trial) -> TrialBrief:
    return TrialBrief(
        trial=trial.number,
        cross_validation=trial.name,
        score=decimal(trial.score or 0.0),
        std=decimal(trial.std or 0.0),
    )


def _best(trial: Trial, artifact_uri: str) -> BestTrial:
    return BestTrial(
        **_brief(trial).model_dump(by_alias=False),
        parameters=[ParameterValue(name=name, value=value) for name, value in trial.parameters.items()],
        metrics=dict(trial.ended.metrics) if trial.ended else {},
        artifact_uri=f"{artifact_uri}/{trial.name}",
    )


def _unheard(spec: TuneSpec, *, reporting: bool) -> Fact | None:
    """Pruning without anything to go by."""
    if reporting or not spec.pruning.enabled:
        return None
    text = "spec.pruning: nothing is pruned inside runs, since live progress is off: set the chart's progress.enabled"
    return Fact(Condition.DEGRADED, True, Reason.NO_LIVE_PROGRESS, text)


def _tune_degraded(
    previous: TuneStatus, trials: Sequence[Trial], runs: Sequence[Run], degraded: Fact | None
) -> Fact | None:
    """The first problem worth telling: what the reconcile met, a configuration error, or why runs wait."""
    if degraded is not None:
        return degraded
    for trial in trials:
        if message := trial.config_failure:
            return Fact(Condition.DEGRADED, True, Reason.CONFIG_ERROR, f"{trial.name}: {message}")
    known = previous.data_digest
    for trial in trials:
        seen = trial.ended.data_digest if trial.ended else ""
        known = known or seen
        if seen and seen != known:
            text = (
                f"{trial.name} read other data ({seen[:12]}) than earlier trials ({known[:12]}): spec.data.uri changed"
            )
            return Fact(Condition.DEGRADED, True, Reason.DATA_INVALID, text)
    return data_digest("", runs, None)[1]
