"""Quantities as Kubernetes writes them."""

from decimal import Decimal

import pytest

from crossfold_operator.api.quantities import amount, is_quantity
from crossfold_operator.api.template import ResourcesSpec


@pytest.mark.parametrize(
    ("quantity", "number"),
    [
        (3, "3"),
        ("0", "0"),
        ("1.5Gi", "1610612736"),
        ("16G", "16e9"),
        ("500m", "0.5"),
        (".5", "0.5"),
        ("1.", "1"),
        ("1e3", "1000"),
        ("1E3", "1000"),
        ("1E", "1e18"),
        ("2.5e-1", "0.25"),
        ("100n", "1e-7"),
        ("-1k", "-1000"),
    ],
)
def test_amounts(quantity: int | str, number: str) -> None:
    assert amount(quantity) == Decimal(number)


@pytest.mark.parametrize("text", ["", "16GB", "16 Gi", "1gi", "1K", "1e", "Gi", "1.5.2", "2 cores", "1Gi\n", "\u0661"])
def test_what_is_no_quantity(text: str) -> None:
    assert not is_quantity(text)


def test_a_quantity_that_was_stored_before_the_rules_is_passed_over() -> None:
    assert ResourcesSpec(limits={"memory": "16GB"}, requests={"memory": "1Gi", "cpu": 1}).problems == []
