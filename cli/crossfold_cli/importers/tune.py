"""From what a source says to a Tune that admission accepts."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from crossfold_cli.importers.located import SourceError
from crossfold_cli.importers.objective import metric_of, target_of
from crossfold_cli.importers.placeholders import ARTIFACTS, DATA, METRIC, PLACEHOLDER
from crossfold_cli.importers.shape import Entry, Search
from crossfold_cli.manifest import absolute_uris, is_relative
from crossfold_cli.yamljson import as_written
from crossfold_operator import problems
from crossfold_operator.api.parameters import ParameterSpec
from crossfold_operator.api.tune import TuneSpec
from crossfold_operator.cluster.admission import admit
from crossfold_operator.search.space import space_of
from crossfold_trainer.contract import hyperparameters as hp

Obj = dict[str, Any]

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
_OPTIONS = {
    "metadata.name": "--name NAME",
    "spec.algorithm.seed": "--seed N",
    "spec.artifacts": "--artifacts URI",
    "spec.data": "--data URI",
    "spec.maxTrials": "--max-trials N",
    "spec.objective": "--metric NAME",
}
"""Options that take the place of what is wrong, by its path in the Tune."""
_HYPERPARAMETER = re.compile(r"spec\.(parameters|fixed)\[(\d+)\]")
_STAND_IN = {"name": "x-stand-in", "type": "Int", "min": 0, "max": 1, "step": 1}
"""A parameter that every algorithm takes, for judging all else where no other is left."""


@dataclass(frozen=True)
class Options:
    """What a person adds to a source.

    Attributes:
        name: of the Tune.
        data: URI of the data set.
        artifacts: URI of the artifacts.
        metric: to be optimised, instead of the source's.
        max_trials: trials to ask for, instead of the source's number.
        seed: of the search, instead of the source's.
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
    seed: int | None = None

    @cached_property
    def dropped(self) -> frozenset[str]:
        """Canonical names of what is left out."""
        return frozenset(map(hp.canonical_name, self.drop))

    @property
    def replaced(self) -> frozenset[str]:
        """Fields of a Search that an option takes the place of."""
        given = {"metric": bool(self.metric), "max_trials": self.max_trials is not None, "seed": self.seed is not None}
        return frozenset(name for name, is_given in given.items() if is_given)


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
        lines: what is wrong, one line each and each once, in the source's order.
    """

    def __init__(self, found: Sequence[SourceError]) -> None:
        ordered = sorted(found, key=lambda error: (not error.line, error.line))
        self.lines = tuple(dict.fromkeys(map(str, ordered)))
        super().__init__("; ".join(self.lines))


@dataclass(frozen=True)
class _Space:
    """The hyperparameters of a Tune, each with its entry in the source."""

    parameters: tuple[tuple[Entry, Obj], ...]
    fixed: tuple[tuple[Entry, Obj], ...]

    def without(self, entries: Sequence[Entry]) -> "_Space":
        """The space without some entries."""
        names = {entry.name for entry in entries}
        kept = [tuple(pair for pair in pairs if pair[0].name not in names) for pairs in (self.parameters, self.fixed)]
        return _Space(*kept)

    def put_into(self, spec: Obj) -> Obj:
        """A spec with these hyperparameters."""
        parameters = [item for _, item in self.parameters] or [_STAND_IN]
        return {**spec, "parameters": parameters, "fixed": [item for _, item in self.fixed]}


def tune_of(search: Search, options: Options, stem: str, unread: Sequence[SourceError] = ()) -> Imported:
    """The Tune that samples what a source does.

    Args:
        search: what the source says.
        options: what a person adds.
        stem: the source's file name, for want of any other name.
        unread: what is wrong with what the source says, and is therefore not in ``search``.

    Raises:
        Refused: there is no such Tune; every reason is named, those of ``unread`` included.
    """
    notes: list[str] = []
    comments: dict[str, str] = {}
    found = list(unread)
    algorithm = search.algorithm or "TPE"
    if not search.algorithm:
        comments["spec.algorithm"] = "not in the source"
    space = _space(_named(search, options, notes, found), algorithm, notes, found)
    if not space.parameters and not found:
        found.append(SourceError(0, "there is nothing to search: every hyperparameter is a constant"))
    max_trials = search.max_trials if options.max_trials is None else options.max_trials
    seed = search.seed if options.seed is None else options.seed
    given: Obj = {
        "objective": {"metrics": [metric_of(search.metric, options.metric, comments, notes, found)]},
        "parameters": [],
        "fixed": [],
        "algorithm": {
            "name": algorithm,
            **({} if seed is None else {"seed": seed}),
            **({"settings": dict(search.settings)} if search.settings else {}),
        },
        "target": target_of(search.metric, options.metric, comments, notes),
        # As many as there may be, until the size of a grid is known; failed ones are at most as many.
        "maxTrials": _MOST_TRIALS if max_trials is None else max_trials,
        "maxFailedTrials": None if search.max_failed_trials is None else 0,
        "parallelism": _parallelism(search, comments),
        "crossValidation": {"folds": 5, "seeds": [42]},
        "data": {"uri": options.data or DATA},
        "artifacts": {"uri": options.artifacts or ARTIFACTS},
    }
    comments["spec.crossValidation"] = "not in the source: every trial is trained once per fold and seed"
    for side, uri in (("data", options.data), ("artifacts", options.artifacts)):
        if not uri:
            comments[f"spec.{side}"] = f"{PLACEHOLDER}: --{side} URI"
        elif is_relative(uri):
            comments[f"spec.{side}"] = "a relative path: crossfold run takes it, a cluster does not"
    spec = {name: value for name, value in given.items() if value is not None}
    tune = {
        "apiVersion": "crossfold.dev/v1alpha1",
        "kind": "Tune",
        "metadata": {"name": options.name or _name(search.name or stem)},
        "spec": spec,
    }
    found += _problems(tune, space)
    if found:
        raise Refused(found)
    spec = space.put_into(spec)
    if max_trials is None:
        spec["maxTrials"] = _trials(algorithm, spec["parameters"], comments)
    if search.max_failed_trials is not None:
        spec["maxFailedTrials"] = min(search.max_failed_trials, spec["maxTrials"])
        if search.max_failed_trials > spec["maxTrials"]:
            notes.append(f"maxFailedTrials is {spec['maxTrials']}, not {search.max_failed_trials}: more are not asked")
    return Imported({**tune, "spec": {name: value for name, value in spec.items() if value != []}}, comments, notes)


# Names ------------------------------------------------------------------------------------------------------------


def _named(search: Search, options: Options, notes: list[str], found: list[SourceError]) -> list[Entry]:
    """The entries that can be read, under the names of hyperparameters."""
    seen: dict[str, Entry] = {}
    out = []
    given = {hp.canonical_name(entry.name) for entry in search.entries}
    found += [
        SourceError(
            0, f"--rename or --drop names '{name}', which the source does not have: it has {', '.join(sorted(given))}"
        )
        for name in (*options.rename, *options.drop)
        if hp.canonical_name(name) not in given
    ]
    rename = {hp.canonical_name(name): target for name, target in options.rename.items()}
    for entry in search.entries:
        if hp.canonical_name(entry.name) in options.dropped:
            notes.append(f"line {entry.line}: '{entry.name}' is not carried over: dropped, as asked for")
            continue
        name = hp.canonical_name(rename.get(hp.canonical_name(entry.name), entry.name))
        if hp.name_problem(name):
            found.append(SourceError(entry.line, _unknown(entry.name, name)))
        elif name in seen:
            text = f"'{name}' is there twice (line {seen[name].line}; '-' equals '_'): remove one"
            found.append(SourceError(entry.line, text))
        elif entry.says:
            out.append(replace(entry, name=name))
        seen.setdefault(name, entry)
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


def _space(entries: Sequence[Entry], algorithm: str, notes: list[str], found: list[SourceError]) -> _Space:
    """The entries in a Tune's words."""
    parameters, fixed = [], []
    for entry in entries:
        if "value" in entry.says:
            fixed.append((entry, {"name": entry.name, "value": _value(entry, entry.says["value"], notes)}))
            continue
        parameter = _parameter(entry, algorithm, notes)
        if algorithm == "Grid" and parameter["type"] == "Float" and "step" not in parameter:
            found.append(SourceError(entry.line, f"'{entry.name}': Grid needs a step or a list of values"))
            parameter["step"] = parameter["max"] - parameter["min"]  # so that the rest of it is judged
        parameters.append((entry, parameter))
    return _Space(tuple(parameters), tuple(fixed))


def _parameter(entry: Entry, algorithm: str, notes: list[str]) -> Obj:
    says = dict(entry.says)
    if "values" in says:
        says["values"] = [_value(entry, value, notes) for value in says["values"]]
    if algorithm == "Grid" and says["type"] == "Int" and "scale" not in says:
        # Other tools' grids take every integer of a range; a Tune wants that said.
        says.setdefault("step", 1)
    return {"name": entry.name, **says}


def _value(entry: Entry, value: Any, notes: list[str]) -> Any:
    """A choice as its hyperparameter wants it: "16" is 16 where numbers are texts, "None" is null where that is one."""
    known = hp.HYPERPARAMETERS.get(entry.name)
    if known is None or not isinstance(value, str):
        return value
    if hp.is_null_word(value) and known.check(None):
        notes.append(f"line {entry.line}: '{entry.name}': the text {value!r} is read as null")
        return None
    if entry.texts and known.number is not None:
        try:
            return as_written(value.strip())
        except ValueError:
            return value
    return value


def _trials(algorithm: str, parameters: Sequence[Obj], comments: dict[str, str]) -> int:
    """How many trials to ask for where nobody says it."""
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


def _problems(tune: Obj, space: _Space) -> list[SourceError]:
    """What admission and the operator would say, with the source's lines.

    Each of their steps says nothing of an object that the step before refuses. So what is refused is taken out, and the
    rest is judged again: all of it is heard at once.
    """
    found: dict[str, SourceError] = {}
    spec, metadata = tune["spec"], tune["metadata"]
    while True:
        judged = {**tune, "metadata": metadata, "spec": space.put_into(spec)}
        admitted, wrong = admit(absolute_uris(judged, Path.cwd()))
        # Places shift when something is taken out: what was heard is told by the source's lines.
        new = [text for text in wrong if str(_located(text, space)) not in found]
        found |= _keyed(new, space)
        metadata = {"name": "a"} if any(text.startswith("metadata") for text in new) else metadata
        lesser = _without(spec, new)
        flagged = [entry for text in new if (entry := _entry_of(text, space)) is not None]
        if lesser == spec and not flagged:
            break
        spec, space = lesser, space.without(flagged)
    try:
        wrong = problems.of_spec(TuneSpec.model_validate(admitted["spec"]))
    except ValidationError as error:
        wrong = [] if found else problems.of_error(error)
    return list((found | _keyed(wrong, space)).values())


def _keyed(texts: Sequence[str], space: _Space) -> dict[str, SourceError]:
    return {str(error): error for error in (_located(text, space) for text in texts)}


def _without(spec: Obj, refused: Sequence[str]) -> Obj:
    """A spec with something acceptable in the place of refused fields, hyperparameters apart."""
    instead: Obj = {
        "objective": {"metrics": [{"name": METRIC}]},
        "algorithm": {"name": spec["algorithm"]["name"]},
        "data": {"uri": DATA},
        "artifacts": {"uri": ARTIFACTS},
    }
    fields = {match[1] for text in refused if (match := re.match(r"spec\.(\w+)", text))} - {"parameters", "fixed"}
    kept = {name: value for name, value in spec.items() if name not in fields}
    return kept | {name: value for name, value in instead.items() if name in fields}


def _entry_of(text: str, space: _Space) -> Entry | None:
    """The entry that a problem is one of."""
    match = _HYPERPARAMETER.match(text)
    if match is None:
        return None
    pairs = space.parameters if match[1] == "parameters" else space.fixed
    return pairs[int(match[2])][0] if int(match[2]) < len(pairs) else None


def _located(text: str, space: _Space) -> SourceError:
    entry = _entry_of(text, space)
    if entry is not None:
        return SourceError(entry.line, f"'{entry.name}': {_HYPERPARAMETER.sub('', text).lstrip('.: ')}")
    option = next((option for path, option in _OPTIONS.items() if text.startswith(path)), None)
    return SourceError(0, text if option is None else f"{text}: give another one by {option}")
