"""Raw requests against a small HTTP server: what answers become, and that nothing waits for ever."""

import asyncio
import json

import pytest
from aiohttp import web
from kubernetes.aio.client.api_client import ApiClient
from kubernetes.aio.client.configuration import Configuration

from crossfold_operator.cluster.base import Unavailable
from crossfold_operator.cluster.client import MERGE_PATCH, ApiError, ApiServer
from crossfold_operator.cluster.pacing import TRIES, Pacing
from tests.waiting import PATIENCE_S


@pytest.fixture
async def served():
    """Serves one handler; yields a function that takes it and returns a client."""
    opened = []

    async def serve(handler):
        app = web.Application()
        app.router.add_route("*", "/{path:.*}", handler)
        runner = web.AppRunner(app, shutdown_timeout=0.1)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        port = site._server.sockets[0].getsockname()[1]
        configuration = Configuration(host=f"http://127.0.0.1:{port}")
        configuration.api_key["BearerToken"] = "Bearer secret"
        server = ApiServer(ApiClient(configuration))
        opened.extend([server.close, runner.cleanup])
        return server

    yield serve
    for close in opened:
        await close()


async def drain(server, into, *, idle):
    async for line in server.stream("/", {}, idle=idle):
        into.append(line)


async def test_a_request_says_who_asks_for_what(served):
    async def echo(request):
        return web.json_response(
            {
                "method": request.method,
                "path": request.path_qs,
                "type": request.headers["Content-Type"],
                "auth": request.headers["Authorization"],
                "agent": request.headers["User-Agent"],
                "body": json.loads(await request.text()),
            }
        )

    server = await served(echo)
    answer = await server.request("PATCH", "/a", query={"q": "x y,z=1"}, body={"b": None}, content_type=MERGE_PATCH)
    assert answer == {
        "method": "PATCH",
        "path": "/a?q=x+y,z%3D1",
        "type": MERGE_PATCH,
        "auth": "Bearer secret",
        "agent": "crossfold-operator",
        "body": {"b": None},
    }


async def test_a_status_object_becomes_an_error(served):
    async def refuse(_):
        return web.json_response({"kind": "Status", "reason": "Invalid", "message": "spec.x: no"}, status=422)

    server = await served(refuse)
    with pytest.raises(ApiError) as raised:
        await server.request("GET", "/")
    assert (raised.value.code, raised.value.reason, raised.value.message) == (422, "Invalid", "spec.x: no")


@pytest.mark.parametrize("body", ["<html>Bad gateway</html>", "[]", "{}"])
async def test_a_page_of_a_proxy_becomes_an_error_too(served, body):
    async def refuse(_):
        return web.Response(text=body, status=502)

    server = await served(refuse)
    with pytest.raises(ApiError) as raised:
        await server.request("GET", "/")
    assert (raised.value.code, raised.value.message) == (502, body)


async def test_an_answer_that_is_no_json_is_no_answer(served):
    async def answer(_):
        return web.Response(text="hello")

    server = await served(answer)
    with pytest.raises(Unavailable, match="no JSON"):
        await server.request("GET", "/")


async def test_a_server_that_does_not_answer_is_given_up(served):
    over = asyncio.Event()

    async def wait(_):
        await over.wait()

    server = await served(wait)
    async with asyncio.timeout(PATIENCE_S):
        with pytest.raises(Unavailable, match="Timeout"):
            await server.request("GET", "/", timeout=0.2)
    over.set()


async def test_a_server_that_is_not_there_is_unavailable():
    server = ApiServer(ApiClient(Configuration(host="http://127.0.0.1:1")))
    try:
        with pytest.raises(Unavailable, match=r"Connect"):
            await server.request("GET", "/")
    finally:
        await server.close()


async def test_a_stream_brings_lines_however_long(served):
    async def stream(request):
        response = web.StreamResponse()
        await response.prepare(request)
        for n in range(3):
            await response.write(json.dumps({"n": n, "pad": "x" * 500_000}).encode() + b"\n")
        return response

    server = await served(stream)
    assert [line["n"] async for line in server.stream("/", {"watch": "true"}, idle=5)] == [0, 1, 2]


async def test_a_silent_stream_is_given_up(served):
    over = asyncio.Event()

    async def stream(request):
        response = web.StreamResponse()
        await response.prepare(request)
        await response.write(b'{"n": 1}\n')
        await over.wait()

    server = await served(stream)
    seen = []
    async with asyncio.timeout(PATIENCE_S):
        with pytest.raises(Unavailable):
            await drain(server, seen, idle=0.2)
    assert seen == [{"n": 1}]
    over.set()


async def test_a_stream_that_breaks_within_a_line_is_unavailable(served):
    async def stream(request):
        response = web.StreamResponse()
        await response.prepare(request)
        await response.write(b'{"n": 1}\n{"n":')
        return response

    server = await served(stream)
    seen = []
    with pytest.raises(Unavailable):
        await drain(server, seen, idle=5)
    assert seen == [{"n": 1}]


async def test_a_refused_stream_says_why(served):
    async def refuse(_):
        return web.json_response({"reason": "Expired", "message": "too old"}, status=410)

    server = await served(refuse)
    with pytest.raises(ApiError) as raised:
        await drain(server, [], idle=5)
    assert raised.value.code == 410


async def test_a_server_that_asks_for_a_pause_is_asked_again_after_it(served):
    times = []

    async def busy_at_first(_):
        times.append(asyncio.get_running_loop().time())
        if len(times) == 1:
            return web.json_response({"message": "slow down"}, status=429, headers={"Retry-After": "1"})
        return web.json_response({"done": True})

    server = (await served(busy_at_first)).paced(Pacing(qps=1000, burst=10))
    assert await server.request("POST", "/") == {"done": True}
    assert len(times) == 2
    assert times[1] - times[0] >= 0.99


async def test_a_server_that_stays_busy_is_an_error_in_the_end(served):
    asked = []

    async def busy(_):
        asked.append(1)
        return web.json_response(
            {"reason": "TooManyRequests", "message": "no"}, status=429, headers={"Retry-After": "0"}
        )

    server = (await served(busy)).paced(Pacing(qps=1000, burst=10))
    with pytest.raises(ApiError) as raised:
        await server.request("PUT", "/")
    assert (raised.value.code, len(asked)) == (429, TRIES)


async def test_without_a_rate_limit_nothing_is_sent_twice(served):
    asked = []

    async def busy(_):
        asked.append(1)
        return web.json_response({"message": "no"}, status=429, headers={"Retry-After": "0"})

    server = await served(busy)
    with pytest.raises(ApiError):
        await server.request("GET", "/")
    assert len(asked) == 1


async def test_the_time_limit_does_not_count_the_wait_for_a_turn(served):
    at_once, most = 0, 0

    async def slow(_):
        nonlocal at_once, most
        at_once += 1
        most = max(most, at_once)
        await asyncio.sleep(0.3)
        at_once -= 1
        return web.json_response({})

    # Twelve requests, two at a time, take 1.8 seconds.
    server = (await served(slow)).paced(Pacing(qps=1000, burst=100, in_flight=2))
    async with asyncio.timeout(PATIENCE_S):
        await asyncio.gather(*(server.request("GET", "/", timeout=1.5) for _ in range(12)))
    assert most == 2
