"""The rules that are compared: when to stop a trial's remaining runs.

A rule sees the completed trials and answers for a running one. All scores are y, where more is better; a trial is a
vector over its N = K * S planned runs in the order in which they run (all folds with the first seed, then with the
second, ...).

Rivals are used as their authors describe them:

- WilcoxonPruner (Optuna): a one-sided signed-rank test of the finished runs against the same runs of the best trial,
  p < 0.1, from the second run; never while the running mean is no worse than the best trial's mean.
- MedianPruner (Optuna), on running means: from the sixth trial, stops a trial whose best running mean so far is below
  the median of the completed trials' running means at the same run.
- Bergman et al., AutoML 2024. Aggressive: stops when the running mean is no better than the best trial's mean.
  Forgiving: when it is no better than the best trial's worst run.
- Paired t with spending: a one-sided t test against the same runs of the best trial, with alpha spent over the looks in
  harmonic parts, so that their sum is alpha.
"""

import math
from collections.abc import Callable, Sequence
from functools import cache

import numpy as np
from numpy.typing import NDArray

from crossfold_operator.search import racing, tails

Trial = NDArray[np.float64]
"""Scores of a trial by run, (N,)."""
Look = Callable[[Trial], bool]
"""Whether to stop after these finished runs, (n,) with 0 < n < N."""
Stops = Callable[[Trial], int]
"""After how many runs a trial is stopped that would have these, (N,); N: it is not."""
Rule = Callable[[Sequence[Trial], int, int], Stops | None]
"""(completed trials, K, S) -> the judgement of a running trial; None: none is stopped yet."""


def look_by_look(look: Look) -> Stops:
    """Stops at the first look that says so."""
    return lambda y: next((n for n in range(1, len(y)) if look(y[:n])), len(y))


def no_racing(completed: Sequence[Trial], folds: int, seeds: int) -> Stops | None:
    """Every trial runs to its end."""
    del completed, folds, seeds
    return None


def crossfold(alpha: float = 0.05) -> Rule:
    """The operator's own function, as it is."""

    def rule(completed: Sequence[Trial], folds: int, seeds: int) -> Stops | None:
        trials: list[racing.CompletedTrial] = [
            {"number": number, "scores": trial.reshape(seeds, folds).T.tolist()}
            for number, trial in enumerate(completed)
        ]
        known = racing.references(trials, folds, seeds, "maximize")
        if isinstance(known, racing.Warmup):
            return None
        bound = _log_e_bound(known, folds, seeds)

        def stops(y: Trial) -> int:
            # The operator decides; a look whose bound is below the threshold is not worth the call.
            for n in np.flatnonzero(bound(y) >= -math.log(alpha) - 1e-6).tolist():
                obs = [(run % folds, run // folds, score) for run, score in enumerate(y[: n + 1].tolist())]
                if racing.judge(obs, known, folds, seeds, "maximize", alpha=alpha).prune:
                    return int(n) + 1
            return len(y)

        return stops

    return rule


def _log_e_bound(known: racing.References, folds: int, seeds: int) -> Callable[[Trial], NDArray[np.float64]]:
    """An upper bound of log E at each of a trial's looks, (N - 1,), at once; -inf above the bar.

    By the formulas of docs/racing.md without their last term, which is below 0.
    """
    look = np.arange(folds * seeds - 1)[:, None]  # (N - 1, 1)
    runs = (look - np.arange(folds)) // folds + 1  # of each fold, (N - 1, K)
    floor = max((1e-4 * abs(known.bar)) ** 2, 1e-24)
    a, e = max(known.var_fold, floor), max(known.var_run, floor) if seeds > 1 else 0.0
    c, inflation = a + e / seeds, 1 + 1 / known.count
    precision = np.where(runs > 0, 1 / (a + e / np.maximum(1, runs)), 0)
    total = precision.sum(axis=1)
    v = inflation * np.maximum(0, 1 / total - c / folds)
    spread = 9 * inflation * (a + e - c / folds)
    last, column = np.maximum(0, runs - 1), np.arange(folds)
    effects = np.array(known.effects).T.ravel()
    distance = known.bar - known.mean_effect

    def bound(y: Trial) -> NDArray[np.float64]:
        sums = np.cumsum((y - effects).reshape(seeds, folds), axis=0)
        z = sums[last, column] / np.maximum(1, runs)
        mu = (precision * z).sum(axis=1) / total
        scatter = (precision * (z - mu[:, None]) ** 2).sum(axis=1) / inflation
        variance = v * np.maximum(1, (6 + scatter) / (5 + (runs > 0).sum(axis=1)))
        gap = mu - distance
        q = 1 / variance + 1 / spread
        log_e = math.log(2) - 0.5 * np.log(spread * q) + (gap / variance) ** 2 / (2 * q)
        return np.where(gap < 0, log_e, -np.inf)

    return bound


def wilcoxon(completed: Sequence[Trial], folds: int, seeds: int) -> Stops | None:
    """Optuna's WilcoxonPruner with its defaults."""
    del folds, seeds
    if not completed:
        return None
    best = _best(completed)
    mean = float(best.mean())

    def stops(y: Trial) -> bool:
        return len(y) >= 2 and mean > float(y.mean()) and signed_rank_p(y - best[: len(y)]) < 0.1

    return look_by_look(stops)


def median(completed: Sequence[Trial], folds: int, seeds: int) -> Stops | None:
    """Optuna's MedianPruner with its defaults, told running means."""
    del folds, seeds
    if len(completed) < 5:
        return None
    running = np.array([np.cumsum(trial) / np.arange(1, len(trial) + 1) for trial in completed])
    medians = np.median(running, axis=0)

    def stops(y: Trial) -> bool:
        best_so_far = float(np.max(np.cumsum(y) / np.arange(1, len(y) + 1)))
        return best_so_far < float(medians[len(y) - 1])

    return look_by_look(stops)


def aggressive(completed: Sequence[Trial], folds: int, seeds: int) -> Stops | None:
    """Bergman et al.: no better than the best trial's mean."""
    del folds, seeds
    if not completed:
        return None
    bar = float(_best(completed).mean())
    return look_by_look(lambda y: float(y.mean()) <= bar)


def forgiving(completed: Sequence[Trial], folds: int, seeds: int) -> Stops | None:
    """Bergman et al.: no better than the best trial's worst run."""
    del folds, seeds
    if not completed:
        return None
    bar = float(_best(completed).min())
    return look_by_look(lambda y: float(y.mean()) <= bar)


def paired_t(completed: Sequence[Trial], folds: int, seeds: int) -> Stops | None:
    """Paired t with alpha = 0.05, spent in harmonic parts."""
    if not completed:
        return None
    best = _best(completed)
    harmonic = np.cumsum(1 / np.arange(1, folds * seeds))

    def stops(y: Trial) -> bool:
        n = len(y)
        if n < 2:
            return False
        # The first look is at two runs, and spends what one run could have had.
        spent = 0.05 * (harmonic[n - 1] - (harmonic[n - 2] if n > 2 else 0)) / harmonic[-1]
        difference = y - best[:n]
        sd = float(difference.std(ddof=1))
        mean = float(difference.mean())
        if sd == 0:
            return mean < 0
        return tails.student_t_cdf(mean / (sd / n**0.5), n - 1) <= spent

    return look_by_look(stops)


RULES: dict[str, Rule] = {
    "crossfold": crossfold(),
    "no racing": no_racing,
    "paired t with spending": paired_t,
    "Optuna WilcoxonPruner": wilcoxon,
    "Optuna MedianPruner": median,
    "Bergman aggressive": aggressive,
    "Bergman forgiving": forgiving,
}


def _best(completed: Sequence[Trial]) -> Trial:
    return max(completed, key=lambda trial: float(trial.mean()))


def signed_rank_p(difference: Trial) -> float:
    """P-value of the signed-rank test against "less" with zeros split, as ``scipy.stats.wilcoxon`` has it.

    Exact up to 50 runs without ties and zeros and up to 13 with them, else by the normal approximation; with kept
    tables, a hundred times faster than scipy. NaN where it has none.
    """
    n = len(difference)
    magnitude = np.abs(difference)
    _, place, counts = np.unique(magnitude, return_inverse=True, return_counts=True)
    ranks = (np.cumsum(counts) - (counts - 1) / 2)[place]
    zeros = 0.5 * float(ranks[difference == 0].sum())
    positive = float(ranks[difference > 0].sum()) + zeros
    if n <= 50 and counts.max() == 1 and magnitude.min() > 0:
        return float(_rank_sum_cdf(n)[round(positive)])
    if n <= 13:
        flips = _signs(n) @ np.where(difference == 0, 0, ranks) + zeros
        return float(np.mean(flips <= positive + 1e-9))
    variance = (n * (n + 1) * (2 * n + 1) - float((counts**3 - counts).sum()) / 2) / 24
    if variance <= 0:
        return math.nan
    return 0.5 * math.erfc(-(positive - n * (n + 1) / 4) / math.sqrt(2 * variance))


@cache
def _signs(n: int) -> NDArray[np.float64]:
    """All choices of positive runs, (2^n, n)."""
    return (np.arange(2**n)[:, None] >> np.arange(n) & 1).astype(float)


@cache
def _rank_sum_cdf(n: int) -> NDArray[np.float64]:
    """P(W+ <= w) for w = 0 .. n (n + 1) / 2 under symmetry."""
    counts = np.zeros(n * (n + 1) // 2 + 1)
    counts[0] = 1
    for rank in range(1, n + 1):
        counts[rank:] = counts[rank:] + counts[:-rank]
    return np.cumsum(counts) / 2.0**n
