"""What a look at a data set finds: errors, which no run trains on, and warnings, which may be meant."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum

from crossfold_trainer.contract.result import FAILURE_TEXT_LIMIT
from crossfold_trainer.errors import ConfigError

SHOWN = 5
"""So many of many are named."""
_ROOM_FOR_THE_REST = 120
"""Characters of a failure's text for its field, and for how many errors it leaves out."""


class Severity(StrEnum):
    """How bad it is."""

    ERROR = "error"
    """No run trains on it."""
    WARNING = "warning"
    """It may be meant: runs go on and say it in their log."""


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong, or may be."""

    severity: Severity
    where: str
    """The part of the data set, such as ``metadata.parquet``."""
    text: str
    """What is wrong, with numbers."""
    remedy: str = ""
    field: str = "data.uri"
    """The field of a run's configuration to look at."""

    def __str__(self) -> str:
        return f"{self.text}: {self.remedy}" if self.remedy else self.text


def error(where: str, text: str, remedy: str = "", field: str = "data.uri") -> Finding:
    """A finding that no run trains on."""
    return Finding(Severity.ERROR, where, text, remedy, field)


def warning(where: str, text: str, remedy: str = "") -> Finding:
    """A finding that may be meant."""
    return Finding(Severity.WARNING, where, text, remedy)


def errors(findings: Iterable[Finding]) -> list[Finding]:
    """Those that no run trains on."""
    return [finding for finding in findings if finding.severity is Severity.ERROR]


def warnings(findings: Iterable[Finding]) -> list[Finding]:
    """Those that may be meant."""
    return [finding for finding in findings if finding.severity is Severity.WARNING]


def refuse(findings: Iterable[Finding]) -> None:
    """Refuse a data set with errors.

    Raises:
        ConfigError: names all errors, or as many as fit into a failure's text and the number of the others.
    """
    wrong = errors(findings)
    if not wrong:
        return
    if len(wrong) == 1:
        raise ConfigError(wrong[0].field, str(wrong[0]))
    text, told = f"{len(wrong)} errors:", 0
    for finding in wrong:
        field = "" if finding.field == wrong[0].field else f"{finding.field}: "
        line = f" ({told + 1}) {field}{finding}" + (";" if told + 1 < len(wrong) else "")
        if told and len(text) + len(line) > FAILURE_TEXT_LIMIT - _ROOM_FOR_THE_REST:
            text += f" and {len(wrong) - told} more, which `crossfold data check` lists"
            break
        text, told = text + line, told + 1
    raise ConfigError(wrong[0].field, text)


def some(values: Sequence[object], limit: int = SHOWN) -> str:
    """The first of these, and how many more there are."""
    more = f" and {len(values) - limit} more" if len(values) > limit else ""
    return ", ".join(str(value) for value in values[:limit]) + more


def count(n: int, one: str, several: str = "") -> str:
    """A number of things: 1 patch, 2 patches."""
    return f"{n} {one if n == 1 else several or f'{one}s'}"
