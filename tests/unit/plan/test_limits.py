"""What an administrator allows."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crossfold_operator.api.crossvalidation import CrossValidationSpec
from crossfold_operator.api.tune import TuneSpec
from crossfold_operator.names import Reason
from crossfold_operator.plan.limits import Limits, fair_shares, shared, within
from tests.fakes.world import cross_validation, tune


def spec(**changes: Any) -> TuneSpec:
    return TuneSpec.model_validate(tune(**changes)["spec"])


def test_without_limits_a_spec_is_as_it_is() -> None:
    asked = spec(maxTrials=500, parallelism=300)
    assert within(asked, Limits()) == (asked, [])
    assert within(asked, Limits(500, 300)) == (asked, [])


def test_what_is_above_a_limit_is_cut_and_told() -> None:
    cut, held = within(spec(maxTrials=500, parallelism=300), Limits(trials=100, parallelism=40))
    assert (cut.max_trials, cut.parallelism) == (100, 40)
    assert [one.reason for one in held] == [Reason.TRIALS_LIMITED, Reason.PARALLELISM_LIMITED]
    for one, parts in zip(
        held, [("500", "100", "trialsPerTune", "maxTrials"), ("300", "40", "parallelismPerTune")], strict=True
    ):
        assert all(part in one.message for part in parts)


def test_a_cross_validation_has_no_trials_to_limit() -> None:
    asked = CrossValidationSpec.model_validate(cross_validation(parallelism=9)["spec"])
    cut, held = within(asked, Limits(trials=1, parallelism=4))
    assert cut.parallelism == 4
    assert [one.reason for one in held] == [Reason.PARALLELISM_LIMITED]
    assert "runsPerNamespace" in shared(Limits(runs=7)).message


@pytest.mark.parametrize(
    ("limit", "demands", "shares"),
    [
        (10, {}, {}),
        (10, {"a": 4, "b": 4}, {"a": 4, "b": 4}),
        (10, {"a": 100, "b": 100}, {"a": 5, "b": 5}),
        (10, {"a": 100, "b": 2}, {"a": 8, "b": 2}),
        (10, {"a": 100, "b": 100, "c": 100}, {"a": 4, "b": 3, "c": 3}),
        (2, {"a": 5, "b": 5, "c": 5}, {"a": 1, "b": 1, "c": 0}),
    ],
)
def test_fair_shares(limit: int, demands: dict[str, int], shares: dict[str, int]) -> None:
    assert fair_shares(limit, demands) == shares


@given(st.integers(0, 50), st.dictionaries(st.text(max_size=3), st.integers(0, 40), max_size=8))
def test_shares_are_fair(limit: int, demands: dict[str, int]) -> None:
    shares = fair_shares(limit, demands)
    assert sum(shares.values()) == min(limit, sum(demands.values()))
    assert all(shares[one] <= demands[one] for one in demands)
    short = [shares[one] for one in demands if shares[one] < demands[one]]
    assert not short or max(shares.values()) <= min(short) + 1
