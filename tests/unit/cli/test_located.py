"""Values of a file that know their line: what is said of one that is of another type."""

from collections.abc import Callable
from typing import Any

import pytest

from crossfold_cli.importers.located import Located, SourceError, from_toml, from_yaml

READ: dict[str, Callable[[Located], Any]] = {
    "mapping": lambda item: item.mapping("it"),
    "list": lambda item: item.items("it"),
    "text": lambda item: item.text("it"),
    "whole number": lambda item: item.count("it"),
    "number": lambda item: item.number("it"),
    "number as text": lambda item: item.number("it", texts=True),
}
WRITTEN = {
    "": "nothing",
    "null": "nothing",
    "~": "nothing",
    "{a: 1}": "a mapping",
    "[a]": "a list",
    "true": "True",
    "word": "'word'",
    '"null"': "'null'",
    "''": "''",
    "7": "7",
    "7.5": "7.5",
    "1e999": "inf",
}
ACCEPTED = {
    "mapping": ["{a: 1}"],
    "list": ["[a]"],
    "text": ["word", '"null"'],
    "whole number": ["7"],
    "number": ["7", "7.5"],
    "number as text": ["7", "7.5"],
}


@pytest.mark.parametrize("wanted", READ)
@pytest.mark.parametrize("written", WRITTEN)
def test_what_is_of_another_type_is_refused_with_its_line_and_what_it_is(wanted: str, written: str) -> None:
    (document,) = from_yaml(f"# a comment\nkey: {written}\n")
    item = document.mapping("the file")["key"]
    if written in ACCEPTED[wanted]:
        READ[wanted](item)
        return
    with pytest.raises(SourceError) as raised:
        READ[wanted](item)
    assert raised.value.line == 2
    assert raised.value.text.startswith("it must be a ")
    assert raised.value.text.endswith(f", not {WRITTEN[written]}")


@pytest.mark.parametrize("wanted", ACCEPTED)
def test_what_is_of_the_type_is_returned(wanted: str) -> None:
    values = [from_yaml(f"key: {text}")[0].mapping("the file")["key"] for text in ACCEPTED[wanted]]
    found = [READ[wanted](value) for value in values]
    assert found == [value.content for value in values]
    assert found


def test_documents_that_say_nothing_are_left_out() -> None:
    assert [document.plain for document in from_yaml("---\n---\nnull\n---\na: null\n---\n[]\n")] == [{"a": None}, []]


@pytest.mark.parametrize("written", ["inf", "-inf", "nan"])
def test_what_toml_calls_a_number_and_is_none_is_refused(written: str) -> None:
    item = from_toml(f"# a comment\nkey = {written}\n").mapping("the file")["key"]
    with pytest.raises(SourceError, match=f"line 2: it must be a number, not {written}"):
        item.number("it")
