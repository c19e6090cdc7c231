"""Racing: whether a trial's remaining runs are worth their price, with a controlled error.

The question of a look is whether the trial's complete cross-validation mean M, over all folds and seeds, would beat the
bar: the best completed trial's mean plus ``min_delta``. The finished runs predict M; an e-process bounds the chance to
prune a trial with M at or above the bar by ``alpha``, however often one looks.

Scores are y = score (Maximize) or -score (Minimize), of trial j, fold f and seed s::

    y_jfs = mu_j + u_fs + phi_jf + eps_jfs,    var phi = a (trial x fold),    var eps = e (run)

Unit effects u, a and e come from the better half of the completed trials (``references``): good trials are less noisy
than bad ones, and it is among good ones that a decision can be wrong. M is predicted by kriging with a flat prior on
mu_j. The e-value is a Gaussian likelihood ratio of the predicted M, mixed over a half-normal of shortfalls below the
bar. Given M, the partial sums of a balanced Gaussian trial are a Brownian bridge that does not depend on mu_j, so the
e-value is a martingale at M = bar and a supermartingale above; by Ville's inequality it ever reaches 1 / alpha with
probability <= alpha.

All is pure, without random numbers, and independent of the order of its inputs: sums are correctly rounded (``fsum``)
and ties go to the lower trial number. A decision can be replayed from recorded scores by ``decide``.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from hashlib import blake2b
from typing import NamedTuple, NotRequired, TypeAlias, TypedDict

from crossfold_operator.search.tails import log_tail_ratio, student_t_cdf
from crossfold_trainer.contract.metrics import Direction

Observation: TypeAlias = tuple[int, int, float | None]
"""A finished run: fold, seed index, score; a score that is None or not finite is a failed run's."""
Bounds: TypeAlias = tuple[float | None, float | None]
"""Least and greatest value that a score can take; None: unbounded on that side."""

_MIN_SD = 1e-12
"""Floor of the standard deviations of the noise where the bar is 0."""
_HUGE = 1e150
"""A score beyond it counts as not finite: its square could not be reckoned with."""


class CompletedTrial(TypedDict):
    """A trial of which every run has a score."""

    number: int
    """Its index in the Tune."""
    scores: Sequence[Sequence[float | None]]
    """By fold and seed index. A trial with a missing or non-finite score is not complete and is passed over."""
    imputed: NotRequired[bool]
    """Some scores stand for failed runs: it can be the incumbent, and tells nothing about noise."""


class Action(StrEnum):
    """What a look decides."""

    CONTINUE = "continue"
    PRUNE = "prune"


class Reason(StrEnum):
    """Why."""

    FAILED_RUN = "failed_run"
    """A run failed, and failed runs have no score: the trial is not raced."""
    WARMUP = "warmup"
    """Too few completed trials to know the noise."""
    NO_LOOK = "no_look"
    """No run with a score yet, or none left to save."""
    UNDECIDED = "undecided"
    """It may still beat the bar."""
    EVIDENCE = "evidence"
    """The anytime p-value is at most alpha."""
    BOUNDS = "bounds"
    """Not even the best possible remaining scores would beat the bar."""


@dataclass(frozen=True)
class Warmup:
    """Too few completed trials to race against."""

    clean: int
    """Completed trials without imputed scores."""
    needed: int | None
    """How many there must be; None when none will do, because a trial has but one run."""


@dataclass(frozen=True)
class References:
    """What completed trials tell: the bar, unit effects, noise. In terms of y, where more is better.

    For a hold-out with several seeds (K = 1) seeds take the part of folds here.
    """

    incumbent: int
    """Number of the best completed trial."""
    bar: float
    """Its mean plus min_delta."""
    count: int
    """Reference trials R."""
    df: int
    """Degrees of freedom of var_fold, (R - 1)(K - 1)."""
    effects: tuple[tuple[float, ...], ...]
    """Means over the references by fold and seed, (K, S)."""
    mean_effect: float
    """Mean of effects."""
    var_fold: float
    """a, as estimated; not floored."""
    var_run: float
    """e; 0 with one seed, where it is part of a."""


@dataclass(frozen=True)
class Decision:
    """One look at a trial, with all that it rests on. Scores are as reported; variances are in squared score units.

    What was not computed (``reason`` says why) is None.
    """

    decision: Action
    reason: Reason
    runs_done: int
    """Runs that ended, failed ones included (n)."""
    runs_total: int
    """Planned runs (N = K * S)."""
    alpha: float
    warmup: Warmup | None = None
    """Set during the warm-up."""
    incumbent: int | None = None
    """Number of the best completed trial."""
    bar: float | None = None
    """Mean that the trial has to beat."""
    predicted: float | None = None
    """Predicted mean of the complete trial (m)."""
    se: float | None = None
    """Its standard error (sqrt v)."""
    z: float | None = None
    """How far the prediction lies above the bar, in standard errors; negative: worse."""
    log_e: float | None = None
    """Logarithm of the e-value against M >= bar."""
    p: float | None = None
    """Anytime-valid p-value, min(1, 1/e-value): what is compared with alpha."""
    p_beat: float | None = None
    """P(beat incumbent), for display: a Student t tail. Comparing it with alpha would not control the error."""
    df: float | None = None
    """Degrees of freedom of p_beat."""
    lam: float | None = None
    """Factor >= 1 on the variance of the prediction: the trial's own runs scatter more than the references'."""
    refs: int | None = None
    """Reference trials (R)."""
    var_fold: float | None = None
    """Estimated trial x fold variance (a), before its floor."""
    var_run: float | None = None
    """Estimated run variance (e)."""
    v1: float | None = None
    """Variance of a prediction from one run: sets the scale of the mixture."""
    best_possible: float | None = None
    """Mean of the complete trial if every remaining run were perfect; None without bounds."""

    @property
    def prune(self) -> bool:
        """Whether the trial's remaining runs are to be stopped."""
        return self.decision is Action.PRUNE


def decide(  # noqa: PLR0917 -- the order is the policy's
    obs: Sequence[Observation],
    completed: Sequence[CompletedTrial],
    K: int,  # noqa: N803 -- the symbols of the model
    S: int,  # noqa: N803
    direction: Direction | str,
    alpha: float = 0.05,
    warmup: int = 4,
    min_df: int = 10,
    ref_min: int = 5,
    ref_frac: float = 0.5,
    prior_df: float = 6,
    mix_scale: float = 3,
    sd_floor_rel: float = 1e-4,
    min_delta: float = 0,
    failure_score: float | None = None,
    bounds: Bounds | None = None,
) -> Decision:
    """Judge a running trial.

    Args:
        obs: its finished runs, in any order: (fold, seed index, score). Infrastructure failures that are retried are
            no observations.
        completed: the completed trials, in any order.
        K: folds that are run.
        S: seeds per fold.
        direction: which scores are better, in any case of letters.
        alpha: greatest accepted probability of pruning a trial that complete cross-validation would have chosen,
            in (0, 1).
        warmup: completed trials without imputed scores that there must be.
        min_df: least degrees of freedom of the noise estimate, from 1.
        ref_min: least number of reference trials, as far as there are as many.
        ref_frac: share of the completed trials that are references, from the best down.
        prior_df: weight of the references' noise against the trial's own scatter, > 1.
        mix_scale: expected shortfall of bad trials, in standard errors of a prediction from one run, > 0.
        sd_floor_rel: least standard deviation of trial x fold and of run noise, relative to the bar.
        min_delta: how much better than the incumbent a trial must be to count, >= 0.
        failure_score: score of a failed run; None: a trial with a failed run is not raced.
        bounds: range of a score.

    Raises:
        ValueError: a run lies outside folds x seeds, is given twice, or a completed trial has another shape.
    """
    known = references(completed, K, S, direction, warmup, min_df, ref_min, ref_frac, min_delta)
    return judge(obs, known, K, S, direction, alpha, prior_df, mix_scale, sd_floor_rel, failure_score, bounds)


def warmup_trials(folds: int, seeds: int, warmup: int = 4, min_df: int = 10) -> int | None:
    """Completed trials without imputed scores that racing waits for; None: for ever, a trial has but one run."""
    groups = folds if folds > 1 else seeds
    return None if groups == 1 else _at_least(warmup, min_df, groups)


def references(  # noqa: PLR0917 -- as decide
    completed: Sequence[CompletedTrial],
    K: int,  # noqa: N803 -- the symbols of the model
    S: int,  # noqa: N803
    direction: Direction | str,
    warmup: int = 4,
    min_df: int = 10,
    ref_min: int = 5,
    ref_frac: float = 0.5,
    min_delta: float = 0,
) -> References | Warmup:
    """The part of ``decide`` that depends on the completed trials alone; its cost grows with their number.

    Raises:
        ValueError: a completed trial's scores are not K x S.
    """
    sign = _sign(direction)
    trials = []
    for trial in completed:
        if len(trial["scores"]) != K or any(len(row) != S for row in trial["scores"]):
            raise ValueError(f"completed trial {trial['number']}: scores must be {K} folds x {S} seeds")
        rows = _oriented(trial["scores"], sign, swap=K == 1)
        if rows is not None:
            mean = math.fsum(y for row in rows for y in row) / (K * S)
            trials.append((-mean, trial["number"], trial.get("imputed", False), rows))
    trials.sort(key=lambda trial: trial[:2])
    clean = [(-negative, rows) for negative, _, imputed, rows in trials if not imputed]

    groups, repeats = (K, S) if K > 1 else (S, K)
    needed = warmup_trials(K, S, warmup, min_df)
    if needed is None or len(clean) < needed:
        return Warmup(len(clean), needed)

    # Floats like 0.1 * 30 must not add a reference: a hair is taken off before rounding up.
    share = math.ceil(ref_frac * len(clean) - 1e-9)
    count = min(len(clean), max(_at_least(ref_min, min_df, groups), share))
    best = clean[:count]
    effects = tuple(
        tuple(math.fsum(rows[f][s] for _, rows in best) / count for s in range(repeats)) for f in range(groups)
    )
    mean_effect = math.fsum(u for row in effects for u in row) / (groups * repeats)
    # Residuals r of y = row mean + unit effect: (R, K, S).
    residuals = [
        [[y - mean - u + mean_effect for y, u in zip(*pair, strict=True)] for pair in zip(rows, effects, strict=True)]
        for mean, rows in best
    ]
    df = (count - 1) * (groups - 1)
    square_folds = repeats * math.fsum((math.fsum(row) / repeats) ** 2 for rows in residuals for row in rows)
    var_fold, var_run = square_folds / df, 0.0
    if repeats > 1:
        square_all = math.fsum(r * r for rows in residuals for row in rows for r in row)
        var_run = (square_all - square_folds) / ((count - 1) * groups * (repeats - 1))
        var_fold = max(0.0, (var_fold - var_run) / repeats)
    return References(
        incumbent=trials[0][1],
        bar=-trials[0][0] + min_delta,
        count=count,
        df=df,
        effects=effects,
        mean_effect=mean_effect,
        var_fold=var_fold,
        var_run=var_run,
    )


def judge(  # noqa: PLR0917 -- as decide
    obs: Sequence[Observation],
    known: References | Warmup,
    K: int,  # noqa: N803 -- the symbols of the model
    S: int,  # noqa: N803
    direction: Direction | str,
    alpha: float = 0.05,
    prior_df: float = 6,
    mix_scale: float = 3,
    sd_floor_rel: float = 1e-4,
    failure_score: float | None = None,
    bounds: Bounds | None = None,
) -> Decision:
    """The part of ``decide`` that depends on the trial: one look.

    Raises:
        ValueError: a run lies outside folds x seeds, or is given twice.
    """
    sign = _sign(direction)
    finished, failed = _units(obs, K, S, sign)
    done, total = len(finished) + len(failed), K * S
    none = Decision(Action.CONTINUE, Reason.NO_LOOK, done, total, alpha)
    if failed and failure_score is None:
        return replace(none, reason=Reason.FAILED_RUN)
    if isinstance(known, Warmup):
        return replace(none, reason=Reason.WARMUP, warmup=known)
    if not finished or done == total:
        return none

    groups, repeats = (K, S) if K > 1 else (S, K)
    seen = _predict(finished, known, groups, repeats, prior_df, sd_floor_rel)
    predicted = seen.mean
    if failed and failure_score is not None:
        shortfalls = (predicted + known.effects[f][s] - known.mean_effect - sign * failure_score for f, s in failed)
        predicted -= math.fsum(shortfalls) / total
    gap = predicted - known.bar
    log_e = _log_e(gap, seen.variance, mix_scale * mix_scale * seen.first)
    p = min(1.0, math.exp(-log_e)) if log_e > 0 else 1.0
    z_score = gap / math.sqrt(seen.variance)
    df = min(known.df, prior_df - 1 + seen.groups)

    best_possible = None
    best_score = _best_bound(bounds, sign)
    if best_score is not None:
        imputed = [] if failure_score is None else [sign * failure_score] * len(failed)
        best_possible = math.fsum([*finished.values(), *imputed, *([best_score] * (total - done))]) / total

    reason = Reason.UNDECIDED
    if p <= alpha and gap < 0:
        reason = Reason.EVIDENCE
    elif best_possible is not None and best_possible <= known.bar:
        reason = Reason.BOUNDS
    return Decision(
        decision=Action.CONTINUE if reason is Reason.UNDECIDED else Action.PRUNE,
        reason=reason,
        runs_done=done,
        runs_total=total,
        alpha=alpha,
        incumbent=known.incumbent,
        bar=_score(known.bar, sign),
        predicted=_score(predicted, sign),
        se=math.sqrt(seen.variance),
        z=z_score,
        log_e=log_e,
        p=p,
        p_beat=student_t_cdf(z_score, df),
        df=df,
        lam=seen.lam,
        refs=known.count,
        var_fold=known.var_fold,
        var_run=known.var_run,
        v1=seen.first,
        best_possible=None if best_possible is None else _score(best_possible, sign),
    )


def audited(seed: int, trial: int, share: float) -> bool:
    """Whether a trial that would be pruned runs to its end all the same, to measure how often pruning is wrong.

    Depends on nothing that the trial does, so that the audited trials are a fair sample; a larger share keeps those of
    a smaller one.

    Args:
        seed: the Tune's.
        trial: the trial's number.
        share: how many are audited, in [0, 1].
    """
    digest = blake2b(f"audit/{seed}/{trial}".encode(), digest_size=8).digest()
    return int.from_bytes(digest) < share * 2**64


class _Prediction(NamedTuple):
    """Of a trial's complete mean, in terms of y."""

    mean: float
    """m, of the runs that have a score."""
    variance: float
    """v, with lam."""
    lam: float
    first: float
    """v1: what v would be after one run, without lam."""
    groups: int
    """k: folds with a run."""


def _predict(  # noqa: PLR0917 -- as decide
    finished: Mapping[tuple[int, int], float],
    known: References,
    groups: int,
    repeats: int,
    prior_df: float,
    sd_floor_rel: float,
) -> _Prediction:
    """Krige the complete mean from the finished runs (at least one), by (fold, seed) of groups x repeats."""
    floor = max((sd_floor_rel * abs(known.bar)) ** 2, _MIN_SD**2)
    var_fold = max(known.var_fold, floor)
    # Seeds without any effect would leave no variance at all once each fold was seen.
    var_run = max(known.var_run, floor) if repeats > 1 else 0.0
    inflation = 1 + 1 / known.count

    # By observed fold: runs, their mean residual, its variance A_f.
    residuals: dict[int, list[float]] = {}
    for (f, s), y in finished.items():
        residuals.setdefault(f, []).append(y - known.effects[f][s])
    runs = [len(z) for z in residuals.values()]
    zbar = [math.fsum(z) / len(z) for z in residuals.values()]
    variances = [var_fold + var_run / n for n in runs]
    c = var_fold + var_run / repeats
    weight = math.fsum(1 / variance for variance in variances)
    mu = math.fsum(z / variance for z, variance in zip(zbar, variances, strict=True)) / weight
    scatter = math.fsum((z - mu) ** 2 / variance for z, variance in zip(zbar, variances, strict=True)) / inflation
    lam = max(1.0, (prior_df + scatter) / (prior_df - 1 + len(runs)))
    # Folds' worth of information that is missing: K - sum g_f, without cancellation.
    rest = (var_run * (1 / n - 1 / repeats) / variance for n, variance in zip(runs, variances, strict=True))
    missing = groups - len(runs) + math.fsum(rest)
    return _Prediction(
        # What kriging adds, sum g_f (zbar_f - mu) / K, is nil: g_f = c / A_f are the weights of mu, too.
        mean=known.mean_effect + mu,
        variance=lam * inflation * _prediction_variance(missing, c, groups),
        lam=lam,
        first=inflation * _prediction_variance(groups - c / (var_fold + var_run), c, groups),
        groups=len(runs),
    )


def _at_least(trials: int, min_df: int, groups: int) -> int:
    """``trials``, or as many as ``min_df`` degrees of freedom (trials - 1)(groups - 1) take."""
    return max(trials, 1 + math.ceil(min_df / (groups - 1)))


def _log_e(gap: float, variance: float, spread: float) -> float:
    """Logarithm of the e-value of a prediction that lies ``gap`` above the bar.

    The likelihood ratio of the mean bar - d to the mean bar, mixed over d half-normal with variance ``spread``.
    """
    precision = 1 / variance + 1 / spread
    w = gap / variance / math.sqrt(precision)
    return math.log(2) - 0.5 * math.log(spread * precision) + log_tail_ratio(w)


def _prediction_variance(missing: float, c: float, groups: int) -> float:
    """Kriging variance of the complete mean, without (1 + 1/R).

    With G = K - missing = sum g_f folds' worth of information it is c (1/G - 1/K): what
    (K c - sum c^2/A_f) / K^2 + (1 - sum g_f/K)^2 / W with W = G / c comes to.
    """
    return c * missing / ((groups - missing) * groups)


def _sign(direction: Direction | str) -> int:
    return 1 if Direction(direction.capitalize()) is Direction.MAXIMIZE else -1


def _score(y: float, sign: int) -> float:
    """A y as the score that it is; of no y it is -0, which would be told as ``-0.0``."""
    return sign * y + 0.0


def _oriented(scores: Sequence[Sequence[float | None]], sign: int, *, swap: bool) -> list[list[float]] | None:
    """Scores as y, with seeds in the part of folds if swapped; None unless all are finite."""
    rows = [[sign * y for y in row if y is not None and abs(y) < _HUGE] for row in scores]
    if any(len(row) < len(given) for row, given in zip(rows, scores, strict=True)):
        return None
    return [list(column) for column in zip(*rows, strict=True)] if swap else rows


def _units(
    obs: Sequence[Observation], folds: int, seeds: int, sign: int
) -> tuple[dict[tuple[int, int], float], list[tuple[int, int]]]:
    """Runs by unit in index order: the y of those with a score, and the failed ones."""
    finished: dict[tuple[int, int], float] = {}
    failed: list[tuple[int, int]] = []
    for fold, seed, score in obs:
        if fold not in range(folds) or seed not in range(seeds):
            raise ValueError(f"run of fold {fold}, seed {seed} is outside {folds} folds x {seeds} seeds")
        unit = (fold, seed) if folds > 1 else (seed, fold)
        if unit in finished or unit in failed:
            raise ValueError(f"run of fold {fold}, seed {seed} is given twice")
        if score is None or not abs(score) < _HUGE:
            failed.append(unit)
        else:
            finished[unit] = sign * score
    return dict(sorted(finished.items())), sorted(failed)


def _best_bound(bounds: Bounds | None, sign: int) -> float | None:
    """The best possible y."""
    if bounds is None:
        return None
    low, high = bounds
    best = high if sign > 0 else low
    return None if best is None else sign * best
