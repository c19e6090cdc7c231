"""From files, overlays and --set to the one object that is to be run."""

import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from crossfold_cli.errors import UsageError
from crossfold_cli.yamljson import load_all
from crossfold_operator.names import OWN_KINDS

Obj = dict[str, Any]

_URIS = {"data": "uri", "artifacts": "uri", "trainer": "weightsFromCheckpoint"}
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")
_STEP = re.compile(r"\[(\d+)\]|((?:[^.\[\\]|\\.)+)")


def load(file: str, overlays: Sequence[str], settings: Sequence[str]) -> Obj:
    """The object of a file, with overlays and then settings merged over it, left to right.

    Raises:
        UsageError: a file cannot be read, holds no or several objects of ours, or a setting has no place.
    """
    obj = _the_object(file, _documents(file))
    for overlay in overlays:
        for document in _documents(overlay):
            if document.get("kind", obj["kind"]) == obj["kind"]:
                obj = merge(obj, document)
    return apply_settings(obj, settings)


def merge(base: Any, over: Any) -> Any:
    """Objects merge recursively, everything else replaces."""
    if isinstance(base, Mapping) and isinstance(over, Mapping):
        return {**base, **{name: merge(base.get(name), value) for name, value in over.items()}}
    return over


def apply_settings(obj: Obj, settings: Sequence[str]) -> Obj:
    """Set ``path=value`` pairs: values are YAML, objects merge as files do.

    Raises:
        UsageError: a setting is no pair, or its path leads nowhere.
    """
    for setting in settings:
        path, sign, text = setting.partition("=")
        if not sign:
            raise UsageError(f"--set {setting} has no value: write it as path=value, such as spec.maxTrials=4")
        steps = _steps(path)
        if not steps:
            raise UsageError(f"--set {setting} has no path that can be read: write spec.maxTrials=4, or a.b[0].c=1")
        try:
            documents = load_all(text)
        except ValueError as error:
            raise UsageError(f"--set {setting} has a value that is no YAML", [str(error)]) from error
        obj = _set(obj, steps, documents[0] if documents else None, setting)
    return obj


def is_relative(uri: str) -> bool:
    """Whether a URI is a path that depends on the folder, or on the user, of whoever reads it."""
    return not _SCHEME.match(uri) and not uri.startswith("/")


def absolute_uris(obj: Obj, folder: Path) -> Obj:
    """The object with its relative paths counted from a folder: trainers may run elsewhere."""
    spec = obj.get("spec")
    if not isinstance(spec, Mapping):
        return obj
    changed = {}
    for part, field in _URIS.items():
        place = spec.get(part)
        uri = place.get(field) if isinstance(place, Mapping) else None
        if isinstance(uri, str) and uri and is_relative(uri):
            changed[part] = {**(place or {}), field: str((folder / Path(uri).expanduser()).resolve())}
    return {**obj, "spec": {**spec, **changed}}


def _documents(file: str) -> list[Obj]:
    try:
        text = sys.stdin.read() if file == "-" else Path(file).read_text(encoding="utf-8")
        documents = load_all(text)
    except OSError as error:
        raise UsageError(f"{file} cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise UsageError(f"{file} is no YAML", [str(error)]) from error
    for document in documents:
        if not isinstance(document, dict):
            raise UsageError(f"{file} holds a {type(document).__name__} where an object is expected")
    return documents


def _the_object(file: str, documents: Sequence[Obj]) -> Obj:
    ours = [document for document in documents if document.get("kind") in list(OWN_KINDS)]
    kinds = ", ".join(OWN_KINDS)
    if not ours:
        found = ", ".join(str(document.get("kind", "no kind")) for document in documents) or "nothing"
        raise UsageError(f"{file} holds none of {kinds} (but {found})")
    if len(ours) > 1:
        names = [f"{obj['kind']} {(obj.get('metadata') or {}).get('name', '')}" for obj in ours]
        raise UsageError(f"{file} holds {len(ours)} objects to run: split it, and run one at a time", names)
    return ours[0]


def _steps(path: str) -> list[str | int]:
    """``a.b[0].c`` as its steps; a backslash keeps a dot inside a step. Empty for anything else."""
    steps: list[str | int] = []
    position = 0
    while position < len(path):
        if steps and path[position] == ".":
            position += 1
        match = _STEP.match(path, position)
        if match is None or (match[1] is None and position and path[position - 1] not in ".]"):
            return []
        steps.append(int(match[1]) if match[1] is not None else re.sub(r"\\(.)", r"\1", match[2]))
        position = match.end()
    return steps if path[-1:] != "." else []


def _set(target: Any, steps: Sequence[str | int], value: Any, setting: str) -> Any:
    if not steps:
        return merge(target, value)
    step, rest = steps[0], steps[1:]
    if isinstance(step, int):
        if not isinstance(target, list) or step >= len(target):
            count = f"{len(target)} items" if isinstance(target, list) else "no list"
            raise UsageError(f"--set {setting}: there is {count} at [{step}]")
        return [*target[:step], _set(target[step], rest, value, setting), *target[step + 1 :]]
    if target is not None and not isinstance(target, Mapping):
        raise UsageError(f"--set {setting}: there is no object to put '{step}' into; count list items as [0]")
    target = target or {}
    return {**target, step: _set(target.get(step), rest, value, setting)}
