"""Tails of distributions, to more digits and farther out than decisions need, without numpy or scipy."""

import math

_TAIL = 30.0
"""Beyond so many standard deviations the Gaussian tail is a series with a relative error below 1e-11."""


def student_t_cdf(t: float, df: float) -> float:
    """Student's t distribution function, to about 12 significant digits in either tail. df > 0.

    By the incomplete beta function's continued fraction (Abramowitz and Stegun 26.5.8 and 26.7.1).
    """
    if math.isinf(t):
        return 0.0 if t < 0 else 1.0
    square = t * t
    if math.isinf(square):
        return 0.0 if t < 0 else 1.0
    if square * (df + 2) < 3 * df:
        # In the middle the complement converges: P(|T| < |t|) = I_y(1/2, df/2), y = t^2 / (df + t^2).
        inside = _incomplete_beta(square / (df + square), 0.5, df / 2)
        return 0.5 * (1 - inside) if t < 0 else 0.5 * (1 + inside)
    tail = 0.5 * _incomplete_beta(df / (df + square), df / 2, 0.5)
    return tail if t < 0 else 1 - tail


def _incomplete_beta(x: float, a: float, b: float) -> float:
    """The regularised incomplete beta function by Lentz's method, for x up to about (a + 1) / (a + b + 2)."""
    if x <= 0:
        return 0.0
    log_front = math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b) + a * math.log(x) + b * math.log1p(-x)
    tiny = 1e-300
    d = 1 / (1 - (a + b) * x / (a + 1) or tiny)
    c, fraction = 1.0, d
    for m in range(1, 1000):
        even = m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m))
        odd = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1))
        for coefficient in (even, odd):
            d = 1 / (1 + coefficient * d or tiny)
            c = 1 + coefficient / c or tiny
            step = c * d
            fraction *= step
        if abs(step - 1) < 1e-15:
            break
    return math.exp(log_front) * fraction / a


def log_tail_ratio(w: float) -> float:
    """w^2 / 2 + ln Phi(-w): finite wherever w is, and without cancellation far out."""
    if w < _TAIL:
        upper = 0.5 * math.erfc(-w / math.sqrt(2))  # Phi(w)
        log_phi = math.log1p(-upper) if w < 0 else math.log(0.5 * math.erfc(w / math.sqrt(2)))
        return w * w / 2 + log_phi
    square = w * w
    series = 1 - 1 / square + 3 / square**2 - 15 / square**3 + 105 / square**4 if square < 1e60 else 1.0
    return math.log(series) - math.log(w) - 0.5 * math.log(2 * math.pi)
