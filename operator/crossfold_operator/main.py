"""The operator's process: settings, probes, leader election, cache, queue, kopf; from start to SIGTERM."""

import asyncio
import contextlib
import itertools
import logging
import os
import signal
import sys
import threading
import uuid
from collections.abc import Coroutine, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import kopf
import pydantic

from crossfold_operator import handlers, logs, metrics, names
from crossfold_operator.cluster.base import Key, Obj, Unavailable
from crossfold_operator.cluster.client import ApiServer, wait_until_reachable
from crossfold_operator.cluster.kubernetes import KubernetesCluster
from crossfold_operator.cluster.pacing import Pacing
from crossfold_operator.leader import Leader, LeaseLost
from crossfold_operator.live import Board, nothing
from crossfold_operator.observe.metadata import wakes
from crossfold_operator.progress import Desk, ProgressEndpoint
from crossfold_operator.queue import WorkQueue
from crossfold_operator.reconcile.reconciler import Reconciler
from crossfold_operator.server import Health, serve
from crossfold_operator.settings import Settings
from crossfold_operator.tokens import TokenReviewer

logger = logging.getLogger(__name__)

LEASE = "crossfold-operator"
SYNC_RETRY_SECONDS = 3.0
KOPF_RESTART_SECONDS = 5.0
KOPF_END_SECONDS = 3.0
KOPF_THREAD = "kopf"


class QueueMetrics:
    """Hands what happens in the queue to Prometheus."""

    def depth(self, keys: int) -> None:
        """So many keys wait."""
        metrics.QUEUE_DEPTH.set(keys)

    def started(self, key: Key, waited: float) -> None:  # noqa: ARG002 -- the protocol
        """A worker took a key."""
        metrics.QUEUE_WAIT.observe(waited)

    def ended(self, key: Key, seconds: float, error: BaseException | None) -> None:
        """A reconcile ended."""
        metrics.RECONCILE_SECONDS.labels(key.kind).observe(seconds)
        if error is not None:
            metrics.RECONCILE_ERRORS.labels(key.kind, type(error).__name__).inc()


class Backoffs:
    """Seconds between kopf's tries of a request: it never gives up, and never waits long."""

    def __iter__(self) -> Iterator[float]:
        """Begin a new series."""
        yield from (0.5, 1.0, 2.0)
        yield from itertools.repeat(4.0)


def kopf_settings() -> kopf.OperatorSettings:
    """Settings of kopf as a mere transport: it reads and reports, and writes nothing."""
    settings = kopf.OperatorSettings()
    settings.posting.enabled = False
    settings.scanning.disabled = True
    settings.peering.standalone = True
    settings.watching.chunk_size = 500
    settings.queueing.worker_limit = None
    settings.queueing.idle_timeout = 0.5
    settings.queueing.exit_timeout = 0.5
    settings.networking.request_timeout = 60.0
    settings.networking.connect_timeout = 3.0
    settings.networking.trust_env = True
    settings.networking.error_backoffs = Backoffs()
    # It would end the process, whose end is main()'s to decide.
    settings.process.ultimate_exiting_timeout = None
    return settings


async def watch_own_kinds(server: ApiServer, namespace: str, cluster: KubernetesCluster) -> None:
    """Run kopf, and run it again whenever it ends, which it does on errors that it takes for permanent.

    It has a thread of its own: when kopf ends, it cancels every task that began in its event loop after itself.
    """
    loop = asyncio.get_running_loop()

    def relay(event_type: str | None, obj: Obj) -> None:
        # After the loop's end, late events have nobody to go to.
        with contextlib.suppress(RuntimeError):
            loop.call_soon_threadsafe(cluster.observe, event_type, obj)

    async def login() -> Any:
        return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(server.credentials(), loop))

    def work(stop: threading.Event, ended: asyncio.Event) -> None:
        registry = kopf.OperatorRegistry()
        handlers.register(registry, relay, login)
        scope: dict[str, Any] = {"namespaces": [namespace]} if namespace else {"clusterwide": True}
        try:
            asyncio.run(kopf.operator(registry=registry, settings=kopf_settings(), stop_flag=stop, **scope))
        except Exception as error:  # noqa: BLE001 -- told below, and started again
            logger.warning("kopf ended: %r", error)
        finally:
            with contextlib.suppress(RuntimeError):
                loop.call_soon_threadsafe(ended.set)

    while True:
        stop, ended = threading.Event(), asyncio.Event()
        threading.Thread(target=work, args=(stop, ended), name=KOPF_THREAD, daemon=True).start()
        cluster.watch_started()
        try:
            await ended.wait()
        finally:
            stop.set()
        logger.warning("starting kopf again", extra={"seconds": KOPF_RESTART_SECONDS})
        await asyncio.sleep(KOPF_RESTART_SECONDS)


async def first_of(*coroutines: Coroutine[Any, Any, None]) -> None:
    """Run all until the first of them ends, then cancel the others. Raises what it raised."""
    tasks = [asyncio.create_task(c) for c in coroutines]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    for task in done:
        task.result()


async def sync(cluster: KubernetesCluster, health: Health) -> None:
    """Fill the cache, however long it takes."""
    told = ""
    while True:
        try:
            await cluster.sync()
        except Unavailable as error:
            health.becomes(f"waiting for the API server: {error}", ready=False)
            if str(error) != told:
                told = str(error)
                logger.warning("cannot list yet, trying again: %s", error)
            await asyncio.sleep(SYNC_RETRY_SECONDS)
        else:
            return


@dataclass(frozen=True)
class Front:
    """What the outside sees of the operator, whether it works or stands by."""

    health: Health
    progress: ProgressEndpoint


async def work(server: ApiServer, settings: Settings, front: Front, stopping: asyncio.Event) -> None:
    """Reconcile until it is time to stop. All state is made here: a new term of leadership starts from nothing."""
    health = front.health
    # The Lease is renewed over the connection without a limit.
    server = server.paced(Pacing(settings.kube_api_qps, settings.kube_api_burst))

    def on_change(obj: Obj) -> None:
        for key in wakes(obj):
            queue.add(Key(*key))

    cluster = KubernetesCluster(
        server, namespace=settings.namespace, on_change=on_change, resync_seconds=settings.resync_seconds
    )

    def has_news(key: Key) -> None:
        queue.add(key)

    board = Board(settings.progress_seconds, has_news)
    reconciler = Reconciler(cluster, settings, live=board.shown if settings.progress_url else nothing)
    queue = WorkQueue(reconciler, workers=settings.workers, observer=QueueMetrics())
    for kind in names.Kind:
        metrics.OBJECTS.labels(kind).set_function(partial(cluster.count, kind))

    async def stop_gracefully() -> None:
        await stopping.wait()
        queue.stop()
        await asyncio.Event().wait()

    health.becomes("filling the cache", ready=False)
    await sync(cluster, health)
    health.becomes("working", ready=True)
    logger.info("working", extra={"objects": sum(cluster.count(kind) for kind in names.Kind)})
    with front.progress.open(Desk(cluster, TokenReviewer(server), board)):
        await first_of(
            queue.run(), cluster.run(), watch_own_kinds(server, settings.namespace, cluster), stop_gracefully()
        )


def lease_name(settings: Settings) -> str:
    """Operators of different namespaces do not wait for each other, though they may run in the same one."""
    return f"{LEASE}-{settings.namespace}" if settings.namespace else LEASE


async def lead(server: ApiServer, settings: Settings, front: Front, stopping: asyncio.Event) -> None:
    """Stand by until the Lease is ours, work until it is lost; for ever."""
    identity = f"{settings.pod_name}_{uuid.uuid4().hex[:8]}"
    while True:
        leader = Leader(server, namespace=settings.pod_namespace, name=lease_name(settings), identity=identity)
        front.health.becomes("standing by", ready=True)
        await leader.acquire()
        metrics.LEADER.set(1)
        try:
            await first_of(leader.hold(), work(server, settings, front, stopping))
            return
        except LeaseLost as error:
            logger.error("stopped working: %s", error)
        finally:
            metrics.LEADER.set(0)
            await leader.release()


async def operate(settings: Settings) -> None:
    """Run the operator until SIGTERM or SIGINT."""
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)
    health, progress = Health(), ProgressEndpoint()
    front = Front(health, progress)
    probes = await serve(health, settings.http_port, progress.routes()) if settings.http_port else None
    server = await ApiServer.connect()

    async def term() -> None:
        await wait_until_reachable(server)
        await (lead if settings.leader_election else work)(server, settings, front, stopping)

    async def until_stopped() -> None:
        await stopping.wait()
        # A standby has nothing to finish; what is worked on ends by itself.
        if health.state != "working":
            return
        await asyncio.Event().wait()

    try:
        metrics.BUILD.labels(version := metrics.version_of_this()).set(1)
        logger.info("started", extra={"version": version, "namespace": settings.namespace or "(all)"})
        await first_of(term(), until_stopped())
        logger.info("stopped")
    finally:
        await server.close()
        if probes:
            await probes.cleanup()


def main() -> None:
    """Start the operator with settings from the environment."""
    try:
        settings = Settings.from_environment(os.environ)
    except pydantic.ValidationError as error:
        sys.exit(f"crossfold-operator: bad settings: {error}")
    logs.setup(form=settings.log_format, level=settings.log_level)
    asyncio.run(operate(settings))
    for thread in threading.enumerate():
        if thread.name == KOPF_THREAD:
            thread.join(KOPF_END_SECONDS)


if __name__ == "__main__":
    main()
