"""The racing policy a second time, by other means, against ``decide`` on random studies.

Nothing is shared with the operator's code but the model: the noise by textbook sums of squares, the prediction by solving
the kriging system of all runs, the mixture by numerical integration.
"""

import math
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import integrate, stats

from crossfold_operator.search.racing import CompletedTrial, Reason, decide

Array = NDArray[np.float64]
LOOKS = 400


def noise(y: Array) -> tuple[float, float]:
    """(a, e) from the references' y (R, K, S): two-way analysis of variance, trial x fold and what is left."""
    count, folds, seeds = y.shape
    cell, unit = y.mean(2, keepdims=True), y.mean(0, keepdims=True)
    interaction = cell - y.mean((1, 2), keepdims=True) - y.mean((0, 2), keepdims=True) + y.mean()
    mean_square = seeds * np.sum(interaction**2) / ((count - 1) * (folds - 1))
    if seeds == 1:
        return float(mean_square), 0.0
    rest = y - cell - unit + unit.mean(2, keepdims=True)
    e = np.sum(rest**2) / ((count - 1) * folds * (seeds - 1))
    return float(max(0.0, (mean_square - e) / seeds)), float(e)


def kriging(folds: list[int], z: Array, a: float, e: float, shape: tuple[int, int]) -> tuple[float, float, float]:
    """Mean of all K x S runs as predicted from runs z in these folds, its variance, and the mean's own estimate."""
    groups, repeats = shape
    same = np.equal.outer(folds, folds)
    inverse = np.linalg.inv(a * same + e * np.eye(len(z)))
    ones, target = np.ones(len(z)), np.full(len(z), a / groups + e / (groups * repeats))
    weight = ones @ inverse @ ones
    mu = ones @ inverse @ z / weight
    predicted = mu + target @ inverse @ (z - mu)
    variance = target[0] - target @ inverse @ target + (1 - ones @ inverse @ target) ** 2 / weight
    return float(predicted), float(variance), float(mu)


def log_mixture(gap: float, variance: float, spread: float) -> float:
    """Logarithm of the likelihood ratio of bar - d to bar, averaged over a half-normal d."""

    def log_ratio(d: float) -> float:
        return -d * d / (2 * spread) - (2 * gap * d + d * d) / (2 * variance)

    peak = max(0.0, -gap * spread / (spread + variance))
    width = math.sqrt(spread * variance / (spread + variance))
    # From the peak on, in widths of it: a likelihood ratio itself may be beyond the largest float.
    area = integrate.quad(
        lambda t: math.exp(log_ratio(peak + t * width) - log_ratio(peak)), max(-12, -peak / width), 12, epsabs=0
    )[0]
    return float(log_ratio(peak) + math.log(area * width) + math.log(2 / (math.pi * spread)) / 2)


def expected(study: dict[str, Any]) -> dict[str, Any] | None:
    """What ``decide`` is to say; None: no look."""
    sign = 1 if study["direction"] == "maximize" else -1
    groups, repeats = shape = (study["K"], study["S"]) if study["K"] > 1 else (study["S"], 1)
    trials = [
        (sign * np.array(trial["scores"]).reshape(shape), trial["number"], trial.get("imputed", False))
        for trial in study["completed"]
        if np.isfinite(np.array(trial["scores"], dtype=float)).all()
    ]
    trials.sort(key=lambda trial: (-trial[0].mean(), trial[1]))
    clean = [y for y, _, imputed in trials if not imputed]
    count = min(len(clean), max(5, 1 + -(-10 // (groups - 1)), -(-len(clean) // 2)))
    if len(clean) < 4 or (count - 1) * (groups - 1) < 10:
        return None
    references = np.array(clean[:count])
    bar = float(trials[0][0].mean()) + study["min_delta"]
    u = references.mean(0)
    a, e = noise(references)
    floored = max(a, (1e-4 * bar) ** 2, 1e-24)

    units = [((f, s) if study["K"] > 1 else (s, 0), y) for f, s, y in study["obs"]]
    runs = [(unit, sign * y) for unit, y in units if math.isfinite(y)]
    failed = [unit for unit, y in units if not math.isfinite(y)]
    if not runs or len(units) == groups * repeats:
        return None
    folds = [f for (f, _), _ in runs]
    z = np.array([y - u[unit] for unit, y in runs])
    predicted, variance, mu = kriging(folds, z, floored, e, shape)
    predicted += u.mean()
    predicted -= sum(predicted + u[unit] - u.mean() - sign * study["failure_score"] for unit in failed) / u.size
    inflation = 1 + 1 / count
    scatter, seen = 0.0, sorted(set(folds))
    for fold in seen:
        own = z[np.equal(folds, fold)]
        scatter += (own.mean() - mu) ** 2 / (floored + e / len(own)) / inflation
    lam = max(1.0, (6 + scatter) / (5 + len(seen)))
    v, v1 = lam * inflation * variance, inflation * kriging([0], z[:1], floored, e, shape)[1]
    gap = predicted - bar
    log_e = log_mixture(gap, v, 9 * v1)
    df = min((count - 1) * (groups - 1), 5 + len(seen))
    return {
        "incumbent": trials[0][1], "bar": sign * bar, "refs": count, "var_fold": a, "var_run": e,
        "predicted": sign * predicted, "se": math.sqrt(v), "lam": lam, "v1": v1, "log_e": log_e,
        "p_beat": stats.t.cdf(gap / math.sqrt(v), df), "prune": -log_e <= math.log(study["alpha"]) and gap < 0,
    }  # fmt: skip


def random_study(rng: np.random.Generator) -> dict[str, Any]:
    """Any shape, direction and order; trials with imputed or missing scores; failed runs that have a score."""
    hold_out = rng.random() < 0.15
    folds, seeds = (1, int(rng.integers(3, 9))) if hold_out else (int(rng.integers(2, 11)), int(rng.integers(1, 4)))
    sd, sd_run, unit_sd = rng.choice([0.0, 0.005, 0.02]), rng.choice([0.002, 0.02]), 0.05
    effects = rng.normal(0, unit_sd, (folds, seeds))

    def scores(mean: float) -> Array:
        own = rng.lognormal(0, 0.4)
        return mean + effects + own * (rng.normal(0, sd, (folds, 1)) + rng.normal(0, sd_run, (folds, seeds)))

    direction = str(rng.choice(["maximize", "minimize"]))
    sign = 1 if direction == "maximize" else -1
    completed: list[CompletedTrial] = []
    for number in rng.permutation(int(rng.integers(4, 30))):
        matrix = scores(sign * (0.8 - rng.exponential(0.03)))
        completed.append({"number": int(number), "scores": matrix.tolist()})
        if rng.random() < 0.1:
            completed[-1]["imputed"] = True
        elif rng.random() < 0.05:
            matrix[-1, -1] = np.nan
            completed[-1]["scores"] = matrix.tolist()
    trial = scores(sign * (0.8 - rng.exponential(0.03)))
    units = [(f, s, float(trial[f, s])) for f in range(folds) for s in range(seeds)]
    if rng.random() < 0.5:
        rng.shuffle(units)
    obs = [(int(f), int(s), float(y)) for f, s, y in units][: int(rng.integers(1, folds * seeds + 1))]
    if rng.random() < 0.15:
        obs[0] = (*obs[0][:2], math.nan)
    return {
        "obs": obs, "completed": completed, "K": folds, "S": seeds, "direction": direction,
        "alpha": float(rng.choice([0.01, 0.05, 0.2])), "min_delta": float(rng.choice([0, 0.003])),
        "failure_score": sign * 0.5,
    }  # fmt: skip


def test_decisions_are_those_of_the_formulas() -> None:
    looked: list[bool] = []
    for seed in range(LOOKS):
        study = random_study(np.random.default_rng(seed))
        seen, wanted = decide(**study), expected(study)
        if wanted is None:
            assert seen.reason in {Reason.WARMUP, Reason.NO_LOOK}, seed
            continue
        assert seen.prune == wanted.pop("prune"), seed
        for name, value in wanted.items():
            assert getattr(seen, name) == pytest.approx(value, rel=1e-6, abs=1e-12), (seed, name)
        looked.append(seen.prune)
    assert len(looked) > LOOKS / 2
    assert LOOKS / 20 < sum(looked) < len(looked) - LOOKS / 20
