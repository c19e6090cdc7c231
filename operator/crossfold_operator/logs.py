"""Logging: one JSON object (or one line of text) per record, with the fields that a record was given."""

import json
import logging
import sys
from datetime import UTC, datetime
from typing import Any

_STANDARD = frozenset(logging.makeLogRecord({}).__dict__) | {"message", "asctime", "taskName", "color_message"}


def fields_of(record: logging.LogRecord) -> dict[str, Any]:
    """What was given as ``extra``: plain values only (libraries attach objects of their own)."""
    return {
        name: str(value) if isinstance(value, str) else value
        for name, value in record.__dict__.items()
        if name not in _STANDARD and isinstance(value, str | int | float | bool)
    }


class JsonFormatter(logging.Formatter):
    """One JSON object a line."""

    def format(self, record: logging.LogRecord) -> str:
        """Format a record."""
        line = {
            "ts": _time(record),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
            **fields_of(record),
        }
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False)


class TextFormatter(logging.Formatter):
    """One line for people, with the fields behind the message."""

    def format(self, record: logging.LogRecord) -> str:
        """Format a record."""
        fields = " ".join(f"{name}={value}" for name, value in fields_of(record).items())
        line = f"{_time(record)} {record.levelname:<7} {record.name}: {record.getMessage()}"
        if fields:
            line += f"  [{fields}]"
        if record.exc_info:
            line += "\n" + self.formatException(record.exc_info)
        return line


def _time(record: logging.LogRecord) -> str:
    return datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def setup(*, form: str, level: str) -> None:
    """Log to standard error in this form (json or text), from this level on."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter() if form == "json" else TextFormatter())
    logging.basicConfig(level=level, handlers=[handler], force=True)
    # Libraries say little unless everything is wanted.
    quiet = logging.DEBUG if level == "DEBUG" else logging.WARNING
    for name in ("kopf", "asyncio", "aiohttp.access"):
        logging.getLogger(name).setLevel(max(quiet, logging.INFO))
    if quiet > logging.DEBUG:
        # It runs in a thread here, by design, and warns that it gets no signals there.
        logging.getLogger("kopf._core.reactor.running").setLevel(logging.ERROR)
        # It tells every try of every request; our own watches tell that the API server is away, once.
        logging.getLogger("kopf._cogs.clients").setLevel(logging.CRITICAL)
