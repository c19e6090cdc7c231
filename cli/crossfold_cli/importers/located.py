"""Values of a file that know their line: YAML with YAML 1.2's numbers, and TOML."""

import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import yaml

from crossfold_cli.yamljson import BOOLEANS, NUMBER_TAG, Loader, as_written, explain

_TAGS = "tag:yaml.org,2002:"
_TOML_HEADER = re.compile(r"\s*\[\[?\s*([^\[\]]+?)\s*\]\]?\s*(#.*)?$")
_TOML_KEY = re.compile(r"""\s*((?:[A-Za-z0-9_.\-]+|"[^"]*"|'[^']*'|\s*\.\s*)+?)\s*=""")
_TOML_STEP = re.compile(r"""[A-Za-z0-9_\-]+|"[^"]*"|'[^']*'""")


class SourceError(Exception):
    """Something in a source that cannot be imported.

    Attributes:
        line: where it is, from 1; 0: in no line of its own.
        text: what is wrong, and what to do.
    """

    def __init__(self, line: int, text: str) -> None:
        super().__init__(f"line {line}: {text}" if line else text)
        self.line = line
        self.text = text


@dataclass(frozen=True)
class Located:
    """A value and its line, from 1.

    A number is a float where it was written with a fraction or an exponent: formats that tell 1 from 1.0 mean it.
    """

    content: "bool | int | float | str | dict[str, Located] | list[Located] | None"
    line: int

    @property
    def plain(self) -> Any:
        """The value without lines, as JSON has it."""
        match self.content:
            case dict() as items:
                return {name: item.plain for name, item in items.items()}
            case list() as items:
                return [item.plain for item in items]
            case _:
                return self.content

    def error(self, text: str) -> SourceError:
        """What is wrong here."""
        return SourceError(self.line, text)

    def mapping(self, what: str) -> "Mapping[str, Located]":
        """The entries of a mapping.

        Raises:
            SourceError: it is none.
        """
        if not isinstance(self.content, dict):
            raise self.error(f"{what} must be a mapping, not {shown(self.content)}")
        return self.content

    def items(self, what: str) -> "Sequence[Located]":
        """The items of a list.

        Raises:
            SourceError: it is none, or empty.
        """
        if not isinstance(self.content, list):
            raise self.error(f"{what} must be a list, not {shown(self.content)}")
        if not self.content:
            raise self.error(f"{what} is empty: list at least one")
        return self.content

    def text(self, what: str) -> str:
        """A text.

        Raises:
            SourceError: it is none, or empty.
        """
        if not isinstance(self.content, str) or not self.content:
            raise self.error(f"{what} must be a text, not {shown(self.content)}")
        return self.content

    def count(self, what: str, least: int = 1) -> int:
        """A whole number.

        Raises:
            SourceError: it is none, or too small.
        """
        value = self.content
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            raise self.error(f"{what} must be a whole number of at least {least}, not {shown(value)}")
        return value

    def number(self, what: str, *, texts: bool = False) -> int | float:
        """A number as it was written.

        Args:
            what: its name, for messages.
            texts: whether the format writes its numbers as texts ("0.01").

        Raises:
            SourceError: it is none.
        """
        value = self.content
        if texts and isinstance(value, str):
            try:
                value = as_written(value.strip())
            except ValueError:
                raise self.error(f"{what} must be a number, not {shown(self.content)}") from None
        if isinstance(value, bool) or not isinstance(value, int | float) or value - value != 0:
            raise self.error(f"{what} must be a number, not {shown(self.content)}")
        return value


def shown(value: object) -> str:
    """A value in a message."""
    match value:
        case dict():
            return "a mapping"
        case list():
            return "a list"
        case None:
            return "nothing"
        case _:
            return repr(value)


# YAML -------------------------------------------------------------------------------------------------------------


def from_yaml(text: str) -> list[Located]:
    """The documents of a YAML text, empty ones left out.

    Raises:
        ValueError: the text is no YAML, or says what JSON cannot.
    """
    loader = Loader(text)
    documents = []
    try:
        while loader.check_node():
            documents.append(_of_node(loader, loader.get_node()))
    except yaml.YAMLError as error:
        raise ValueError(explain(error)) from error
    except SourceError as error:
        raise ValueError(str(error)) from error
    except RecursionError as error:
        raise ValueError("an alias refers to itself") from error
    finally:
        loader.dispose()
    return [document for document in documents if document.content is not None]


def _of_node(loader: Loader, node: yaml.Node | None) -> Located:
    if node is None:
        return Located(None, 1)
    line = node.start_mark.line + 1
    if isinstance(node, yaml.MappingNode):
        loader.flatten_mapping(node)
        out: dict[str, Located] = {}
        for key, value in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise SourceError(key.start_mark.line + 1, "a key must be a word")
            if key.value in out:
                raise SourceError(key.start_mark.line + 1, f"'{key.value}' is there twice")
            item = _of_node(loader, value)
            # What belongs to a key is found at the key.
            out[key.value] = Located(item.content, key.start_mark.line + 1)
        return Located(out, line)
    if isinstance(node, yaml.SequenceNode):
        return Located([_of_node(loader, item) for item in node.value], line)
    return Located(_scalar(node, line), line)


def _scalar(node: yaml.Node, line: int) -> bool | int | float | str | None:
    text = str(node.value)
    try:
        match node.tag.removeprefix(_TAGS):
            case "null":
                return None
            case "bool":
                return BOOLEANS[text]
            case "float":
                return float(text.replace("_", ""))
            case tag if tag in (NUMBER_TAG, "int"):
                return as_written(text)
            case "str":
                return text
            case tag:
                raise SourceError(line, f"'{text}' is of a type that JSON lacks ({tag})")
    except (ValueError, KeyError) as error:
        raise SourceError(line, f"'{text}' cannot be read: {error}") from error


# TOML -------------------------------------------------------------------------------------------------------------


def from_toml(text: str) -> Located:
    """A TOML text. An entry of an inline table or an array has the line of the key before it.

    Raises:
        ValueError: the text is no TOML, or says what JSON cannot.
    """
    return _of_toml(tomllib.loads(text), (), _toml_lines(text), 1)


def _of_toml(value: Any, path: tuple[str, ...], lines: Mapping[tuple[str, ...], int], line: int) -> Located:
    line = lines.get(path, line)
    match value:
        case dict():
            return Located({name: _of_toml(item, (*path, name), lines, line) for name, item in value.items()}, line)
        case list():
            return Located([_of_toml(item, path, lines, line) for item in value], line)
        case bool() | int() | float() | str():
            return Located(value, line)
        case _:
            raise ValueError(f"line {line}: {value} is of a type that JSON lacks: put it into quotes")


def _toml_lines(text: str) -> dict[tuple[str, ...], int]:
    """The line of every table and key that stands at the beginning of one."""
    found: dict[tuple[str, ...], int] = {}
    table: tuple[str, ...] = ()
    for number, line in enumerate(text.splitlines(), start=1):
        if header := _TOML_HEADER.match(line):
            table = _toml_path(header[1])
            found.setdefault(table, number)
        elif key := _TOML_KEY.match(line):
            found.setdefault((*table, *_toml_path(key[1])), number)
    return found


def _toml_path(text: str) -> tuple[str, ...]:
    return tuple(step.strip("\"'") for step in _TOML_STEP.findall(text))
