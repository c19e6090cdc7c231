"""A Katib Experiment (kubeflow.org/v1beta1). All its numbers are texts."""

from collections.abc import Mapping
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
    "bayesianoptimization": "GP",
}
_SEED = "random_state"
_ESTIMATOR = "base_estimator"
_SETTINGS: Mapping[str, Mapping[str, str]] = {
    "TPE": {
        "n_startup_trials": "startupTrials",
        "n_ei_candidates": "candidates",
        "n_EI_candidates": "candidates",
    },
    "GP": {"n_initial_points": "startupTrials"},
}
"""Settings that a Tune has too."""
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
    parts = {
        "objective": ("metric", _metric),
        "algorithm": ("algorithm", _algorithm),
        "nasConfig": ("", _architectures),
    }
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
    name = required(item, given, "objectiveMetricName", "objective")
    text, target = name.text("objectiveMetricName"), given.get("goal")
    return {"metric": metric_of(text, goal, "objective.type", target, reading, line=name.line)}


def _algorithm(item: Located, reading: Reading) -> Mapping[str, Any]:
    given = item.mapping("algorithm")
    only(item, given, ("algorithmName", "algorithmSettings"), "algorithm")
    name = required(item, given, "algorithmName", "algorithm")
    if name.content not in _ALGORITHMS:
        raise name.error(f"algorithm {name.plain!r} has no counterpart: use {', '.join(_ALGORITHMS)}")
    algorithm, seed = _ALGORITHMS[str(name.content)], None
    if algorithm == "GP":
        reading.note(name, f"algorithm {name.content} is GP here: {GAUSSIAN_PROCESS}")
    found: dict[str, float] = {}
    settings = given.get("algorithmSettings")
    for setting in settings.items("algorithmSettings") if settings and settings.content else ():
        pair = setting.mapping("an algorithm setting")
        which = required(setting, pair, "name", "an algorithm setting").text("name")
        if which == _SEED:
            with reading.part("seed"):
                seed = _whole(required(setting, pair, "value", which), which)
        elif which in _SETTINGS.get(algorithm, ()):
            found[_SETTINGS[algorithm][which]] = _whole(required(setting, pair, "value", which), which)
        elif which == _ESTIMATOR and algorithm == "GP":
            estimator = required(setting, pair, "value", which)
            if estimator.content != "GP":
                raise estimator.error(f"{_ESTIMATOR} {estimator.plain!r} has no counterpart: use GP, or algorithm tpe")
        else:
            reading.left(setting, f"algorithm setting '{which}'", "it has no counterpart")
    return {"algorithm": algorithm, "seed": seed, "settings": found}


def _whole(item: Located, what: str) -> int:
    value = item.number(what, texts=True)
    if not isinstance(value, int) or value < 0:
        raise item.error(f"{what} must be a whole number of at least 0, not {item.plain!r}")
    return value


def _entry(item: Located, reading: Reading) -> Entry:
    given = item.mapping("a parameter")
    name = required(item, given, "name", "a parameter").text("name")
    kind = given.get("parameterType")
    texts = kind is not None and kind.content == "categorical"
    return reading.entry(name.lstrip("-"), item.line, partial(_says, name, item, given), texts=texts)


def _says(name: str, item: Located, entry: Mapping[str, Located]) -> Mapping[str, Any]:
    only(item, entry, ("name", "parameterType", "feasibleSpace"), f"'{name}'")
    kind = required(item, entry, "parameterType", f"'{name}'")
    space = required(item, entry, "feasibleSpace", f"'{name}'")
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
