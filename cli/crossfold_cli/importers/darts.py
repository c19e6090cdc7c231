"""darts' hpconfig: a table ``hyperparameters`` in YAML or TOML.

A list is a choice between its items, a scalar a constant, ``{low, high}`` a range whose type is that of its bounds, and
a table with ``distribution`` says what it is.
"""

from collections.abc import Mapping
from functools import partial
from typing import Any

from crossfold_cli.importers.located import Located
from crossfold_cli.importers.shape import Reading, Search, choices, interval, only, required

TITLE = "darts hpconfig"
TOP = "hyperparameters"

_DISTRIBUTIONS = (
    "uniform",
    "loguniform",
    "intuniform",
    "reversed_loguniform",
    "choice",
    "constant",
    "value",
)
_BOUND = 1
"""reversed_loguniform approaches this from below; a Tune's ReverseLog does too."""


def recognised(document: Located) -> bool:
    """Whether this looks like an hpconfig."""
    return isinstance(document.content, dict) and isinstance(document.content.get(TOP, Located(None, 1)).content, dict)


def read(document: Located, reading: Reading) -> Search:
    """Read an hpconfig."""
    top = document.mapping("the file")
    for name, item in top.items():
        if name != TOP:
            reading.left(item, f"'{name}'", f"an hpconfig is its table '{TOP}'")
    entries = []
    for name, item in required(document, top, TOP, "the file").mapping(f"'{TOP}'").items():
        entries.append(reading.entry(name, item.line, partial(_says, name, item)))
    return Search(entries=tuple(entries))


def _says(name: str, item: Located) -> Mapping[str, Any]:
    if isinstance(item.content, list):
        return choices(item, f"'{name}'")
    if not isinstance(item.content, dict):
        return {"value": item.plain}
    given = item.mapping(f"'{name}'")
    if "distribution" in given:
        # It wins over the shorthand, also where low and high are there.
        return _distribution(name, item, given)
    only(item, given, ("low", "high", "distribution"), f"'{name}'")
    low, high = (required(item, given, bound, f"'{name}'").number(f"{bound} of '{name}'") for bound in ("low", "high"))
    if isinstance(low, int) != isinstance(high, int):
        raise item.error(
            f"'{name}' mixes a whole and a decimal bound ({low!r}, {high!r}): write both as whole numbers for"
            " integers, both with a fraction (1.0) for decimals"
        )
    return interval(item, "Int" if isinstance(low, int) else "Float", (low, high))


def _distribution(name: str, item: Located, given: Mapping[str, Located]) -> Mapping[str, Any]:
    distribution = given["distribution"].text(f"distribution of '{name}'").replace("-", "_")
    what = f"'{name}' with distribution {distribution}"
    match distribution:
        case "uniform" | "loguniform" | "intuniform" | "reversed_loguniform":
            bound = ("n",) if distribution == "reversed_loguniform" else ()
            only(item, given, ("distribution", "low", "high", *bound), what)
            low, high = (required(item, given, end, what).number(f"{end} of '{name}'") for end in ("low", "high"))
            if distribution == "intuniform":
                return interval(item, "Int", (low, high))
            scale = {"loguniform": "Log", "reversed_loguniform": "ReverseLog"}.get(distribution, "")
            if scale == "ReverseLog":
                _below_one(name, given, high)
            return interval(item, "Float", (low, high), scale=scale)
        case "choice":
            only(item, given, ("distribution", "choices"), what)
            return choices(required(item, given, "choices", what), f"choices of '{name}'")
        case "constant" | "value":
            only(item, given, ("distribution", "value"), what)
            return {"value": required(item, given, "value", what).plain}
        case _:
            raise given["distribution"].error(
                f"'{name}' has the unknown distribution '{distribution}': use {', '.join(_DISTRIBUTIONS)}"
            )


def _below_one(name: str, given: Mapping[str, Located], high: float) -> None:
    if "n" in given and given["n"].number(f"n of '{name}'") != _BOUND:
        raise given["n"].error(f"'{name}' approaches n = {given['n'].plain!r}: only n = {_BOUND} has a counterpart")
    if high >= _BOUND:
        raise given["high"].error(f"'{name}': reversed_loguniform needs high below {_BOUND}, not {high!r}")
