"""From what a source says to a Tune that admission accepts."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pydantic import ValidationError

from crossfold_cli.importers.located import SourceError
from crossfold_cli.importers.shape import Entry, Metric, Search
from crossfold_cli.yamljson import as_written
from crossfold_operator import problems
from crossfold_operator.api.parameters import ParameterSpec
from crossfold_operator.api.tune import TuneSpec
from crossfold_operator.cluster.admission import admit
from crossfold_operator.search.space import space_of
from crossfold_trainer.contract import hyperparameters as hp
from crossfold_trainer.contract.metrics import METRICS, Direction, metric_info

Obj = dict[str, Any]

PLACEHOLDER = "PLACEHOLDER"
DATA = "s3://BUCKET/DATA"
ARTIFACTS = "s3://BUCKET/ARTIFACTS"
METRIC = "val/JaccardIndex"

_LONGEST_NAME = 40
_MOST_TRIALS = 10_000
_DEFAULT_TRIALS = 20
_SUGGESTED = {
    "lr": "learning_rate",
    "learningrate": "learning_rate",
    "batchsize": "batch_size",
    "bs": "batch_size",
    "arch": "model_arch",
    "architecture": "model_arch",
    "model": "model_arch",
    "encoder": "model_encoder",
    "backbone": "model_encoder",
    "weights": "model_encoder_weights",
    "augmentation": "augment",
    "augmentations": "augment",
    "channels": "bands",
}
"""What common names most likely mean: said in an error, never assumed."""
_SETTINGS = {
    "epochs": "spec.trainer.maxEpochs",
    "maxepochs": "spec.trainer.maxEpochs",
    "numepochs": "spec.trainer.maxEpochs",
    "seed": "spec.crossValidation.seeds",
    "patience": "spec.trainer.earlyStoppingPatience",
}
_VALIDATION = ("validation", "valid", "val")


@dataclass(frozen=True)
class Options:
    """What a person adds to a source.

    Attributes:
        name: of the Tune.
        data: URI of the data set.
        artifacts: URI of the artifacts.
        metric: to be optimised, instead of the source's.
        max_trials: trials to ask for, instead of the source's number.
        rename: the source's names to those of hyperparameters.
        drop: names of the source that are left out.
    """

    name: str = ""
    data: str = ""
    artifacts: str = ""
    metric: str = ""
    max_trials: int | None = None
    rename: Mapping[str, str] = field(default_factory=dict)
    drop: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Imported:
    """A Tune, and what a person must know of it.

    Attributes:
        tune: the manifest.
        comments: remarks by path (``spec.data``): what the source did not say.
        notes: how the source was read, and what was left behind.
    """

    tune: Obj
    comments: Mapping[str, str]
    notes: Sequence[str]


class Refused(Exception):
    """A source that no Tune can be made of.

    Attributes:
        problems: what is wrong, one line each.
    """

    def __init__(self, found: Sequence[str]) -> None:
        super().__init__("; ".join(found))
        self.problems = tuple(found)


def tune_of(search: Search, options: Options, stem: str) -> Imported:
    """The Tune that samples what a source does.

    Args:
        search: what the source says.
        options: what a person adds.
        stem: the source's file name, for want of any other name.

    Raises:
        Refused: there is no such Tune; every reason is named.
    """
    notes: list[str] = []
    comments: dict[str, str] = {}
    entries = _named(search, options, notes)
    algorithm = search.algorithm or "TPE"
    if not search.algorithm:
        comments["spec.algorithm"] = "not in the source"
    parameters = [(entry, _parameter(entry, algorithm)) for entry in entries if "value" not in entry.says]
    if not parameters:
        raise Refused(["there is nothing to search: every hyperparameter is a constant"])
    found = [
        str(SourceError(entry.line, f"'{entry.name}': Grid needs a step or a list of values"))
        for entry, parameter in parameters
        if algorithm == "Grid" and parameter["type"] == "Float" and "step" not in parameter
    ]
    if found:
        raise Refused(found)
    spec: Obj = {
        "objective": {"metrics": [_metric(search.metric, options, comments, notes)]},
        "parameters": [parameter for _, parameter in parameters],
        "fixed": [
            {"name": entry.name, "value": _value(entry, entry.says["value"])}
            for entry in entries
            if "value" in entry.says
        ],
        "algorithm": {
            "name": algorithm,
            **({} if search.seed is None else {"seed": search.seed}),
            **({"settings": dict(search.settings)} if search.settings else {}),
        },
        "target": _target(search.metric, options, comments, notes),
        "maxTrials": _trials(search, options, algorithm, spec_parameters(parameters), comments),
        "maxFailedTrials": search.max_failed_trials,
        "parallelism": _parallelism(search, comments),
        "crossValidation": {"folds": 5, "seeds": [42]},
        "data": {"uri": options.data or DATA},
        "artifacts": {"uri": options.artifacts or ARTIFACTS},
    }
    comments["spec.crossValidation"] = "not in the source: every trial is trained once per fold and seed"
    for side, given in (("data", options.data), ("artifacts", options.artifacts)):
        if not given:
            comments[f"spec.{side}"] = f"{PLACEHOLDER}: --{side} URI"
    tune = {
        "apiVersion": "crossfold.dev/v1alpha1",
        "kind": "Tune",
        "metadata": {"name": options.name or _name(search.name or stem)},
        "spec": {name: value for name, value in spec.items() if value not in (None, [])},
    }
    if found := _problems(
        tune, [entry for entry, _ in parameters], [entry for entry in entries if "value" in entry.says]
    ):
        raise Refused(found)
    return Imported(tune, comments, notes)


def spec_parameters(parameters: Sequence[tuple[Entry, Obj]]) -> list[Obj]:
    """The parameters without their entries."""
    return [parameter for _, parameter in parameters]


# Names ------------------------------------------------------------------------------------------------------------


def _named(search: Search, options: Options, notes: list[str]) -> list[Entry]:
    """The entries under the names of hyperparameters."""
    seen: dict[str, Entry] = {}
    out = []
    given = {hp.canonical_name(entry.name) for entry in search.entries}
    found = [
        f"--rename or --drop names '{name}', which the source does not have: it has {', '.join(sorted(given))}"
        for name in (*options.rename, *options.drop)
        if hp.canonical_name(name) not in given
    ]
    rename = {hp.canonical_name(name): target for name, target in options.rename.items()}
    drop = {hp.canonical_name(name) for name in options.drop}
    for entry in search.entries:
        if hp.canonical_name(entry.name) in drop:
            notes.append(f"line {entry.line}: '{entry.name}' is not carried over: dropped, as asked for")
            continue
        name = hp.canonical_name(rename.get(hp.canonical_name(entry.name), entry.name))
        if hp.name_problem(name):
            found.append(str(SourceError(entry.line, _unknown(entry.name, name))))
        elif name in seen:
            found.append(
                str(
                    SourceError(
                        entry.line, f"'{name}' is there twice (line {seen[name].line}; '-' equals '_'): remove one"
                    )
                )
            )
        seen.setdefault(name, entry)
        out.append(Entry(name, entry.line, entry.says, entry.texts))
    if found:
        raise Refused(found)
    return out


def _unknown(given: str, name: str) -> str:
    key = re.sub(r"[^a-z0-9]", "", name.lower())
    own = f"x-{re.sub(r'[^A-Za-z0-9._-]', '-', name)}"
    ways = [f"--rename {given}={_SUGGESTED[key]}"] if key in _SUGGESTED else []
    if key in _SETTINGS:
        ways.append(f"--drop {given} and set {_SETTINGS[key]}")
    else:
        ways.append(f"--drop {given}")
    ways.append(f"--rename {given}={own} for a trainer of your own")
    known = "" if key in _SUGGESTED or key in _SETTINGS else f" (it knows {', '.join(hp.HYPERPARAMETERS)})"
    return f"Crossfold's trainer knows no hyperparameter '{name}'{known}: {', or '.join(ways)}"


def _name(text: str) -> str:
    """A text as the name of a Tune."""
    name = re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")[:_LONGEST_NAME].strip("-")
    return name or "imported"


# Values -----------------------------------------------------------------------------------------------------------


def _parameter(entry: Entry, algorithm: str) -> Obj:
    says = dict(entry.says)
    if "values" in says:
        says["values"] = [_value(entry, value) for value in says["values"]]
    if algorithm == "Grid" and says["type"] == "Int" and "scale" not in says:
        # Other tools' grids take every integer of a range; a Tune wants that said.
        says.setdefault("step", 1)
    return {"name": entry.name, **says}


def _value(entry: Entry, value: Any) -> Any:
    """A choice as its hyperparameter wants it: "16" is 16 where numbers are texts."""
    known = hp.HYPERPARAMETERS.get(entry.name)
    if entry.texts and isinstance(value, str) and known is not None and known.number is not None:
        try:
            return as_written(value.strip())
        except ValueError:
            return value
    return value


def _metric(metric: Metric | None, options: Options, comments: dict[str, str], notes: list[str]) -> Obj:
    if options.metric:
        name = options.metric
        info = metric_info(name) if name.startswith("val/") else None
        if info is None and metric is None:
            raise Refused([f"--metric {name} is not known: use one of {', '.join(f'val/{m}' for m in METRICS)}"])
        if info is None or metric is None:
            direction = None if metric is None else _direction(metric)
            return {"name": name, **({} if direction is None else {"direction": direction})}
        notes.append(
            f"line {metric.line}: {name} stands for metric '{metric.name}', in {name}'s own direction, {info.direction}"
        )
        return {"name": name}
    if metric is None:
        comments["spec.objective"] = f"{PLACEHOLDER}: --metric NAME"
        return {"name": METRIC}
    found = _known_metric(metric.name)
    if found is None:
        known = ", ".join(f"val/{name}" for name in METRICS)
        raise Refused(
            [
                str(
                    SourceError(
                        metric.line,
                        f"Crossfold's trainer knows no metric '{metric.name}': choose by --metric one of {known}",
                    )
                )
            ]
        )
    if found != metric.name:
        notes.append(f"line {metric.line}: metric '{metric.name}' is read as {found}")
    info = metric_info(found)
    if info is None or info.direction == _direction(metric):
        return {"name": found}
    comments["spec.objective"] = f"as the source says, against the metric's own direction, {info.direction}"
    notes.append(
        f"line {metric.line}: the source wants to {_direction(metric).lower()} {found}, of which"
        f" {'more' if info.direction is Direction.MAXIMIZE else 'less'} is better: is that meant?"
    )
    return {"name": found, "direction": _direction(metric)}


def _target(metric: Metric | None, options: Options, comments: dict[str, str], notes: list[str]) -> float | None:
    """The score that is good enough, where the source says it of the metric that is optimised."""
    if metric is None or metric.target is None:
        return None
    if options.metric and options.metric != _known_metric(metric.name):
        notes.append(
            f"line {metric.line}: the target {metric.target:g} is not carried over: it is one of '{metric.name}'"
        )
        return None
    comments["spec.target"] = "for the mean over folds and seeds; the source means one training"
    return metric.target


def _direction(metric: Metric) -> str:
    return str(Direction.MAXIMIZE if metric.maximize else Direction.MINIMIZE)


def _known_metric(name: str) -> str | None:
    """The validation metric that a name means, if it can mean only one."""
    words = [word for word in re.split(r"[^a-z0-9]+", name.lower()) if word]
    if words and words[0] in _VALIDATION:
        words = words[1:]
    key = "".join(words)
    return next((f"val/{known}" for known in METRICS if known.lower() == key), None)


def _trials(
    search: Search, options: Options, algorithm: str, parameters: Sequence[Obj], comments: dict[str, str]
) -> int:
    if options.max_trials is not None:
        return options.max_trials
    if search.max_trials is not None:
        return search.max_trials
    if algorithm == "Grid":
        size = space_of([ParameterSpec.model_validate(parameter) for parameter in parameters]).size
        if size is not None and size <= _MOST_TRIALS:
            comments["spec.maxTrials"] = "the whole grid"
            return size
    comments["spec.maxTrials"] = f"{PLACEHOLDER}: the source has no limit; --max-trials N"
    return _DEFAULT_TRIALS


def _parallelism(search: Search, comments: dict[str, str]) -> int:
    if search.parallelism is None:
        comments["spec.parallelism"] = "not in the source: trainings at the same time"
        return 1
    comments["spec.parallelism"] = "trainings at the same time; the source counts trials, of one training each"
    return search.parallelism


# Admission --------------------------------------------------------------------------------------------------------


def _problems(tune: Obj, parameters: Sequence[Entry], fixed: Sequence[Entry]) -> list[str]:
    """What admission and the operator would say, with the source's lines."""
    admitted, found = admit(tune)
    if not found:
        try:
            found = problems.of_spec(TuneSpec.model_validate(admitted["spec"]))
        except ValidationError as error:
            found = problems.of_error(error)
    return [_with_line(text, parameters, fixed) for text in found]


def _with_line(text: str, parameters: Sequence[Entry], fixed: Sequence[Entry]) -> str:
    match = re.match(r"spec\.(parameters|fixed)\[(\d+)\]", text)
    if match is None:
        return text
    entry = (parameters if match[1] == "parameters" else fixed)[int(match[2])]
    return f"line {entry.line}: '{entry.name}': {text}"
