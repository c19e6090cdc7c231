"""An OptimizationJob of Kubeflow Trainer (trainer.kubeflow.org/v1alpha1). Its numbers are texts."""

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import Any

from crossfold_cli.importers import kubeflow
from crossfold_cli.importers.located import Located
from crossfold_cli.importers.shape import (
    GAUSSIAN_PROCESS,
    Entry,
    Reading,
    Search,
    choices,
    interval,
    is_kind,
    metric_of,
    only,
    required,
)

TITLE = "Kubeflow OptimizationJob"
KIND = "OptimizationJob"
GROUP = "trainer.kubeflow.org/"

_ALGORITHMS = {"random": "Random", "grid": "Grid", "bayesianOptimization": "GP"}
_DISTRIBUTIONS = ("uniform", "logUniform", "categorical")
_TYPES = ("Float", "Int")
_DEFAULT_METRIC = "loss"
_COUNTS = {"numTrials": ("max_trials", 1), "parallelTrials": ("parallelism", 1)}
_DEFAULTS = {"parallelism": 1, "algorithm": "Random"}
_LEFT = {
    "trainJobTemplate": "Crossfold's trainer runs; spec.template says how its pods look",
    "suspend": "spec.suspend of the Tune is false",
}


def recognised(document: Located) -> bool:
    """Whether this is an OptimizationJob."""
    return is_kind(document, KIND)


def read(document: Located, reading: Reading) -> Search:
    """Read an OptimizationJob."""
    parts = {"objectives": ("metric", _metric), "searchAlgorithm": ("algorithm", _algorithm)}
    form = kubeflow.Form("an OptimizationJob", _check_version, _entry, _COUNTS, parts, _LEFT, _DEFAULTS)
    search = kubeflow.read(document, reading, form)
    if search.max_trials is None and "max_trials" not in reading.replaced:
        reading.note(document, "there is no numTrials, which means 1 trial: --max-trials N asks for more")
        return replace(search, max_trials=1)
    return search


def _check_version(version: Located) -> None:
    if not str(version.content).startswith(GROUP):
        raise version.error(f"apiVersion must begin with {GROUP}, not be {version.plain!r}")


def _metric(item: Located, reading: Reading) -> Mapping[str, Any]:
    objectives = item.items("objectives")
    if len(objectives) > 1:
        raise objectives[1].error("several objectives: a Tune has one score; keep the first, or name them by --metric")
    given = objectives[0].mapping("an objective")
    for key, value in given.items():
        if key not in ("metric", "direction"):
            raise value.error(f"an objective has '{key}', which is not understood here")
    name = given["metric"].text("metric") if "metric" in given else _DEFAULT_METRIC
    written = given.get("direction", Located("minimize", objectives[0].line))
    direction = Located(str(written.content).lower(), written.line)
    return {"metric": metric_of(name, direction, "direction", None, reading, line=objectives[0].line)}


def _algorithm(item: Located, reading: Reading) -> Mapping[str, Any]:
    given = item.mapping("searchAlgorithm")
    only(item, given, tuple(_ALGORITHMS), "searchAlgorithm")
    if len(given) > 1:
        raise item.error("searchAlgorithm names several: keep one")
    name, settings = next(iter(given.items()))
    seed = None
    for key, value in settings.content.items() if isinstance(settings.content, dict) else ():
        if key != "seed":
            raise value.error(f"searchAlgorithm.{name} has '{key}', which is not understood here")
        with reading.part("seed"):
            seed = value.count("seed", least=0)
    if _ALGORITHMS[name] == "GP":
        reading.note(item, f"searchAlgorithm {name} is GP here: {GAUSSIAN_PROCESS}")
    return {"algorithm": _ALGORITHMS[name], "seed": seed}


def _entry(item: Located, reading: Reading) -> Entry:
    given = item.mapping("a parameter")
    name = required(item, given, "name", "a parameter").text("name")
    return reading.entry(name, item.line, partial(_space, name, item, given), texts=True)


def _space(name: str, item: Located, given: Mapping[str, Located]) -> Mapping[str, Any]:
    only(item, given, ("name", "searchSpace"), f"'{name}'")
    space = required(item, given, "searchSpace", f"'{name}'")
    kinds = space.mapping(f"searchSpace of '{name}'")
    only(space, kinds, _DISTRIBUTIONS, f"searchSpace of '{name}'")
    if len(kinds) > 1:
        raise space.error(f"searchSpace of '{name}' has {' and '.join(kinds)}: keep one")
    kind, says = next(iter(kinds.items()))
    return _says(name, kind, says)


def _says(name: str, kind: str, item: Located) -> Mapping[str, Any]:
    what = f"{kind} of '{name}'"
    given = item.mapping(what)
    if kind == "categorical":
        only(item, given, ("choices",), what)
        return choices(required(item, given, "choices", what), f"choices of '{name}'")
    only(item, given, ("min", "max", "type"), what)
    low, high = (required(item, given, end, what).number(end, texts=True) for end in ("min", "max"))
    # Without a type it is a decimal number, also between whole bounds.
    type_ = given["type"].text("type") if "type" in given else "Float"
    if type_ not in _TYPES:
        raise given["type"].error(f"type of '{name}' must be {' or '.join(_TYPES)}, not '{type_}'")
    return interval(item, type_, (low, high), scale="Log" if kind == "logUniform" else "")
