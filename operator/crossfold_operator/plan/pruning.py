"""Which trials are not worth finishing their first run. Pure: runs are seen here, and judged by search.pruning.

A trial is judged by its first run alone, that of the first fold and seed. Every trial has that run, so that it is
compared with all trials on the same fold and seed, and not with the few that came far; and no trial is put at risk once
for each of its runs. When its first run has ended, its scores speak, and racing hears them.
"""

import math
from collections.abc import Sequence
from fractions import Fraction

from crossfold_operator.api.pruning import PruningMethod, RunLookSpec
from crossfold_operator.api.tune import TuneSpec
from crossfold_operator.names import CrossValidationPhase
from crossfold_operator.observe.curves import Curve
from crossfold_operator.observe.finished import Finished, Trials
from crossfold_operator.observe.trials import Trial
from crossfold_operator.plan import racing
from crossfold_operator.plan.crossvalidation import Unit
from crossfold_operator.plan.decisions import Decided
from crossfold_operator.plan.ranking import ahead, leading
from crossfold_operator.search import pruning
from crossfold_operator.search.pruning import Median, Rung, Verdict
from crossfold_operator.search.racing import audited
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
    curves = [(trial, curve) for trial in at_hand if (curve := trial.once(_curve, unit)) is not None]
    judged = [
        (trial, curve)
        for trial, curve in curves
        if prunable(spec, trial) and not (trial.deleting or trial.stopping or trial.spoilt)
    ]
    # A run that is judged is under way: at its epoch, all are compared with the same.
    under_way = [curve for _, curve in curves]
    epochs = {curve.last.epoch for _, curve in judged}
    peers = {epoch: _peers(spec, epoch, under_way, trials.finished) for epoch in epochs}
    return [(trial, _verdict(spec, curve, peers[curve.last.epoch])) for trial, curve in judged]


def _curve(trial: Trial, unit: Unit) -> Curve | None:
    return trial.curve(unit)


def _with_runs(finished: Finished) -> tuple[Trial, ...]:
    """Those that are told by their runs, not by what they came to."""
    return tuple(trial for trial in finished if trial.ended is None)


def _peers(spec: TuneSpec, epoch: int, under_way: Sequence[Curve], finished: Finished) -> Median | Rung:
    """What runs at an epoch are compared with: trials under way, and those that are over."""
    median = spec.pruning.method is PruningMethod.MEDIAN_STOP
    values = [
        *finished.once(_of_ended, spec.cross_validation.units[0], epoch, median),
        *_values(under_way, epoch, median),
    ]
    return Median.of(values) if median else Rung.of(values, score_direction(spec.objective))


def _verdict(spec: TuneSpec, curve: Curve, peers: Median | Rung) -> Verdict:
    """What a run's curve is worth beside those of others."""
    epoch, best, _ = curve.last
    rule = spec.pruning
    if isinstance(peers, Median):
        return peers.judge(epoch, best, score_direction(spec.objective), min_peers=rule.min_peers)
    return peers.judge(epoch, best, min_peers=rule.min_peers, reduction=rule.resolved_reduction_factor)


def _values(curves: Sequence[Curve], epoch: int, completed: bool) -> list[float]:
    """What runs are compared by at an epoch: complete ones' means so far, or the best scores of all so far."""
    seen = [point for curve in curves if (curve.completed or not completed) and (point := curve.at(epoch)) is not None]
    return [point.mean if completed else point.best for point in seen]


def _of_ended(finished: Finished, unit: Unit, epoch: int, completed: bool) -> list[float]:
    """Those of trials that have ended, in order."""
    curves = [curve for trial in finished if trial.ended is not None and (curve := trial.curve(unit)) is not None]
    return sorted(_values(curves, epoch, completed))


def _numbers(spec: TuneSpec, trials: Sequence[Trial], trial: Trial, seen: Verdict) -> RunLookSpec:
    units = spec.cross_validation.units
    fold, seed = units[0]
    best = next(iter(leading(spec.objective, trials)), None)
    bar = None
    if best is not None and best.score is not None:
        bar = ahead(best.score, spec.racing.min_delta, score_direction(spec.objective))
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
            "incumbent": None if best is None else best.number,
            "bar": bar,
        }
    )


def _predicted(spec: TuneSpec, trials: Sequence[Trial], seen: Verdict, bar: float | None) -> float:
    """The mean that the trial might have reached, no better than the bar.

    From the run's best score at the epoch, complete trials gained so much on average to the mean of all their runs: by
    training on, and since the first fold is easier or harder than others.
    """
    none = (0, Fraction(0))
    count, gained = Trials.of(trials).finished.fold(_gained, none, spec.cross_validation.units[0], seen.epoch)
    predicted = seen.best + (float(gained) / count if count else 0.0)
    return bar if bar is not None and better(predicted, bar, score_direction(spec.objective)) else predicted


def _gained(sums: tuple[int, Fraction], trial: Trial, unit: Unit, epoch: int) -> tuple[int, Fraction]:
    """Complete trials with a curve at the epoch, and what they gained: exactly, so that no order changes the sum."""
    if trial.phase is not CrossValidationPhase.COMPLETE or trial.score is None:
        return sums
    curve = trial.curve(unit)
    point = None if curve is None else curve.at(epoch)
    gain = math.nan if point is None else trial.score - point.best
    return (sums[0] + 1, sums[1] + Fraction(gain)) if math.isfinite(gain) else sums  # a status may say anything
