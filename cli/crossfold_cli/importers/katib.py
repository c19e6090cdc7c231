"""A Katib Experiment (kubeflow.org/v1beta1). All its numbers are texts."""

from collections.abc import Mapping
from typing import Any

from crossfold_cli.importers import kubeflow
from crossfold_cli.importers.located import Located
from crossfold_cli.importers.shape import (
    Entry,
    Metric,
    Reading,
    Search,
    choices,
    interval,
    is_kind,
    only,
    required,
)

TITLE = "Katib Experiment"
KIND = "Experiment"
API_VERSION = "kubeflow.org/v1beta1"

_ALGORITHMS = {
    "random": "Random",
    "grid": "Grid",
    "tpe": "TPE",
    "multivariate-tpe": "TPE",
    "cmaes": "CMAES",
    "sobol": "Sobol",
}
_SEED = "random_state"
_SETTINGS = {
    "n_startup_trials": "startupTrials",
    "n_ei_candidates": "candidates",
    "n_EI_candidates": "candidates",
}
"""Settings of TPE that a Tune has too."""
_TYPES = ("double", "int", "discrete", "categorical")
_SCALES = {"": "", "unknown": "", "uniform": "", "logUniform": "Log"}
_LEFT = {
    "trialTemplate": "Crossfold's trainer runs; spec.template says how its pods look",
    "metricsCollectorSpec": "Crossfold's trainer reports its metrics itself",
    "resumePolicy": "a Tune goes on whenever spec.maxTrials is raised",
    "earlyStopping": "a Tune's racing prunes across folds and seeds; spec.pruning looks into runs",
}
_COUNTS = {
    "maxTrialCount": ("max_trials", 1),
    "parallelTrialCount": ("parallelism", 1),
    "maxFailedTrialCount": ("max_failed_trials", 0),
}
_DEFAULTS = {"parallelism": 3}


def recognised(document: Located) -> bool:
    """Whether this is an Experiment."""
    return is_kind(document, KIND)


def read(document: Located, reading: Reading) -> Search:
    """Read an Experiment."""
    parts = {"objective": _metric, "algorithm": _algorithm, "nasConfig": _architectures}
    form = kubeflow.Form("an Experiment", _check_version, _entry, _COUNTS, parts, _LEFT, _DEFAULTS)
    return kubeflow.read(document, reading, form)


def _check_version(version: Located) -> None:
    if version.content != API_VERSION:
        raise version.error(f"apiVersion must be {API_VERSION}, not {version.plain!r}")


def _architectures(item: Located, _: Reading) -> Mapping[str, Any]:
    raise item.error("nasConfig searches for an architecture: list the candidates as model_arch instead")


def _metric(item: Located, reading: Reading) -> Mapping[str, Any]:
    given = item.mapping("objective")
    for key, value in given.items():
        match key:
            case "type" | "objectiveMetricName" | "goal":
                pass
            case "additionalMetricNames":
                reading.left(value, "objective.additionalMetricNames", "the trainer records all its metrics anyway")
            case "metricStrategies":
                reading.left(value, "objective.metricStrategies", "a run's score is that of the checkpoint it keeps")
            case _:
                raise value.error(f"objective has '{key}', which is not understood here")
    goal = required(item, given, "type", "objective")
    if goal.content not in ("minimize", "maximize"):
        raise goal.error(f"objective.type must be minimize or maximize, not {goal.plain!r}")
    name = required(item, given, "objectiveMetricName", "objective")
    target = given["goal"].number("objective.goal") if "goal" in given else None
    text = name.text("objectiveMetricName")
    return {"metric": Metric(text, maximize=goal.content == "maximize", line=name.line, target=target)}


def _algorithm(item: Located, reading: Reading) -> Mapping[str, Any]:
    given = item.mapping("algorithm")
    only(item, given, ("algorithmName", "algorithmSettings"), "algorithm")
    name = required(item, given, "algorithmName", "algorithm")
    if name.content not in _ALGORITHMS:
        raise name.error(f"algorithm {name.plain!r} has no counterpart: use {', '.join(_ALGORITHMS)}")
    algorithm, seed = _ALGORITHMS[str(name.content)], None
    found: dict[str, float] = {}
    settings = given.get("algorithmSettings")
    for setting in settings.items("algorithmSettings") if settings and settings.content else ():
        pair = setting.mapping("an algorithm setting")
        which = required(setting, pair, "name", "an algorithm setting").text("name")
        if which == _SEED:
            seed = _whole(required(setting, pair, "value", which), which)
        elif which in _SETTINGS and algorithm == "TPE":
            found[_SETTINGS[which]] = _whole(required(setting, pair, "value", which), which)
        else:
            reading.left(setting, f"algorithm setting '{which}'", "it has no counterpart")
    return {"algorithm": algorithm, "seed": seed, "settings": found}


def _whole(item: Located, what: str) -> int:
    value = item.number(what, texts=True)
    if not isinstance(value, int) or value < 0:
        raise item.error(f"{what} must be a whole number of at least 0, not {item.plain!r}")
    return value


def _entry(item: Located) -> Entry:
    given = item.mapping("a parameter")
    name = required(item, given, "name", "a parameter").text("name")
    only(item, given, ("name", "parameterType", "feasibleSpace"), f"'{name}'")
    kind = required(item, given, "parameterType", f"'{name}'")
    space = required(item, given, "feasibleSpace", f"'{name}'")
    return Entry(name.lstrip("-"), item.line, _says(name, kind, space), texts=kind.content == "categorical")


def _says(name: str, kind: Located, space: Located) -> Mapping[str, Any]:
    given = space.mapping(f"feasibleSpace of '{name}'")
    match kind.content:
        case "double" | "int":
            what = f"'{name}' of type {kind.content}"
            only(space, given, ("min", "max", "step", "distribution"), what)
            low, high = (required(space, given, end, what).number(end, texts=True) for end in ("min", "max"))
            step = given["step"].number("step", texts=True) if "step" in given else None
            distribution = str(given["distribution"].plain) if "distribution" in given else ""
            if distribution not in _SCALES:
                raise given["distribution"].error(
                    f"'{name}' has the distribution '{distribution}', which has no counterpart:"
                    " use uniform or logUniform"
                )
            type_ = "Float" if kind.content == "double" else "Int"
            return interval(space, type_, (low, high), scale=_SCALES[distribution], step=step)
        case "discrete" | "categorical":
            what = f"'{name}' of type {kind.content}"
            only(space, given, ("list",), what)
            values = required(space, given, "list", what)
            if kind.content == "categorical":
                return choices(values, f"list of '{name}'")
            items = values.items(f"list of '{name}'")
            return {
                "type": "Categorical",
                "values": [value.number(f"a discrete value of '{name}'", texts=True) for value in items],
            }
        case _:
            raise kind.error(f"'{name}' has the parameterType {kind.plain!r}: use {', '.join(_TYPES)}")
