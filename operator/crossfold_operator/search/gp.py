"""The next point by a Gaussian process and its log expected improvement.

Matérn-5/2 covariance with one length scale a dimension (Hamming distance for categorical ones) on positions in [0, 1];
hyperparameters by maximum a posteriori, with the priors of Hvarfner, Hellsten and Nardi, Vanilla Bayesian Optimization
Performs Great in High Dimensions (ICML 2024). Acquisition as in Ament et al., Unexpected Improvements to Expected
Improvement for Bayesian Optimization (NeurIPS 2023). Running trials count as average ones (a constant liar:
Ginsbourger, Le Riche and Carraro, Kriging Is Well-Suited to Parallelize Optimization, 2010). Where trials did not fit
into memory, improvement counts by the probability that a point fits (Gardner et al., Bayesian Optimization with
Inequality Constraints, ICML 2014), by a process of its own over fits (0) and does not (1).

Optuna's own sampler would bring torch into the operator.

In shapes, n = trials told, q = points asked about, d = dimensions.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.linalg import cho_factor, cho_solve, solve_triangular
from scipy.optimize import minimize
from scipy.special import erfcx, log1p, log_ndtr, ndtr

from crossfold_operator.search import sobol
from crossfold_operator.search.dimensions import Choices
from crossfold_operator.search.question import Question
from crossfold_operator.search.space import Point, Space
from crossfold_operator.search.told import losses_of, observations, window

_BEST = 50
_RECENT = 100
"""Ended trials that the process is fitted to: the best ones, and of the others the most recent. It costs their third
power."""
_RUNNING = 100
"""Running trials that it keeps clear of, the latest, at the same cost."""
_SCATTERED = 512
"""Points of a Sobol sequence among which the search for the best one begins."""
_CLIMBERS = 6
"""Points from which it goes on."""
_ROUNDS = 8
_STEPS = 32
"""Rounds of ever shorter steps, and steps that each climber tries a round."""
_NOISE = (-4.0, 1.0)
"""Mean and standard deviation of the noise variance's logarithm."""
_LEAST_NOISE = 1e-4
"""Least noise variance: no score is exact, and a point next to the best one says little that is new."""
_SPREAD = math.sqrt(3)
"""Standard deviation of a length scale's logarithm."""


def proposals(question: Question) -> Iterator[Point]:
    """Points to try next, the most promising first; of a Sobol sequence, before there are scores enough."""
    space, direction = question.space, question.direction
    losses = losses_of(direction, question.trials)
    told = observations(space, direction, window(question.trials, losses, _BEST, _RECENT, _RUNNING))
    if len(told.points) < (question.algorithm.setting("startupTrials") or 1):
        yield from sobol.proposals(question)
        return
    inputs = np.array([positions(space, point) for point in told.points])
    process = fit(inputs, np.array(told.losses), _categorical(space))
    if told.running:
        process = process.supposing(np.array([positions(space, point) for point in told.running]))
    limit = None
    if told.infeasible:
        beyond = np.array([positions(space, point) for point in told.infeasible])
        limit = Limit.fit(inputs, beyond, _categorical(space))
    yield from _ranked(space, process, limit, question.seed)


def positions(space: Space, point: Point) -> list[float]:
    """Where a point is in the unit cube."""
    return [d.position(c) for d, c in zip(space.dimensions, point, strict=True)]


def _categorical(space: Space) -> np.ndarray:
    """``(d,)`` bool: which dimensions have no order."""
    return np.array([isinstance(dimension, Choices) for dimension in space.dimensions])


@dataclass(frozen=True)
class Process:
    """A Gaussian process that has seen some losses.

    Attributes:
        inputs: ``(n, d)`` positions.
        losses: ``(n,)`` standardised, to be minimised.
        categorical: ``(d,)`` bool.
        lengths: ``(d,)`` length scales.
        noise: variance of the noise.
        factor: ``(n, n)`` lower Cholesky factor of the covariance with its noise.
        weights: ``(n,)`` what a covariance with the inputs is multiplied by to give a mean.
    """

    inputs: np.ndarray
    losses: np.ndarray
    categorical: np.ndarray
    lengths: np.ndarray
    noise: float
    factor: np.ndarray
    weights: np.ndarray

    def predict(self, inputs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Mean and standard deviation of the noiseless loss, ``(q,)`` each, at ``(q, d)`` positions."""
        covariance = matern(_differences(inputs, self.inputs, self.categorical), self.lengths)  # (q, n)
        mean = covariance @ self.weights
        reduced = solve_triangular(self.factor, covariance.T, lower=True, check_finite=False)  # (n, q)
        return mean, np.sqrt(np.maximum(1 - np.sum(reduced**2, axis=0), 1e-12))

    def supposing(self, inputs: np.ndarray) -> "Process":
        """The process, had it seen average losses at ``(q, d)`` further positions."""
        losses = np.concatenate([self.losses, np.zeros(len(inputs))])
        return _seen(np.concatenate([self.inputs, inputs]), losses, self.categorical, self.lengths, self.noise)


def standardised(losses: np.ndarray) -> np.ndarray:
    """``(n,)`` losses of mean 0 and standard deviation 1, none of them disastrous.

    What is worse than the best third by more than three times that third's extent is cut off there: how bad it is says
    nothing about where the best is, and would hide the differences among good ones.
    """
    best, third = np.quantile(losses, [0, 1 / 3], method="lower")
    kept = np.minimum(losses, third + 3 * (third - best)) if third > best else losses
    spread = float(np.std(kept))
    scaled: np.ndarray = (kept - np.mean(kept)) / (spread if spread > 0 else 1.0)
    return scaled


def fit(inputs: np.ndarray, losses: np.ndarray, categorical: np.ndarray) -> Process:
    """A process with the most probable length scales and noise.

    Args:
        inputs: ``(n, d)`` positions in [0, 1].
        losses: ``(n,)`` to be minimised.
        categorical: ``(d,)`` bool: the dimensions without an order.
    """
    scaled = standardised(losses)
    squares = np.stack(_differences(inputs, inputs, categorical))  # (d, n, n)
    dimensions = inputs.shape[1]
    typical = math.sqrt(2) + 0.5 * math.log(dimensions)
    start = np.array([*([math.log(0.5)] * dimensions), _NOISE[0]])
    found = minimize(
        _negative_log_posterior,
        start,
        args=(squares, scaled, typical),
        jac=True,
        method="L-BFGS-B",
        bounds=[(-4.0, 6.0)] * dimensions + [(math.log(_LEAST_NOISE), 1.0)],
        options={"maxiter": 40},
    )
    return _seen(inputs, scaled, categorical, np.exp(found.x[:-1]), float(np.exp(found.x[-1])))


def _seen(
    inputs: np.ndarray, losses: np.ndarray, categorical: np.ndarray, lengths: np.ndarray, noise: float
) -> Process:
    covariance = matern(_differences(inputs, inputs, categorical), lengths)
    covariance[np.diag_indices_from(covariance)] += noise + _LEAST_NOISE
    factor = np.linalg.cholesky(covariance)
    weights = cho_solve((factor, True), losses, check_finite=False)
    return Process(inputs, losses, categorical, lengths, noise, factor, weights)


def _differences(a: np.ndarray, b: np.ndarray, categorical: np.ndarray) -> list[np.ndarray]:
    """Squared differences of each dimension, d times ``(len(a), len(b))``; 0 or 1 where there is no order."""
    return [
        (a[:, None, i] != b[None, :, i]).astype(float) if unordered else (a[:, None, i] - b[None, :, i]) ** 2
        for i, unordered in enumerate(categorical)
    ]


def matern(squares: Sequence[np.ndarray] | np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """Matérn-5/2 covariance of variance 1 from the squared differences of each dimension."""
    distance = np.sqrt(5 * sum(square / length**2 for square, length in zip(squares, lengths, strict=True)))
    covariance: np.ndarray = (1 + distance + distance**2 / 3) * np.exp(-distance)
    return covariance


def _negative_log_posterior(
    logs: np.ndarray, squares: np.ndarray, losses: np.ndarray, typical: float
) -> tuple[float, np.ndarray]:
    """And its gradient, by the logarithms of the length scales and of the noise.

    Rasmussen and Williams, Gaussian Processes for Machine Learning (2006), equations 5.8 and 5.9, with log-normal
    priors.
    """
    scales = np.exp(-2 * logs[:-1])  # (d,)
    noise = math.exp(logs[-1])
    distance = np.sqrt(5 * np.tensordot(scales, squares, axes=1))  # (n, n)
    decay = np.exp(-distance)
    covariance = (1 + distance + distance**2 / 3) * decay
    covariance[np.diag_indices_from(covariance)] += noise + _LEAST_NOISE
    factor = cho_factor(covariance, lower=True, check_finite=False)
    weights = cho_solve(factor, losses, check_finite=False)
    inverse = cho_solve(factor, np.eye(len(losses)), check_finite=False)
    value = 0.5 * losses @ weights + np.sum(np.log(np.diag(factor[0])))
    outer = np.outer(weights, weights) - inverse  # (n, n)
    slopes = outer * (5 / 3) * (1 + distance) * decay
    gradient = np.append(-0.5 * scales * np.tensordot(squares, slopes, axes=2), -0.5 * noise * np.trace(outer))
    away = np.append((logs[:-1] - typical) / _SPREAD, (logs[-1] - _NOISE[0]) / _NOISE[1])
    wide = np.append(np.full(len(logs) - 1, _SPREAD), _NOISE[1])
    return float(value + 0.5 * away @ away), gradient + away / wide


@dataclass(frozen=True)
class Limit:
    """Where points violate a constraint, as far as trials have shown.

    Attributes:
        process: over 0 where the constraint is kept and 1 where it is violated, standardised.
        bar: the middle of the two.
    """

    process: Process
    bar: float

    @classmethod
    def fit(cls, within: np.ndarray, beyond: np.ndarray, categorical: np.ndarray) -> "Limit":
        """From ``(m, d)`` and ``(n, d)`` positions that keep and violate it, one of each at least."""
        violated = np.repeat([0.0, 1.0], [len(within), len(beyond)])
        bar = (0.5 - violated.mean()) / violated.std()
        return cls(fit(np.concatenate([within, beyond]), violated, categorical), float(bar))

    def log_probability(self, inputs: np.ndarray) -> np.ndarray:
        """``(q,)`` logarithm of the probability that ``(q, d)`` positions keep it."""
        mean, deviation = self.process.predict(inputs)
        logs: np.ndarray = log_ndtr((self.bar - mean) / deviation)
        return logs


def log_expected_improvement(process: Process, inputs: np.ndarray) -> np.ndarray:
    """``(q,)`` at ``(q, d)`` positions, over the least mean at any input that was seen."""
    mean, deviation = process.predict(inputs)
    bar = float(np.min(process.predict(process.inputs)[0]))
    gain: np.ndarray = _log_h((bar - mean) / deviation) + np.log(deviation)
    return gain


def _log_h(z: np.ndarray) -> np.ndarray:
    """The logarithm of phi(z) + z Phi(z), without loss for very negative z."""
    low = np.minimum(z, -1.0)
    ratio = -low * math.sqrt(math.pi / 2) * erfcx(-low / math.sqrt(2))
    # Beyond 1e4 the difference of the ratio from 1 is 1 / z^2.
    tail = np.where(low > -1e4, log1p(-np.minimum(ratio, 1 - 1e-16)), -2 * np.log(-low))
    far = -0.5 * low**2 - 0.5 * math.log(2 * math.pi) + tail
    near_z = np.maximum(z, -1.0)
    near = np.log(np.exp(-0.5 * near_z**2) / math.sqrt(2 * math.pi) + near_z * ndtr(near_z))
    logs: np.ndarray = np.where(z < -1, far, near)
    return logs


def _ranked(space: Space, process: Process, limit: Limit | None, seed: int) -> Iterator[Point]:
    """Points with a great log expected improvement, the greatest first: scattered ones, and uphill from the best."""
    rng = np.random.default_rng(seed)
    dimensions = len(space.dimensions)
    found: dict[Point, float] = {}

    def look(proposed: np.ndarray) -> None:
        points = {tuple(d.at(float(p)) for d, p in zip(space.dimensions, row, strict=True)) for row in proposed}
        new = sorted(points - found.keys())
        if new:
            asked = np.array([positions(space, point) for point in new])
            gains = log_expected_improvement(process, asked)
            if limit is not None:
                gains = gains + limit.log_probability(asked)
            found.update(zip(new, map(float, gains), strict=True))

    def best(count: int) -> list[Point]:
        return sorted(found, key=lambda point: (-found[point], point))[:count]

    look(sobol.positions_of(dimensions, seed, 0, _SCATTERED))
    seen = process.inputs[np.argsort(process.losses, kind="stable")[:_CLIMBERS]]
    look(np.clip(np.repeat(seen, _STEPS, axis=0) + rng.normal(0, 0.05, (len(seen) * _STEPS, dimensions)), 0, 1))
    for step in range(_ROUNDS):
        centres = np.repeat([positions(space, point) for point in best(_CLIMBERS)], _STEPS, axis=0)
        moved = centres + rng.normal(0, 0.2 * 0.5**step, centres.shape)
        # Every step changes some coordinates only; some of them, and those without an order, to anywhere.
        changed = rng.random(centres.shape) < max(0.5, 1 / dimensions)
        anywhere = process.categorical | (rng.random(centres.shape) < 0.2)
        moved = np.where(anywhere, rng.random(centres.shape), moved)
        look(np.clip(np.where(changed, moved, centres), 0, 1))
    yield from best(len(found))
