"""Where the objects of a Tune are: on a cluster, or in the folder of a local run."""

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from crossfold_cli.errors import UsageError
from crossfold_operator.names import LABEL_TUNE, OWN_KINDS, PLURALS, Kind

Obj = dict[str, Any]

_WORDS: Mapping[str, Kind] = {
    word: kind
    for kind, words in {
        Kind.TUNE: ("tn",),
        Kind.CROSS_VALIDATION: ("cv",),
        Kind.TRAIN_RUN: ("tr",),
    }.items()
    for word in (kind.lower(), PLURALS[kind], *words)
}


@dataclass(frozen=True)
class Objects:
    """A Tune and all below it."""

    tune: Obj
    cross_validations: list[Obj]
    train_runs: list[Obj]
    sources: list[Obj] = field(default_factory=list)
    """The Tunes of its spec.warmStart, and their trials."""


def name_of(target: str) -> str:
    """The name of the Tune that is meant: ``tune/NAME``, or ``NAME``.

    Raises:
        UsageError: it is something else.
    """
    kind, sign, name = target.rpartition("/")
    known = _WORDS.get(kind.lower().partition(".")[0])
    if sign and known is None:
        raise UsageError(f"'{target}' names no kind that is known: write tune/{name or 'NAME'}")
    if known not in (None, Kind.TUNE):
        raise UsageError(
            f"'{target}' is a {known}, and only a Tune has a story: write tune/NAME, and --trial N for one"
            " of its trials"
        )
    if not name:
        raise UsageError(f"'{target}' has no name: write tune/NAME")
    return name


def from_cluster(name: str, kubectl: Callable[..., str]) -> Objects:
    """The objects as kubectl shows them.

    Raises:
        UsageError: there is no such Tune, or kubectl cannot ask.
    """
    tunes = json.loads(kubectl("get", "tunes", "-o", "json"))["items"]
    tune = _one(name, tunes, "in this namespace")
    below = kubectl("get", "crossvalidations,trainruns", "-l", f"{LABEL_TUNE}={name}", "-o", "json")
    found = _objects(tune, json.loads(below)["items"])
    wanted = {item["name"] for item in tune["spec"].get("warmStart", ())}
    if not wanted:
        return found
    trials = kubectl("get", "crossvalidations", "-l", f"{LABEL_TUNE} in ({','.join(sorted(wanted))})", "-o", "json")
    sources = [obj for obj in tunes if obj["metadata"]["name"] in wanted]
    return replace(found, sources=[*sources, *json.loads(trials)["items"]])


def from_folder(name: str, base: Path) -> Objects:
    """The objects of a local run below ``base``, read without touching them.

    Raises:
        UsageError: there is no such Tune, or a file cannot be read.
    """
    found = [obj for folder in sorted(base.glob("tune-*")) for obj in _read(folder / "objects" / PLURALS[Kind.TUNE])]
    tune = _one(name, found, f"below {base}")
    folder = base / f"tune-{name}" / "objects"
    kinds = (Kind.CROSS_VALIDATION, Kind.TRAIN_RUN)
    return _objects(tune, [obj for kind in kinds for obj in _read(folder / PLURALS[kind])])


def is_local(name: str, base: Path) -> bool:
    """Whether a Tune was run in a folder below ``base``."""
    return (base / f"tune-{name}" / "objects").is_dir()


def _read(folder: Path) -> Iterable[Obj]:
    for path in sorted(folder.glob("*/*.json")):
        try:
            obj = json.loads(path.read_bytes())
        except FileNotFoundError:
            continue  # it was removed while we read
        except (OSError, ValueError) as error:
            raise UsageError(f"{path} holds no object: {error}") from error
        if isinstance(obj, dict) and obj.get("kind") in list(OWN_KINDS):
            yield obj


def _one(name: str, tunes: Iterable[Obj], where: str) -> Obj:
    by_name = {tune["metadata"]["name"]: tune for tune in tunes}
    if name not in by_name:
        known = f"there are {', '.join(sorted(by_name))}" if by_name else "there is none"
        raise UsageError(f"there is no Tune '{name}' {where}: {known}")
    return by_name[name]


def _objects(tune: Obj, below: Iterable[Obj]) -> Objects:
    """What belongs to this very Tune: an earlier one of its name may still be going away."""
    below = list(below)
    trials = [obj for obj in below if obj["kind"] == Kind.CROSS_VALIDATION and _owner(obj) == tune["metadata"]["uid"]]
    uids = {trial["metadata"]["uid"] for trial in trials}
    runs = [obj for obj in below if obj["kind"] == Kind.TRAIN_RUN and _owner(obj) in uids]
    return Objects(tune, trials, runs)


def _owner(obj: Obj) -> str:
    owners = obj["metadata"].get("ownerReferences", ())
    return next((str(owner["uid"]) for owner in owners if owner.get("controller")), "")
