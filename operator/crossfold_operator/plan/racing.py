"""Which trials are worth their remaining runs. Pure: the trials are seen here, and judged by search.racing."""

from collections.abc import Sequence
from functools import lru_cache

from crossfold_operator.api.racing import LookRule, LookSpec
from crossfold_operator.api.tune import TuneSpec
from crossfold_operator.names import CrossValidationPhase
from crossfold_operator.observe.finished import Finished, Trials
from crossfold_operator.observe.trials import Ended, Trial
from crossfold_operator.plan.decisions import Decided
from crossfold_operator.search import racing, racing_words
from crossfold_trainer.contract.metrics import Direction
from crossfold_trainer.contract.scoring import score_direction, score_range


def judge(spec: TuneSpec, trials: Sequence[Trial]) -> list[Decided]:
    """The trials under way that would not become the best."""
    return [
        Decided(
            trial,
            racing_words.text(decision),
            look=look_of(decision),
            audited=racing.audited(spec.algorithm.seed, trial.number, spec.racing.audit),
        )
        for trial, decision in looks(spec, trials)
        if decision.prune
    ]


def looks(spec: TuneSpec, trials: Sequence[Trial]) -> list[tuple[Trial, racing.Decision]]:
    """Look at every trial under way, by what it has so far and by what the complete ones have.

    Trials with a run that failed or has no score that may be compared are neither raced nor compared with. The answer
    depends on nothing but the arguments: asked again after a restart, it is the same.
    """
    if not spec.racing.enabled:
        return []
    trials = Trials.of(trials)
    racers = [
        trial
        for trial in trials.active
        if not (trial.deleting or trial.stopping or trial.audit is not None or trial.spoilt)
    ]
    if not any(trial.scores for trial in racers):
        return []
    seeds = spec.cross_validation.resolved_seeds
    folds = len(spec.cross_validation.units) // len(seeds)
    direction = score_direction(spec.objective)
    known = _references(
        trials.finished.once(_completed),
        folds=folds,
        seeds=seeds,
        direction=direction,
        warmup=spec.racing.warmup_trials,
        min_delta=spec.racing.min_delta,
    )
    bounds, alpha = score_range(spec.objective), spec.racing.alpha
    return [(trial, trial.once(_decision, known, folds, seeds, direction, alpha, bounds)) for trial in racers]


def _decision(  # noqa: PLR0917 -- what ``once`` hands on
    trial: Trial,
    known: racing.References | racing.Warmup,
    folds: int,
    seeds: tuple[int, ...],
    direction: Direction,
    alpha: float,
    bounds: racing.Bounds,
) -> racing.Decision:
    """One look at a trial."""
    place = {seed: index for index, seed in enumerate(seeds)}
    observed = [(fold, place[seed], score) for fold, seed, score in trial.scores]
    return racing.judge(observed, known, folds, len(seeds), direction, alpha=alpha, bounds=bounds)


def _completed(finished: Finished) -> tuple[tuple[int, Ended], ...]:
    return tuple((t.number, t.ended) for t in finished if t.phase is CrossValidationPhase.COMPLETE and t.ended)


@lru_cache(maxsize=64)
def _references(
    completed: tuple[tuple[int, Ended], ...],
    *,
    folds: int,
    seeds: tuple[int, ...],
    direction: Direction,
    warmup: int,
    min_delta: float,
) -> racing.References | racing.Warmup:
    """What the complete trials tell: reckoned once for as long as no other trial has completed."""
    place = {(fold, seed): (fold, index) for index, seed in enumerate(seeds) for fold in range(folds)}
    told: list[racing.CompletedTrial] = []
    for number, ended in completed:
        matrix: list[list[float | None]] = [[None] * len(seeds) for _ in range(folds)]
        for fold, seed, score in ended.scores:
            if (fold, seed) in place:
                row, column = place[fold, seed]
                matrix[row][column] = score
        told.append({"number": number, "scores": matrix})
    return racing.references(told, folds, len(seeds), direction, warmup=warmup, min_delta=min_delta)


def lead(spec: TuneSpec, trials: Sequence[Trial]) -> int | None:
    """How many more trials must complete before the first can be pruned; None when none ever can."""
    seeds = spec.cross_validation.resolved_seeds
    needed = racing.warmup_trials(len(spec.cross_validation.units) // len(seeds), len(seeds), spec.racing.warmup_trials)
    if not spec.racing.enabled or needed is None:
        return None
    return max(0, needed - Trials.of(trials).finished.count(CrossValidationPhase.COMPLETE))


def look_of(decision: racing.Decision) -> LookSpec:
    """The numbers of a decision to prune.

    Raises:
        pydantic.ValidationError: it is another decision, which has not all of them.
    """
    return LookSpec.model_validate(
        {
            "rule": LookRule.BOUNDS if decision.reason is racing.Reason.BOUNDS else LookRule.EVIDENCE,
            "runs_done": decision.runs_done,
            "runs_total": decision.runs_total,
            "incumbent": decision.incumbent,
            "bar": decision.bar,
            "predicted": decision.predicted,
            "standard_error": decision.se,
            "p": decision.p,
            "alpha": decision.alpha,
            "probability": decision.p_beat,
            "references": decision.refs,
            "variance_fold": decision.var_fold,
            "variance_run": decision.var_run,
            "variance_factor": decision.lam,
        }
    )
