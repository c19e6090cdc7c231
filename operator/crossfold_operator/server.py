"""HTTP: /healthz, /readyz and /metrics, and what others add."""

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from aiohttp import web

from crossfold_operator import metrics
from crossfold_trainer.contract.progress import REPORT_LIMIT

SILENT_SECONDS = 120.0
"""After which an event loop that does not turn counts as hanging: long looks end before."""


@dataclass
class Health:
    """What the probes answer. The threads that do the work keep it current; those of the probes read it.

    Attributes:
        ready: whether the operator is ready.
        state: what it does now.
        clock: monotonic seconds.
    """

    ready: bool = False
    state: str = "starting"
    clock: Callable[[], float] = time.monotonic
    _beat: float | None = field(default=None, repr=False)

    def becomes(self, state: str, *, ready: bool) -> None:
        """Say what the operator does now, and whether it is ready."""
        self.state, self.ready = state, ready

    def beat(self) -> None:
        """The event loop that works turns."""
        self._beat = self.clock()

    def rest(self) -> None:
        """None need turn: nothing is worked on."""
        self._beat = None

    @property
    def silent_seconds(self) -> float:
        """How long the event loop that works has not turned; 0 where none need."""
        since = self._beat
        return 0.0 if since is None else max(0.0, self.clock() - since)


async def serve(health: Health, port: int, routes: Iterable[web.RouteDef] = ()) -> web.AppRunner:
    """Listen on a port until the returned runner is cleaned up."""

    async def healthz(_: web.Request) -> web.Response:
        silent = health.silent_seconds
        if silent > SILENT_SECONDS:
            return web.Response(text=f"the event loop that works has not turned for {silent:.0f} s\n", status=500)
        return web.Response(text="ok\n")

    async def readyz(_: web.Request) -> web.Response:
        return web.Response(text=f"{health.state}\n", status=200 if health.ready else 503)

    async def exposition(_: web.Request) -> web.Response:
        return web.Response(body=metrics.exposition(), headers={"Content-Type": "text/plain; version=0.0.4"})

    app = web.Application(client_max_size=REPORT_LIMIT)
    app.add_routes(routes)
    app.router.add_get("/healthz", healthz)
    app.router.add_get("/readyz", readyz)
    app.router.add_get("/metrics", exposition)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, port=port).start()
    return runner
