"""Dataclasses as JSON: what `-o json` prints."""

from dataclasses import fields, is_dataclass
from datetime import datetime
from typing import Any


def as_json(value: Any) -> Any:
    """Plain values: fields in camelCase, data as it is, times in ISO 8601."""
    if is_dataclass(value):
        return {_camel(part.name): as_json(getattr(value, part.name)) for part in fields(value)}
    match value:
        case dict():
            return {name: as_json(item) for name, item in value.items()}
        case list() | tuple():
            return [as_json(item) for item in value]
        case datetime():
            return value.isoformat()
        case _:
            return value


def _camel(name: str) -> str:
    head, *rest = name.split("_")
    return head + "".join(part.capitalize() for part in rest)
