"""The Lease and the probes have an event loop of their own: work that blocks its loop keeps neither waiting."""

import asyncio
import threading
from collections.abc import Awaitable, Callable
from typing import Any

import aiohttp
import pytest

from crossfold_operator import leader, main, server
from crossfold_operator.cluster.base import Unavailable
from crossfold_operator.cluster.client import ApiServer
from crossfold_operator.main import Front, Term, lead
from crossfold_operator.progress import ProgressEndpoint, _Rejected, _there
from crossfold_operator.server import Health, serve
from crossfold_operator.settings import Settings
from tests.unit.test_leader import Leases

WAIT = 60.0
"""Seconds; nothing takes them but a fault."""
Work = Callable[[asyncio.Event, Callable[[], bool]], Awaitable[None]]


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """A Lease that is lost sooner."""
    monkeypatch.setattr(leader, "RETRY_SECONDS", 0.1)
    monkeypatch.setattr(leader, "RENEW_WITHIN_SECONDS", 1.0)
    monkeypatch.setattr(main, "BEAT_SECONDS", 0.05)


def working(monkeypatch: pytest.MonkeyPatch, act: Work) -> None:
    async def work(settings: Settings, front: Front, stopping: asyncio.Event, may_write: Callable[[], bool]) -> None:
        await act(stopping, may_write)

    monkeypatch.setattr(main, "work", work)


async def get(port: int, path: str) -> int:
    async with aiohttp.ClientSession() as session, session.get(f"http://127.0.0.1:{port}{path}") as answer:
        await answer.read()
        return answer.status


async def until(done: Callable[[], bool], what: str) -> None:
    """Wait for something that the test is told of in no other way."""
    async with asyncio.timeout(WAIT):
        while not done():  # noqa: ASYNC110
            await asyncio.sleep(0.02)
    assert done(), what


async def test_a_loop_that_is_blocked_loses_no_lease_and_delays_no_probe(
    monkeypatch: pytest.MonkeyPatch, quick: None
) -> None:
    blocked, release = threading.Event(), threading.Event()

    async def act(stopping: asyncio.Event, may_write: Callable[[], bool]) -> None:
        blocked.set()
        assert release.wait(WAIT)  # the loop of this thread stands still
        assert may_write()
        await stopping.wait()

    working(monkeypatch, act)
    leases, stopping, front = Leases(), asyncio.Event(), Front(Health(), ProgressEndpoint())
    runner = await serve(front.health, 0)
    port = next(address[1] for address in runner.addresses if len(address) == 2)  # of IPv4
    leading = asyncio.create_task(lead(leases.client("a"), Settings(), front, stopping))  # type: ignore[arg-type]
    await until(blocked.is_set, "the work")
    before = leases.version
    for path in ("/healthz", "/readyz", "/metrics"):
        assert await get(port, path) == 200
    # Longer than it takes to lose it; it is renewed all along, by the one holder that it ever had.
    await until(lambda: leases.version >= before + 20, "renewals")
    assert leases.lease["spec"]["leaseTransitions"] == 0
    assert front.health.silent_seconds > leader.RENEW_WITHIN_SECONDS
    assert await get(port, "/healthz") == 200
    release.set()
    stopping.set()
    await asyncio.wait_for(leading, WAIT)
    assert leases.lease["spec"]["holderIdentity"] == ""
    await runner.cleanup()


async def test_a_loop_that_comes_to_itself_after_the_lease_is_lost_writes_nothing(
    monkeypatch: pytest.MonkeyPatch, quick: None
) -> None:
    sent: list[str] = []
    loop = asyncio.get_running_loop()
    outcome: asyncio.Future[BaseException | None] = loop.create_future()
    asked: list[Callable[[], bool]] = []
    release = threading.Event()

    class Client:
        """Stands for the HTTP client: it notes what is sent."""

        class configuration:  # noqa: N801 -- as the client has it
            host = "http://nowhere"

        async def update_params_for_auth(self, *_: Any) -> None:
            pass

        class rest_client:  # noqa: N801
            @staticmethod
            async def request(verb: str, *_: Any, **__: Any) -> Any:
                sent.append(verb)
                raise aiohttp.ClientError("nobody is there")

    async def act(stopping: asyncio.Event, may_write: Callable[[], bool]) -> None:
        api = ApiServer(Client(), may_write)
        with pytest.raises(Unavailable):
            await api.request("PATCH", "/before")
        asked.append(may_write)
        assert release.wait(WAIT)  # the loop of this thread stands still
        error: BaseException | None = None
        try:
            await api.request("PATCH", "/after")
        except BaseException as raised:  # noqa: BLE001
            error = raised
        loop.call_soon_threadsafe(outcome.set_result, error)
        await asyncio.Event().wait()

    working(monkeypatch, act)
    leases, stopping, front = Leases(), asyncio.Event(), Front(Health(), ProgressEndpoint())
    leading = asyncio.create_task(lead(leases.client("a"), Settings(), front, stopping))  # type: ignore[arg-type]
    await until(lambda: bool(asked), "the work")
    assert asked[0]()
    leases.down_for.add("a")
    await until(lambda: not asked[0](), "that the Lease is lost")
    release.set()
    error = await asyncio.wait_for(outcome, WAIT)
    assert isinstance(error, Unavailable | asyncio.CancelledError)
    assert sent == ["PATCH"]
    stopping.set()
    leading.cancel()
    await asyncio.gather(leading, return_exceptions=True)


async def test_a_term_that_is_ended_before_it_began_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    async def act(stopping: asyncio.Event, may_write: Callable[[], bool]) -> None:
        await asyncio.Event().wait()

    working(monkeypatch, act)
    for delay in (0, 0.001, 0.05):
        term = asyncio.create_task(Term(Settings(), Front(Health(), ProgressEndpoint())).run(asyncio.Event()))
        await asyncio.sleep(delay)
        term.cancel()
        await asyncio.wait_for(asyncio.gather(term, return_exceptions=True), WAIT)


async def test_what_the_work_raises_comes_out(monkeypatch: pytest.MonkeyPatch) -> None:
    async def act(stopping: asyncio.Event, may_write: Callable[[], bool]) -> None:
        raise ValueError("bug")

    working(monkeypatch, act)
    with pytest.raises(ValueError, match="bug"):
        await Term(Settings(), Front(Health(), ProgressEndpoint())).run(asyncio.Event())


async def test_a_loop_that_hangs_for_good_fails_its_liveness_probe() -> None:
    now = [0.0]
    health = Health(clock=lambda: now[0])
    runner = await serve(health, 0)
    port = next(address[1] for address in runner.addresses if len(address) == 2)  # of IPv4
    assert await get(port, "/healthz") == 200
    health.beat()
    now[0] = server.SILENT_SECONDS
    assert await get(port, "/healthz") == 200
    now[0] += 1
    assert await get(port, "/healthz") == 500
    health.rest()
    assert await get(port, "/healthz") == 200
    await runner.cleanup()


async def test_reports_are_taken_on_the_loop_that_works(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the server's loop is another one, what a report changes is changed by the thread that owns it."""
    import threading

    found: list[str] = []
    inner = asyncio.new_event_loop()
    thread = threading.Thread(target=inner.run_forever, name="inner")
    thread.start()

    async def note() -> int:
        found.append(threading.current_thread().name)
        return 7

    assert await _there(inner, note()) == 7
    inner.call_soon_threadsafe(inner.stop)
    thread.join()
    inner.close()
    with pytest.raises(_Rejected):
        await _there(inner, note())
    assert await _there(asyncio.get_running_loop(), note()) == 7
    assert found == ["inner", threading.current_thread().name]
