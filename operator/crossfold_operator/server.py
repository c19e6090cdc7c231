"""HTTP: /healthz, /readyz and /metrics, and what others add."""

from collections.abc import Iterable
from dataclasses import dataclass

from aiohttp import web

from crossfold_operator import metrics
from crossfold_trainer.contract.progress import REPORT_LIMIT


@dataclass
class Health:
    """What the probes answer; whoever starts the operator keeps it current."""

    ready: bool = False
    state: str = "starting"

    def becomes(self, state: str, *, ready: bool) -> None:
        """Say what the operator does now, and whether it is ready."""
        self.state, self.ready = state, ready


async def serve(health: Health, port: int, routes: Iterable[web.RouteDef] = ()) -> web.AppRunner:
    """Listen on a port until the returned runner is cleaned up."""

    async def healthz(_: web.Request) -> web.Response:
        # That this answers at all says that the event loop runs.
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
