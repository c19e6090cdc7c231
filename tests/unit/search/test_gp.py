import math

import numpy as np
import pytest
from scipy.optimize import approx_fprime
from scipy.stats import norm

from crossfold_operator.search import gp

NUMERIC = np.array([False, False])
RNG = np.random.default_rng(7)


def seen(count: int = 20, categorical: np.ndarray = NUMERIC) -> tuple[np.ndarray, np.ndarray]:
    inputs = RNG.random((count, 2))
    inputs[:, categorical] = RNG.integers(0, 3, (count, int(categorical.sum()))) / 3
    return inputs, np.sin(3 * inputs[:, 0]) + inputs[:, 1] ** 2 + RNG.normal(0, 0.05, count)


@pytest.mark.parametrize("categorical", [NUMERIC, np.array([False, True])])
def test_the_gradient_is_that_of_the_value(categorical: np.ndarray) -> None:
    inputs, losses = seen(12, categorical)
    squares = np.stack(gp._differences(inputs, inputs, categorical))
    scaled = gp.standardised(losses)
    for logs in ([-0.7, -0.7, -4.0], [1.0, -2.0, -1.0], [-2.0, 3.0, -8.0]):
        at = np.array(logs)
        value, gradient = gp._negative_log_posterior(at, squares, scaled, 1.8)
        assert math.isfinite(value)
        numeric = approx_fprime(at, lambda x: gp._negative_log_posterior(x, squares, scaled, 1.8)[0], 1e-6)
        assert gradient == pytest.approx(numeric, rel=1e-3, abs=1e-3)


def test_the_likelihood_is_that_of_a_normal_distribution() -> None:
    inputs, losses = seen(8)
    scaled = gp.standardised(losses)
    logs = np.array([-0.5, 0.3, -2.0])
    squares = np.stack(gp._differences(inputs, inputs, NUMERIC))
    covariance = gp.matern(squares, np.exp(logs[:-1])) + (math.exp(-2.0) + gp._LEAST_NOISE) * np.eye(8)
    from scipy.stats import multivariate_normal

    expected = -multivariate_normal(np.zeros(8), covariance).logpdf(scaled) - 4 * math.log(2 * math.pi)
    priors = 0.5 * float(np.sum(((logs[:-1] - 1.8) / math.sqrt(3)) ** 2)) + 0.5 * (-2.0 + 4.0) ** 2
    assert gp._negative_log_posterior(logs, squares, scaled, 1.8)[0] == pytest.approx(expected + priors)


def test_predictions_follow_what_was_seen_and_are_unsure_elsewhere() -> None:
    inputs = np.linspace(0, 0.5, 12)[:, None] * [1.0, 0.0] + [0.0, 0.5]
    losses = np.sin(6 * inputs[:, 0])
    process = gp.fit(inputs, losses, NUMERIC)
    mean, deviation = process.predict(inputs)
    assert mean == pytest.approx(gp.standardised(losses), abs=0.1)
    far = process.predict(np.array([[1.0, 0.5]]))[1][0]
    assert far > 5 * deviation.max()


def test_a_supposed_point_is_not_worth_another_look() -> None:
    inputs, losses = seen(30)
    process = gp.fit(inputs, losses, NUMERIC)
    there = np.array([[0.05, 0.02]])
    assert gp.log_expected_improvement(process.supposing(there), there) < gp.log_expected_improvement(process, there)


@pytest.mark.parametrize("z", [3.0, 0.0, -0.9, -1.1, -5.0, -20.0])
def test_the_logarithm_of_the_improvement(z: float) -> None:
    # For very negative z: phi(z) (1 / z^2 - 3 / z^4 + 15 / z^6), its asymptotic series.
    exact = norm.pdf(z) + z * norm.cdf(z)
    series = norm.logpdf(z) + math.log(abs(1 / z**2 - 3 / z**4 + 15 / z**6)) if z else 0.0
    assert gp._log_h(np.array([z]))[0] == pytest.approx(math.log(exact) if z > -6 else series, rel=1e-4)


def test_the_logarithm_of_the_improvement_never_ends() -> None:
    logs = gp._log_h(-np.logspace(0, 12, 200))
    assert np.all(np.isfinite(logs))
    assert np.all(np.diff(logs) < 0)


def test_disasters_do_not_hide_the_differences_among_good_losses() -> None:
    good = np.linspace(0, 1, 30)
    scaled = gp.standardised(np.append(good, [1e9, 2e9]))
    assert scaled.mean() == pytest.approx(0)
    assert scaled.std() == pytest.approx(1)
    assert np.all(np.diff(scaled[:30]) > 0.05)
    assert scaled[30] == scaled[31] == scaled.max()
    assert np.all(gp.standardised(np.full(5, 3.0)) == 0)
    assert np.all(np.isfinite(gp.standardised(np.append(np.zeros(20), 5.0))))


def test_equal_losses_are_no_trouble() -> None:
    inputs, _ = seen(10)
    process = gp.fit(np.repeat(inputs[:2], 5, axis=0), np.full(10, 0.5), NUMERIC)
    assert np.all(np.isfinite(gp.log_expected_improvement(process, inputs)))
