"""When requests are sent, by the loop's clock, and which are sent again."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from crossfold_operator.cluster.pacing import LONGEST_PAUSE_SECONDS, TRIES, Pacing, pause_after

Virtual = Callable[[Coroutine[Any, Any, Any]], Any]


async def sent(pacing: Pacing, count: int, *, answer: float = 0.0) -> list[float]:
    """Seconds from now at which each of ``count`` requests is sent, when each answer takes ``answer`` seconds."""
    clock = asyncio.get_running_loop().time
    began, times = clock(), []

    async def one() -> None:
        async with pacing.turn():
            times.append(round(clock() - began, 6))
            await asyncio.sleep(answer)

    await asyncio.gather(*(one() for _ in range(count)))
    return times


def test_a_burst_and_then_the_rate(virtual: Virtual) -> None:
    async def scene() -> list[float]:
        return await sent(Pacing(qps=10, burst=3), 6)

    assert virtual(scene()) == [0, 0, 0, 0.1, 0.2, 0.3]


def test_a_quiet_time_fills_the_bucket_no_higher_than_the_burst(virtual: Virtual) -> None:
    async def scene() -> list[float]:
        pacing = Pacing(qps=10, burst=2)
        await sent(pacing, 5)
        await asyncio.sleep(100)
        return await sent(pacing, 4)

    assert virtual(scene()) == [0, 0, 0.1, 0.2]


def test_so_many_wait_for_answers_at_once(virtual: Virtual) -> None:
    async def scene() -> list[float]:
        return await sent(Pacing(qps=1000, burst=1000, in_flight=2), 5, answer=1.0)

    assert virtual(scene()) == [0, 0, 1, 1, 2]


def test_after_a_pause_requests_follow_without_a_burst(virtual: Virtual) -> None:
    async def scene() -> list[float]:
        pacing = Pacing(qps=10, burst=100)
        pacing.hold(5)
        pacing.hold(1)
        return await sent(pacing, 3)

    assert virtual(scene()) == [5, 5.1, 5.2]


@pytest.mark.parametrize(
    ("verb", "code", "headers", "tries", "seconds"),
    [
        ("POST", 429, {"Retry-After": "2"}, 1, (2, 2)),
        ("PUT", 503, {"Retry-After": "0"}, 1, (0, 0)),
        ("POST", 429, {}, 1, (0.25, 0.5)),
        ("POST", 429, {}, 3, (1, 2)),
        ("GET", 500, {}, 1, (0.25, 0.5)),
        ("GET", 504, {"Retry-After": "Fri, 31 Dec 1999 23:59:59 GMT"}, 2, (0.5, 1)),
    ],
)
def test_sent_again(verb: str, code: int, headers: dict[str, str], tries: int, seconds: tuple[float, float]) -> None:
    pause = pause_after(verb, code, headers, tries)
    assert pause is not None
    assert seconds[0] <= pause <= seconds[1]


@pytest.mark.parametrize(
    ("verb", "code", "headers", "tries"),
    [
        ("GET", 200, {"Retry-After": "1"}, 1),
        ("PUT", 409, {"Retry-After": "1"}, 1),
        # Without Retry-After nobody knows whether the write was done.
        ("POST", 500, {}, 1),
        ("PUT", 504, {}, 1),
        ("GET", 429, {"Retry-After": "1"}, TRIES),
        ("GET", 429, {"Retry-After": str(LONGEST_PAUSE_SECONDS + 1)}, 1),
    ],
)
def test_the_answer_stands(verb: str, code: int, headers: dict[str, str], tries: int) -> None:
    assert pause_after(verb, code, headers, tries) is None
