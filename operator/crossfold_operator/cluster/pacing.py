"""How fast one client sends requests: so many a second, so many at once, and fewer when the API server asks for it."""

import asyncio
import random
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

from crossfold_operator import metrics

IN_FLIGHT = 64
"""Requests at the same time. Fewer than the HTTP client has connections, so that none waits for a connection."""
TRIES = 5
"""Requests that are sent before an answer that asks for a pause is raised as an error."""
LONGEST_PAUSE_SECONDS = 10.0
"""A server that asks for a longer pause is not waited for: the reconcile fails, and is tried again later."""
_FIRST_PAUSE_SECONDS = 0.5


class Pacing:
    """Rate limit of one client: a token bucket, and a limit of requests in flight."""

    def __init__(self, qps: float, burst: int, in_flight: int = IN_FLIGHT) -> None:
        """Make a full bucket.

        Args:
            qps: requests per second in the long run, above 0.
            burst: requests that may be sent at once after a quiet time, 1 or more.
            in_flight: requests that may wait for their answers at the same time, 1 or more.
        """
        self._seconds_each = 1 / qps
        self._burst_seconds = (burst - 1) / qps
        self._next = float("-inf")
        """When the next request is due by the rate alone; a full bucket has it in the past."""
        self._in_flight = asyncio.Semaphore(in_flight)

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        """Wait until one request may be sent; it is in flight until the context ends."""
        began = time.monotonic()
        now = asyncio.get_running_loop().time()
        due = max(self._next, now - self._burst_seconds)
        self._next = due + self._seconds_each
        if due > now:
            await asyncio.sleep(due - now)
        async with self._in_flight:
            metrics.API_WAIT.observe(time.monotonic() - began)
            yield

    def hold(self, seconds: float) -> None:
        """Send nothing more for so long; after that, requests follow at the rate, without a burst."""
        self._next = max(self._next, asyncio.get_running_loop().time() + seconds)


def pause_after(verb: str, code: int, headers: Mapping[str, str], tries: int) -> float | None:
    """Seconds to wait before a request is sent again.

    Args:
        verb: HTTP method of the request.
        code: HTTP status of the answer.
        headers: headers of the answer; looked up in any case of letters when they are those of the HTTP client.
        tries: how often the request has been sent, from 1.

    Returns:
        Seconds, or None when the answer stands. A write is sent again only after an answer that asks for it (429, or
        Retry-After with 5xx); a read after every 5xx.
    """
    asked = _retry_after(headers)
    again = code == 429 or (code >= 500 and (asked is not None or verb == "GET"))
    if not again or tries >= TRIES:
        return None
    if asked is not None:
        return asked if asked <= LONGEST_PAUSE_SECONDS else None
    longest = min(_FIRST_PAUSE_SECONDS * 2 ** (tries - 1), LONGEST_PAUSE_SECONDS)
    return random.uniform(longest / 2, longest)


def _retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds by Retry-After. The API server sends whole seconds; a proxy's date is left out."""
    try:
        seconds = float(headers.get("Retry-After", ""))
    except ValueError:
        return None
    return seconds if 0 <= seconds < float("inf") else None
