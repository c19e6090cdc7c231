"""Waiting for what happens elsewhere: tests wait for the event itself, and a bound only ends one that never comes."""

import asyncio
import time
from collections.abc import Callable, Iterator
from typing import TypeVar

import pytest

T = TypeVar("T")

PATIENCE_S = 180.0
"""Seconds after which something is said never to happen: far more than it takes on a machine that is busy."""


def eventually(condition: Callable[[], T], what: str, seconds: float = PATIENCE_S) -> T:
    """Wait until a condition holds.

    Args:
        condition: asked again and again.
        what: it says, for the message.
        seconds: how long to wait at most, above 0.

    Returns:
        What the condition returned: the first value that is true.
    """
    pauses = _pauses(what, seconds)
    while not (found := condition()):
        time.sleep(next(pauses))
    return found


async def until(condition: Callable[[], T], what: str, seconds: float = PATIENCE_S) -> T:
    """The same as ``eventually`` on an event loop, which goes on meanwhile."""
    pauses = _pauses(what, seconds)
    while not (found := condition()):  # noqa: ASYNC110 -- conditions are of many kinds
        await asyncio.sleep(next(pauses))
    return found


def _pauses(what: str, seconds: float) -> Iterator[float]:
    """Seconds to the next question: short ones first; then the test fails."""
    end, pause = time.monotonic() + seconds, 0.005
    while time.monotonic() < end:
        yield pause
        pause = min(0.2, 1.5 * pause)
    pytest.fail(f"never seen within {seconds:g} s: {what}")
