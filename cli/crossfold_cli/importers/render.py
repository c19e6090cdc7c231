"""A Tune as YAML, with remarks where a person has to look."""

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from crossfold_cli.yamljson import load_all

_PLAIN = re.compile(r"[A-Za-z][A-Za-z0-9_./:+-]*")
_ROWS = ("parameters", "fixed", "metrics")
"""Lists that have a line for every item."""
_NESTED = ("objective",)
_COLUMN = 44
"""Where remarks begin, if the line ends before."""


def manifest(tune: Mapping[str, Any], comments: Mapping[str, str], head: Sequence[str]) -> str:
    """The YAML text.

    Args:
        tune: the object.
        comments: remarks by path (``spec.data``), at the line of that field.
        head: lines of a comment at the top.
    """
    lines = [f"# {line}" for line in head]
    lines += [
        f"apiVersion: {tune['apiVersion']}",
        f"kind: {tune['kind']}",
        f"metadata: {flow(tune['metadata'])}",
        "spec:",
    ]
    for name, value in tune["spec"].items():
        lines += _field(name, value, "  ", comments.get(f"spec.{name}", ""))
    return "\n".join([*lines, ""])


def _field(name: str, value: Any, indent: str, remark: str) -> list[str]:
    if name in _NESTED:
        head = [_remarked(f"{indent}{name}:", remark)]
        return head + [line for key, item in value.items() for line in _field(key, item, f"{indent}  ", "")]
    if name in _ROWS:
        return [_remarked(f"{indent}{name}:", remark), *(f"{indent}- {flow(item)}" for item in value)]
    return [_remarked(f"{indent}{name}: {flow(value)}", remark)]


def _remarked(line: str, remark: str) -> str:
    return f"{line:<{_COLUMN}} # {remark}" if remark else line


def flow(value: Any) -> str:
    """A value on one line, as kubectl reads it back."""
    match value:
        case dict():
            return f"{{{', '.join(f'{flow(name)}: {flow(item)}' for name, item in value.items())}}}"
        case list():
            return f"[{', '.join(map(flow, value))}]"
        case str():
            return value if _PLAIN.fullmatch(value) and load_all(value) == [value] else json.dumps(value)
        case _:
            return json.dumps(value, allow_nan=False)
