"""Which trials are not worth finishing their first run. Pure: runs are seen here, and judged by search.pruning.

A trial is judged by its first run alone, that of the first fold and seed. Every trial has that run, so that it is
compared with all trials on the same fold and seed, and not with the few that came far; and no trial is put at risk once
for each of its runs. When its first run has ended, its scores speak, and racing hears them.
"""

import statistics
from collections.abc import Sequence
from functools import lru_cache

from crossfold_operator.api.pruning import PruningMethod, RunLookSpec
from crossfold_operator.api.tune import TuneSpec
from crossfold_operator.names import CrossValidationPhase
from crossfold_operator.observe.curves import Curve
from crossfold_operator.observe.finished import Finished, Trials
from crossfold_operator.observe.trials import Ended, Trial
from crossfold_operator.plan import racing
from crossfold_operator.plan.crossvalidation import Unit, spoilt
from crossfold_operator.plan.decisions import Decided
from crossfold_operator.search import pruning
from crossfold_operator.search.pruning import Verdict
from crossfold_operator.search.racing import audited
from crossfold_trainer.contract.metrics import Direction
from crossfold_trainer.contract.scoring import better, score_direction


def curve_epochs(spec: TuneSpec, unit: Unit) -> list[int]:
    """The epochs at which a run is to tell its scores: those at which first runs are compared, or none."""
    rule, trainer = spec.pruning, spec.trainer
    if not rule.enabled or rule.min_epochs is None or unit != spec.cross_validation.units[0]:
        return []
    return pruning.epochs(
        rule.method,
        rule.min_epochs,
        trainer.max_epochs,
        trainer.check_val_every_n_epoch,
        rule.resolved_reduction_factor,
    )


def prunable(spec: TuneSpec, trial: Trial) -> bool:
    """Whether the trial may yet be pruned inside its first run."""
    if not spec.pruning.enabled or trial.audit is not None:
        return False
    run = trial.run(spec.cross_validation.units[0])
    return run is None or not run.terminal


def judge(spec: TuneSpec, trials: Sequence[Trial]) -> list[Decided]:
    """The trials whose first run gives them too little of a chance."""
    return [
        Decided(
            trial,
            pruning.text(seen),
            run_look=_numbers(spec, trials, trial, seen),
            audited=audited(spec.algorithm.seed, trial.number, spec.pruning.audit),
        )
        for trial, seen in looks(spec, trials)
        if seen.stop
    ]


def looks(spec: TuneSpec, trials: Sequence[Trial]) -> list[tuple[Trial, Verdict]]:
    """Look into the first run of every trial under way that has come far enough.

    None is taken while racing waits for its first trials: they have to be complete. The answer depends on nothing but
    the arguments: asked again after a restart, it is the same.
    """
    if not spec.pruning.enabled or racing.lead(spec, trials):
        return []
    trials, unit = Trials.of(trials), spec.cross_validation.units[0]
    at_hand = (*trials.active, *trials.finished.once(_with_runs))
    curves = [(trial, curve) for trial in at_hand if (curve := trial.curve(unit)) is not None]
    judged = [
        (trial, curve)
        for trial, curve in curves
        if prunable(spec, trial) and not (trial.deleting or trial.stopping or spoilt(trial.runs))
    ]
    if not judged:
        return []
    over = trials.finished.once(_with_curves)
    return [
        (trial, _verdict(spec, curve, [other for _, other in curves if other is not curve], over))
        for trial, curve in judged
    ]


def _with_runs(finished: Finished) -> tuple[Trial, ...]:
    """Those that are told by their runs, not by what they came to."""
    return tuple(trial for trial in finished if trial.ended is None)


def _with_curves(finished: Finished) -> tuple[Ended, ...]:
    return tuple(trial.ended for trial in finished if trial.ended is not None and trial.ended.curves)


def _verdict(spec: TuneSpec, curve: Curve, under_way: Sequence[Curve], over: tuple[Ended, ...]) -> Verdict:
    """What a run's curve is worth beside those of trials under way, and of those that are over."""
    epoch, best, _ = curve.last
    rule, direction = spec.pruning, score_direction(spec.objective)
    median = rule.method is PruningMethod.MEDIAN_STOP
    values = [
        *_of_ended(over, spec.cross_validation.units[0], epoch, completed=median),
        *_values(under_way, epoch, completed=median),
    ]
    if median:
        return pruning.median_stop(epoch, best, values, direction, min_peers=rule.min_peers)
    return pruning.asha(
        epoch, best, values, direction, min_peers=rule.min_peers, reduction=rule.resolved_reduction_factor
    )


def _values(curves: Sequence[Curve], epoch: int, *, completed: bool) -> list[float]:
    """What runs are compared by at an epoch: complete ones' means so far, or the best scores of all so far."""
    seen = [point for curve in curves if (curve.completed or not completed) and (point := curve.at(epoch)) is not None]
    return [point.mean if completed else point.best for point in seen]


@lru_cache(maxsize=64)
def _of_ended(over: tuple[Ended, ...], unit: Unit, epoch: int, *, completed: bool) -> tuple[float, ...]:
    """Those of trials that have ended, in order: reckoned once for as long as no other trial has ended."""
    curves = [curve for ended in over if (curve := ended.curves.get(unit)) is not None]
    return tuple(sorted(_values(curves, epoch, completed=completed)))


def _bar(spec: TuneSpec, trials: Sequence[Trial]) -> tuple[int | None, float | None]:
    """The best complete trial, and what is better than it; None where there is none."""
    direction = score_direction(spec.objective)
    sign = 1 if direction is Direction.MAXIMIZE else -1
    scored = [
        (sign * t.score, -t.number) for t in trials if t.phase is CrossValidationPhase.COMPLETE and t.score is not None
    ]
    if not scored:
        return None, None
    best, number = max(scored)
    return -number, sign * (best + spec.racing.min_delta)


def _numbers(spec: TuneSpec, trials: Sequence[Trial], trial: Trial, seen: Verdict) -> RunLookSpec:
    units = spec.cross_validation.units
    fold, seed = units[0]
    incumbent, bar = _bar(spec, trials)
    return RunLookSpec.model_validate(
        {
            "method": seen.method,
            "fold": fold,
            "seed": seed,
            "epoch": seen.epoch,
            "best": seen.best,
            "threshold": seen.threshold,
            "peers": seen.peers,
            "runs_done": len(trial.scores),
            "runs_total": len(units),
            "predicted": _predicted(spec, trials, seen, bar),
            "incumbent": incumbent,
            "bar": bar,
        }
    )


def _predicted(spec: TuneSpec, trials: Sequence[Trial], seen: Verdict, bar: float | None) -> float:
    """The mean that the trial might have reached, no better than the bar.

    From the run's best score at the epoch, complete trials gained so much on average to the mean of all their runs: by
    training on, and since the first fold is easier or harder than others.
    """
    unit = spec.cross_validation.units[0]
    gains = [
        trial.score - point.best
        for trial in trials
        if trial.phase is CrossValidationPhase.COMPLETE
        and trial.score is not None
        and (curve := trial.curve(unit)) is not None
        and (point := curve.at(seen.epoch)) is not None
    ]
    predicted = seen.best + (statistics.fmean(gains) if gains else 0.0)
    return bar if bar is not None and better(predicted, bar, score_direction(spec.objective)) else predicted
