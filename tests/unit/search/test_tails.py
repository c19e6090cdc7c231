"""Distribution functions against scipy's."""

import math

import pytest
from scipy import stats

from crossfold_operator.search.tails import log_tail_ratio, student_t_cdf


@pytest.mark.parametrize("df", [1, 2, 6, 7.5, 12, 40, 400])
def test_student_t_against_scipy(df: float) -> None:
    for t in (0, 1e-9, 0.3, 1, 1.7, 2.9, 6.5, 25, 1e3, 1e8):
        for sign in (-1, 1):
            assert student_t_cdf(sign * t, df) == pytest.approx(stats.t.cdf(sign * t, df), rel=1e-9, abs=1e-300)
    assert (student_t_cdf(-math.inf, df), student_t_cdf(1e300, df)) == (0, 1)


def test_gaussian_tail_against_scipy() -> None:
    for w in (-1e9, -40, -3, -0.5, 0, 0.5, 3, 12, 29.999, 30, 31, 1e3, 1e5):
        # Where the sum of the two terms cancels, scipy's own is less exact.
        expected = w * w / 2 + stats.norm.logcdf(-w)
        assert log_tail_ratio(w) == pytest.approx(expected, rel=1e-9, abs=1e-15 * w * w + 1e-12), w
    assert log_tail_ratio(1e200) == pytest.approx(-math.log(1e200) - 0.5 * math.log(2 * math.pi))
