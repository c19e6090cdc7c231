"""Log lines: one JSON object each, with the fields that were given."""

import json
import logging
import sys

from crossfold_operator.logs import JsonFormatter, TextFormatter
from crossfold_operator.names import Reason


def record(**extra):
    made = logging.LogRecord("x.y", logging.INFO, __file__, 1, "hello %s", ("you",), None)
    made.__dict__.update(extra)
    return made


def test_json_says_what_the_record_says():
    line = json.loads(JsonFormatter().format(record(object="Tune/ns/a", reason=Reason.LOST, n=3, big=[1], settings={})))
    assert line.pop("ts").endswith("Z")
    assert line == {
        "level": "INFO",
        "logger": "x.y",
        "message": "hello you",
        "object": "Tune/ns/a",
        "reason": "Lost",
        "n": 3,
    }


def test_a_traceback_is_one_field_of_one_line():
    try:
        int("x\ny")
    except ValueError:
        made = record()
        made.exc_info = sys.exc_info()
    text = JsonFormatter().format(made)
    assert "\n" not in text
    assert "ValueError" in json.loads(text)["traceback"]


def test_text_shows_the_fields_behind_the_message():
    assert TextFormatter().format(record(object="Tune/ns/a")).endswith("x.y: hello you  [object=Tune/ns/a]")
