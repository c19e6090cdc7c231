"""A W&B sweep configuration."""

import math
from collections.abc import Mapping
from dataclasses import replace
from decimal import ROUND_CEILING, ROUND_FLOOR, Decimal
from functools import partial
from typing import Any

from crossfold_cli.importers.located import Located
from crossfold_cli.importers.shape import Metric, Reading, Search, choices, interval, metric_of, only, required

TITLE = "W&B sweep"

_ALGORITHMS = {"bayes": "TPE", "random": "Random", "grid": "Grid"}
_DISTRIBUTIONS = (
    "constant",
    "categorical",
    "int_uniform",
    "uniform",
    "q_uniform",
    "log_uniform_values",
    "inv_log_uniform_values",
)
_EXPONENTS = ("log_uniform", "inv_log_uniform")
_LEFT = {
    "early_terminate": "a Tune's racing prunes across folds and seeds; spec.pruning looks into runs",
    "program": "Crossfold's trainer runs; spec.template.image is for one of your own",
    "command": "Crossfold's trainer runs; spec.template.image is for one of your own",
    "project": "a Tune says where to track in spec.tracking",
    "entity": "a Tune says where to track in spec.tracking",
    "description": "use an annotation",
}


def recognised(document: Located) -> bool:
    """Whether this looks like a sweep."""
    top = document.content
    return isinstance(top, dict) and "apiVersion" not in top and "method" in top and "parameters" in top


def read(document: Located, reading: Reading) -> Search:
    """Read a sweep."""
    top = document.mapping("the file")
    entries, algorithm, metric, trials, name = [], "", None, None, ""
    for key, item in top.items():
        with reading.part():
            match key:
                case "parameters" | "method":
                    pass
                case "metric":
                    with reading.part("metric"):
                        metric = _metric(item, reading)
                case "run_cap":
                    with reading.part("max_trials"):
                        trials = item.count("run_cap")
                case "name":
                    name = item.text("name")
                case _:
                    reading.left(item, f"'{key}'", _LEFT.get(key, "it has no counterpart"))
    with reading.part():
        algorithm = _algorithm(required(document, top, "method", "a sweep"))
    with reading.part():
        for parameter, item in required(document, top, "parameters", "a sweep").mapping("parameters").items():
            entries.append(reading.entry(parameter, item.line, partial(_says, parameter, item, reading)))
    return Search(entries=tuple(entries), name=name, metric=metric, algorithm=algorithm, max_trials=trials)


def _algorithm(method: Located) -> str:
    name = method.text("method")
    if name not in _ALGORITHMS:
        raise method.error(f"method '{name}' has no counterpart: use {', '.join(_ALGORITHMS)}")
    return _ALGORITHMS[name]


def _metric(item: Located, reading: Reading) -> Metric:
    given = item.mapping("metric")
    only(item, given, ("name", "goal", "target"), "metric")
    name = required(item, given, "name", "metric").text("metric.name")
    goal = given.get("goal", Located("minimize", item.line))
    metric = metric_of(name, goal, "metric.goal", given.get("target"), reading, line=item.line)
    if "goal" in given:
        return metric
    return replace(metric, assumed="metric has no goal, which W&B reads as minimize, and so it is here")


def _says(name: str, item: Located, reading: Reading) -> Mapping[str, Any]:
    given = item.mapping(f"'{name}'")
    if "parameters" in given:
        raise item.error(f"'{name}' nests parameters: a Tune's have no levels; move them up under names of their own")
    distribution = given["distribution"].text(f"distribution of '{name}'") if "distribution" in given else _guess(given)
    what = f"'{name}' with distribution {distribution}"
    if "probabilities" in given:
        reading.left(given["probabilities"], f"'probabilities' of '{name}'", "every value is as likely")
        given = {key: value for key, value in given.items() if key != "probabilities"}
    match distribution:
        case "constant":
            only(item, given, ("distribution", "value"), what)
            return {"value": required(item, given, "value", what).plain}
        case "categorical":
            only(item, given, ("distribution", "values"), what)
            return choices(required(item, given, "values", what), f"values of '{name}'")
        case "int_uniform":
            return interval(item, "Int", _bounds(item, given, what))
        case "uniform":
            return interval(item, "Float", _bounds(item, given, what))
        case "log_uniform_values" | "inv_log_uniform_values":
            # Of X, log(1/X) is uniform exactly when log(X) is: both are log-uniform between min and max.
            return interval(item, "Float", _bounds(item, given, what), scale="Log")
        case "q_uniform":
            return _quantised(name, item, given, reading)
        case "":
            raise item.error(f"'{name}' needs value, values, or min and max")
        case _ if distribution in _EXPONENTS:
            raise given["distribution"].error(_of_exponents(name, distribution, given))
        case _:
            raise item.error(
                f"'{name}' has the distribution '{distribution}', which has no counterpart: use"
                f" {', '.join(_DISTRIBUTIONS)}"
            )


def _guess(given: Mapping[str, Located]) -> str:
    """The distribution that W&B takes where none is named."""
    if "values" in given:
        return "categorical"
    if "value" in given:
        return "constant"
    if "min" in given and "max" in given:
        whole = all(isinstance(given[end].content, int) for end in ("min", "max"))
        if "q" in given:
            return "q_uniform"
        return "int_uniform" if whole else "uniform"
    return "normal" if "mu" in given or "sigma" in given else ""


def _bounds(item: Located, given: Mapping[str, Located], what: str, *more: str) -> tuple[int | float, int | float]:
    only(item, given, ("distribution", "min", "max", *more), what)
    low, high = (required(item, given, end, what).number(f"{end} of {what}") for end in ("min", "max"))
    return low, high


def _quantised(name: str, item: Located, given: Mapping[str, Located], reading: Reading) -> Mapping[str, Any]:
    """Multiples of q, not steps from min: W&B rounds a uniform number to them.

    An integer q, also the default, 1, makes integers. W&B's rounding may leave the bounds; here it does not.
    """
    what = f"'{name}' with distribution q_uniform"
    low, high = _bounds(item, given, what, "q")
    q = given["q"].number(f"q of '{name}'") if "q" in given else 1
    if q <= 0:
        raise given["q"].error(f"q of '{name}' must be above 0, not {q!r}")
    kind, step = "Int" if isinstance(q, int) else "Float", Decimal(repr(q))
    least, greatest = (Decimal(repr(bound)) / step for bound in (low, high))
    first = int(least.to_integral_value(ROUND_CEILING))
    last = int(greatest.to_integral_value(ROUND_FLOOR))
    if first >= last:
        raise item.error(f"'{name}' has fewer than two multiples of q = {q!r} between {low!r} and {high!r}")
    cast = int if kind == "Int" else float
    bounds = (cast(first * step), cast(last * step))
    if first != least or last != greatest:
        reading.note(
            item, f"'{name}' takes the multiples of q = {q!r} between min and max: {bounds[0]!r} to {bounds[1]!r}"
        )
    return interval(item, kind, bounds, step=q)


def _of_exponents(name: str, distribution: str, given: Mapping[str, Located]) -> str:
    text = f"'{name}': {distribution} takes exponents of e for bounds, which has no counterpart: use log_uniform_values"
    try:
        low, high = (math.exp(given[end].number(end)) for end in ("min", "max"))
    except (KeyError, OverflowError):
        return text
    if distribution == "inv_log_uniform":
        low, high = 1 / high, 1 / low
    return f"{text} with min: {low:.6g} and max: {high:.6g}"
