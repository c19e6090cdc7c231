"""Times as Kubernetes writes them."""

import re
from datetime import UTC, datetime

_UNITS = {"h": 3600, "m": 60, "s": 1}
_DURATION = re.compile(r"(\d+)([hms])")


def timestamp(at: datetime | None = None) -> str:
    """A time (None: now) to the second, in UTC: ``2026-01-01T00:00:00Z``."""
    return (at or datetime.now(UTC)).astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def parse_time(text: str) -> datetime:
    """A Kubernetes timestamp."""
    return datetime.fromisoformat(text).astimezone(UTC)


def duration_seconds(text: str) -> int:
    """Seconds of a duration such as ``48h``, ``1h30m`` or ``45s``."""
    return sum(int(count) * _UNITS[unit] for count, unit in _DURATION.findall(text))


def seconds_between(start: str | None, end: str | None, now: datetime) -> int:
    """Whole seconds from start to end (now while it has none); 0 without a start."""
    if not start:
        return 0
    return max(0, round(((parse_time(end) if end else now) - parse_time(start)).total_seconds()))
