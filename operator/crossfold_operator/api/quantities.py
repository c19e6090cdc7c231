"""Quantities as Kubernetes writes them, such as 16Gi, 500m and 1e3.

The package ``kubernetes`` reads them too; a workstation runs searches without it.
"""

import re
from decimal import Decimal

_QUANTITY = re.compile(r"([+-]?(?:\d+\.?\d*|\.\d+))(?:([KMGTPE]i|[numkMGTPE]?)|[eE]([+-]?\d{1,3}))", re.ASCII)
_DECIMAL = ("n", "u", "m", "", "k", "M", "G", "T", "P", "E")
_FACTORS = {suffix: Decimal(1000) ** i for i, suffix in enumerate(_DECIMAL, -3)}
_FACTORS |= {f"{suffix}i": Decimal(1024) ** i for i, suffix in enumerate("KMGTPE", 1)}


def is_quantity(text: str) -> bool:
    """Whether a text is a quantity: what CEL's function isQuantity says."""
    return amount(text) is not None


def amount(quantity: int | str) -> Decimal | None:
    """How much a quantity is; None when it is none."""
    match = _QUANTITY.fullmatch(str(quantity))
    if match is None:
        return None
    number, suffix, exponent = match.groups()
    return Decimal(number) * (Decimal(10) ** int(exponent) if exponent else _FACTORS[suffix])
