"""YAML as kubectl reads it: the JSON that the API server would get.

PyYAML reads YAML 1.1 by the letter: 1e-5 is a text, 1:30 a number, 2026-01-01 a date. kubectl takes numbers from YAML
1.2, leaves dates alone and keeps the words of YAML 1.1 (yes, on, 010). A number without a fraction is an integer.
"""

import math
import re
from collections.abc import Hashable
from typing import Any

import yaml

NUMBER_TAG = "tag:crossfold.dev,2026:number"
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?\Z")
_INTEGER = re.compile(r"[-+]?(0b[01_]+|0o[0-7_]+|0x[0-9a-fA-F_]+|[0-9][0-9_]*)\Z")
_NO_NUMBER = re.compile(r"([-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN))\Z")
BOOLEANS = {
    **dict.fromkeys(("y", "Y", "yes", "Yes", "YES", "on", "On", "ON", "true", "True", "TRUE"), True),
    **dict.fromkeys(("n", "N", "no", "No", "NO", "off", "Off", "OFF", "false", "False", "FALSE"), False),
}
_LARGEST_WHOLE = 1e21
"""JSON writes greater floats with an exponent, so that they stay floats."""


class Loader(yaml.SafeLoader):
    """PyYAML's safe loader with kubectl's idea of plain words."""

    yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        """Make a mapping with the texts that JSON has for keys, each of them once."""
        self.flatten_mapping(node)
        out: dict[Hashable, Any] = {}
        for key_node, value_node in node.value:
            key = self.construct_object(key_node, deep=True)
            if isinstance(key, bool) or key is None:
                key = {True: "true", False: "false", None: "null"}[key]
            if not isinstance(key, str | int | float):
                raise yaml.constructor.ConstructorError(None, None, "a key must be a word", key_node.start_mark)
            if str(key) in out:
                raise yaml.constructor.ConstructorError(None, None, f"'{key}' is there twice", key_node.start_mark)
            out[str(key)] = self.construct_object(value_node, deep=deep)
        return out


def _number(loader: Loader, node: yaml.ScalarNode) -> int | float:
    text = str(loader.construct_scalar(node))
    if _NO_NUMBER.match(text):
        raise yaml.constructor.ConstructorError(None, None, f"JSON has no {text}", node.start_mark)
    return number(text)


def number(text: str) -> int | float:
    """The number that a text stands for; one without a fraction is an integer."""
    if _INTEGER.match(text):
        digits = text.replace("_", "")
        try:
            octal = re.match(r"[-+]?0[0-9]", digits)
            return int(digits, 8 if octal else 0)
        except ValueError:
            pass  # 08 is no octal number: a decimal one
    value = float(text.replace("_", ""))
    if math.isinf(value):
        raise ValueError(f"{text} is too large")
    return int(value) if value.is_integer() and abs(value) < _LARGEST_WHOLE else value


def as_written(text: str) -> int | float:
    """The number that a text stands for, a float wherever it has a fraction or an exponent: 1.0 is one, 1 is none."""
    return number(text) if _INTEGER.match(text) else float(text.replace("_", ""))


def _resolver(tag: str, pattern: str, first: str) -> None:
    Loader.add_implicit_resolver(tag, re.compile(rf"(?:{pattern})\Z"), list(first))


_resolver("tag:yaml.org,2002:bool", "|".join(BOOLEANS), "yYnNoOtTfF")
_resolver("tag:yaml.org,2002:null", "~|null|Null|NULL|", "~nN")
Loader.add_implicit_resolver("tag:yaml.org,2002:null", re.compile(r"\Z"), [""])
_resolver("tag:yaml.org,2002:merge", "<<", "<")
_resolver(NUMBER_TAG, "|".join(p.pattern.removesuffix(r"\Z") for p in (_INTEGER, _FLOAT, _NO_NUMBER)), "-+.0123456789")
Loader.add_constructor(NUMBER_TAG, _number)
Loader.add_constructor("tag:yaml.org,2002:float", _number)
Loader.add_constructor("tag:yaml.org,2002:int", _number)
Loader.add_constructor("tag:yaml.org,2002:bool", lambda _, node: BOOLEANS[node.value])


def load_all(text: str) -> list[Any]:
    """The documents of a YAML text, empty ones left out.

    Raises:
        ValueError: the text is no YAML, or says what JSON cannot.
    """
    try:
        return [document for document in yaml.load_all(text, Loader=Loader) if document is not None]
    except yaml.YAMLError as error:
        raise ValueError(explain(error)) from error


def explain(error: yaml.YAMLError) -> str:
    """What is wrong with a YAML text, and where."""
    if not isinstance(error, yaml.MarkedYAMLError):
        return str(error)
    mark = error.problem_mark
    where = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
    return f"{where}{error.problem or error}"
