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
    TunePhase,
)
from crossfold_operator.observe.finished import Trials
from crossfold_operator.observe.trials import Trial
from crossfold_operator.plan.ranking import leading
from crossfold_operator.plan.spending import usage_of
from crossfold_operator.plan.verdict import Judgement, Verdict, failed_trials, out_of_memory, verdict
from crossfold_operator.status.eta import eta
from crossfold_operator.status.facts import (
    Fact,
    conditions,
    data_digest,
    decimal,
    hours,
    score_text,
    valid,
)
from crossfold_operator.times import parse_time
from crossfold_trainer.contract.metrics import Direction
from crossfold_trainer.contract.objective import ObjectiveSpec
from crossfold_trainer.contract.scoring import better, score_direction

_Digest = tuple[int, str, str]
"""Number and name of the first trial that read data with a digest, and the digest."""


def tune_status(
    *,
    spec: TuneSpec,
    previous: TuneStatus,
    trials: Sequence[Trial],
    asked: int,
    judgement: Judgement,
    search: SearchStatus,
    artifact_uri: str,
    degraded: Fact | None,
    now: datetime,
    generation: int | None,
    limited: Fact | None = None,
    reporting: bool = True,
) -> TuneStatus:
    """The status of a Tune.

    Args:
        spec: its spec.
        previous: the status so far.
        trials: the trials that exist, by number.
        asked: numbers given out.
        judgement: of this look.
        search: what chooses the parameters.
        artifact_uri: the folder of the Tune.
        degraded: a problem that the reconcile met.
        now: the time.
        generation: of the spec.
        limited: what an administrator's limits hold back.
        reporting: whether the operator hears from runs while they train.
    """
    trials = Trials.of(trials)
    over = verdict(spec, trials, asked, judgement, exhausted=search.exhausted)
    ending = judgement.halt
    counts = _all_runs(trials)
    trial_counts = _trial_counts(trials, asked)
    usage = usage_of(trials)
    order = leading(spec.objective, trials)
    best = _best(order[0], artifact_uri) if order else None
    unread: tuple[_Digest, ...] = ()
    digests = trials.finished.fold(_digests, unread)
    degraded = _tune_degraded(previous, trials, digests, degraded) or _unheard(spec, reporting=reporting)
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
        *([] if limited is None else [limited]),
    ]
    ended = asked - trial_counts.running
    return TuneStatus(
        observed_generation=generation,
        phase=phase,
        conditions=conditions(previous.conditions, facts, now, generation),
        image=previous.image,
        data_digest=previous.data_digest or (digests[0][2] if digests else ""),
        search=search,
        trials=trial_counts,
        runs=counts,
        best=best,
        top=[_brief(trial) for trial in order],
        usage=usage,
        wall_clock=judgement.clock,
        last_decision=_last_decision(trials),
        audit=_audit(spec, trials) if spec.racing.enabled and spec.racing.audit else None,
        pruning_audit=_audit(spec, trials, inside=True) if spec.pruning.enabled and spec.pruning.audit else None,
        summary=TuneSummary(
            trials=f"{ended}/{max(asked, spec.max_trials) if not search.exhausted else asked}",
            best=score_text(best.score, best.std) if best else "",
            gpu=hours(judgement.spent.gpu_seconds),
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


def _tune_phase(spec: TuneSpec, over: Verdict | None, trials: Trials, counts: RunCounts) -> TunePhase:
    if over is not None:
        return TunePhase.FAILED if over.failed else TunePhase.COMPLETE
    if spec.suspend and trials.under_way.suspended == trials.under_way.in_flight:
        return TunePhase.SUSPENDED
    return TunePhase.RUNNING if trials or counts.running else TunePhase.PENDING


def _all_runs(trials: Trials) -> RunCounts:
    active = trials.under_way
    succeeded, failed, stopped, skipped, preemptions = trials.finished.fold(_runs, (0, 0, 0, 0, 0))
    return RunCounts(
        queued=active.queued,
        running=active.running,
        succeeded=active.succeeded + succeeded,
        failed=active.failed + failed,
        stopped=active.stopped + stopped,
        skipped=skipped,
        preemptions=active.preemptions + preemptions,
    )


_Runs = tuple[int, int, int, int, int]
"""Runs that succeeded, failed, were stopped, were not needed; interruptions."""


def _runs(sums: _Runs, trial: Trial) -> _Runs:
    ended = trial.ended
    if ended is None:
        return sums
    return (
        sums[0] + ended.succeeded,
        sums[1] + ended.failed,
        sums[2] + ended.stopped,
        sums[3] + (max(0, ended.expected - ended.created) if trial.pruned else 0),
        sums[4] + ended.preemptions,
    )


def _trial_counts(trials: Trials, asked: int) -> TrialCounts:
    count = trials.finished.count
    return TrialCounts(
        asked=asked,
        running=len(trials.active),
        complete=count(CrossValidationPhase.COMPLETE),
        pruned=count(CrossValidationPhase.PRUNED),
        stopped=count(CrossValidationPhase.STOPPED),
        unstable=count(CrossValidationPhase.UNSTABLE),
        failed=failed_trials(trials, asked),
        out_of_memory=out_of_memory(trials),
    )


def _saved(counts: RunCounts) -> str:
    """Of the runs planned for the trials so far, the share that racing did not need; empty for none."""
    started = counts.queued + counts.running + counts.succeeded + counts.failed + counts.stopped
    return f"{100 * counts.skipped / (counts.skipped + started):.0f}%" if counts.skipped else ""


def _last_decision(trials: Trials) -> LastDecision | None:
    """The latest decision to prune; of several at one time the one about the trial with the highest number."""
    last = trials.finished.fold(_later, None)
    for trial in trials.active:
        last = _later(last, trial)
    if last is None:
        return None
    _, number, pruned, time, message = last
    action = DecisionAction.PRUNED if pruned else DecisionAction.AUDITED
    return LastDecision(trial=number, action=action, time=time, message=message)


_Decided = tuple[datetime, int, bool, str, str]
"""When, the trial's number, whether it was pruned, the time and the message as they are written down."""


def _later(last: _Decided | None, trial: Trial) -> _Decided | None:
    decision = trial.decision
    if decision is None or decision.time is None:
        return last
    decided = (parse_time(decision.time), trial.number, trial.pruned, decision.time, decision.message)
    return decided if last is None else max(last, decided)


def _audit(spec: TuneSpec, trials: Trials, *, inside: bool = False) -> AuditStatus:
    """How often racing was wrong, or pruning inside a run; where no other trial was complete then, any score wins."""
    checked, won = trials.finished.fold(_audited, (0, 0), score_direction(spec.objective), inside)
    return AuditStatus(checked=checked, would_have_won=won)


def _audited(counts: tuple[int, int], trial: Trial, direction: Direction, inside: bool) -> tuple[int, int]:
    """Audited trials that ran to their end, and those of them that would have won."""
    if trial.phase is not CrossValidationPhase.COMPLETE or trial.audit is None or trial.score is None:
        return counts
    look = trial.audit.run_look if inside else trial.audit.look
    if look is None:
        return counts
    return counts[0] + 1, counts[1] + (look.bar is None or better(trial.score, look.bar, direction))


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
    previous: TuneStatus, trials: Trials, digests: Sequence[_Digest], degraded: Fact | None
) -> Fact | None:
    """The first problem worth telling: what the reconcile met, a configuration error, or why runs wait."""
    if degraded is not None:
        return degraded
    wrong = trials.finished.fold(_wrong, None)
    for trial in trials.active:
        wrong = _wrong(wrong, trial)
    if wrong is not None:
        return Fact(Condition.DEGRADED, True, Reason.CONFIG_ERROR, f"{wrong.name}: {wrong.config_failure}")
    known = previous.data_digest or (digests[0][2] if digests else "")
    for _, name, seen in digests:
        if seen != known:
            text = f"{name} read other data ({seen[:12]}) than earlier trials ({known[:12]}): spec.data.uri changed"
            return Fact(Condition.DEGRADED, True, Reason.DATA_INVALID, text)
    return data_digest("", [run for trial in trials.active for run in trial.runs], None)[1]


def _wrong(first: Trial | None, trial: Trial) -> Trial | None:
    """The trial with the lowest number that failed for its configuration."""
    if not trial.config_failure or (first is not None and first.number < trial.number):
        return first
    return trial


def _digests(found: tuple[_Digest, ...], trial: Trial) -> tuple[_Digest, ...]:
    """The data that was read, in the order of the trials that did so first."""
    digest = trial.ended.data_digest if trial.ended is not None else ""
    if not digest:
        return found
    for number, _, known in found:
        if known == digest and number < trial.number:
            return found
    return tuple(sorted((*(one for one in found if one[2] != digest), (trial.number, trial.name, digest))))
