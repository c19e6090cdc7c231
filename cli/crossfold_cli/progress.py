"""How far a running trainer is, read from what it writes: its log, and its reports."""

import re
from dataclasses import dataclass, field
from pathlib import Path

from crossfold_trainer.contract.progress import ProgressReport

_EPOCH = re.compile(rb"^epoch (\d+)/(\d+)\b(.*)$")
_SCORE = re.compile(rb"\bscore=(\S+)")


@dataclass(frozen=True)
class Progress:
    """The last epoch that a trainer reported, and the last score."""

    epoch: int
    epochs: int
    score: str = ""

    def __str__(self) -> str:
        return f"epoch {self.epoch}/{self.epochs}"


def last_progress(log: bytes, before: Progress | None = None) -> Progress | None:
    """The last epoch that a piece of a log reports; ``before`` when it reports none."""
    seen = before
    for line in log.splitlines():
        if match := _EPOCH.match(line):
            score = _SCORE.search(match[3])
            text = score[1].decode(errors="replace") if score else (seen.score if seen else "")
            seen = Progress(int(match[1]), int(match[2]), text)
    return seen


@dataclass
class LogFollower:
    """Reads what was added to logs since the last look."""

    _offsets: dict[Path, int] = field(default_factory=dict)
    _seen: dict[Path, Progress] = field(default_factory=dict)

    def progress(self, log: Path) -> Progress | None:
        """How far the writer of a log is; None before its first epoch."""
        offset = self._offsets.get(log, 0)
        try:
            with log.open("rb") as file:
                file.seek(offset)
                added = file.read()
        except OSError:
            return self._seen.get(log)
        # A line that is not ended yet is read at the next look.
        whole = added[: added.rfind(b"\n") + 1]
        self._offsets[log] = offset + len(whole)
        seen = last_progress(whole, self._seen.get(log))
        if seen is not None:
            self._seen[log] = seen
        return seen


@dataclass
class ReportReader:
    """Reads the reports that trainers leave in files, each of them once."""

    _seen: dict[Path, int] = field(default_factory=dict)

    def news(self, file: Path) -> ProgressReport | None:
        """The report in a file, unless it was read before or is none."""
        try:
            changed = file.stat().st_mtime_ns
            if self._seen.get(file) == changed:
                return None
            self._seen[file] = changed
            return ProgressReport.model_validate_json(file.read_bytes())
        except (OSError, ValueError):
            return None
