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
from collections.abc import Callable, Coroutine, Iterator
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
from crossfold_operator.queue import Spacing, WorkQueue
from crossfold_operator.reconcile.reconciler import Reconciler
from crossfold_operator.server import Health, serve
from crossfold_operator.settings import Settings
from crossfold_operator.tokens import TokenReviewer
from crossfold_operator.workers.pool import SearchPool

logger = logging.getLogger(__name__)

LEASE = "crossfold-operator"
SYNC_RETRY_SECONDS = 3.0
KOPF_RESTART_SECONDS = 5.0
KOPF_END_SECONDS = 3.0
KOPF_THREAD = "kopf"
WORK_THREAD = "work"
BEAT_SECONDS = 1.0
STOP_SECONDS = 12.0
"""That the work may take to end after SIGTERM, within what a pod has for it."""
END_SECONDS = 3.0
"""That are waited for it once more when it was cancelled after that."""


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


async def work(settings: Settings, front: Front, stopping: asyncio.Event, may_write: Callable[[], bool]) -> None:
    """Reconcile until it is time to stop. All state is made here: a new term of leadership starts from nothing."""
    health = front.health
    # The Lease is renewed over a connection of its own, without a limit.
    server = (await ApiServer.connect(may_write)).paced(Pacing(settings.kube_api_qps, settings.kube_api_burst))
    pool = SearchPool(size=settings.search_workers, seconds=settings.search_seconds)

    def on_change(obj: Obj) -> None:
        for key in wakes(obj):
            queue.add(Key(*key))

    cluster = KubernetesCluster(
        server, namespace=settings.namespace, on_change=on_change, resync_seconds=settings.resync_seconds
    )

    def wake(key: Key) -> None:
        queue.add(key)

    board = Board(settings.progress_seconds, wake)
    live = board.shown if settings.progress_url else nothing
    reconciler = Reconciler(cluster, settings, live=live, search=pool, wake=wake)
    queue = WorkQueue(
        reconciler,
        workers=settings.workers,
        observer=QueueMetrics(),
        owner=partial(owner_of, cluster),
        spacing=Spacing(),
        deadline=settings.reconcile_seconds,
        tell=reconciler.tell,
    )

    async def stop_gracefully() -> None:
        await stopping.wait()
        queue.stop()
        await asyncio.Event().wait()

    for kind in names.Kind:
        metrics.OBJECTS.labels(kind).set_function(partial(cluster.count, kind))
    try:
        health.becomes("filling the cache", ready=False)
        await sync(cluster, health)
        health.becomes("working", ready=True)
        logger.info("working", extra={"objects": sum(cluster.count(kind) for kind in names.Kind)})
        with front.progress.open(Desk(cluster, TokenReviewer(server), board)):
            await first_of(
                queue.run(), cluster.run(), watch_own_kinds(server, settings.namespace, cluster), stop_gracefully()
            )
    finally:
        await pool.close()
        await server.close()


def owner_of(cluster: KubernetesCluster, key: Key) -> tuple[str, str]:
    """The namespace of an object, and the root that it belongs to: these take turns."""
    labels = ((cluster.get(key) or {}).get("metadata") or {}).get("labels") or {}
    if tune := labels.get(names.LABEL_TUNE):
        return key.namespace, f"{names.Kind.TUNE}/{tune}"
    if cross_validation := labels.get(names.LABEL_CROSS_VALIDATION):
        return key.namespace, f"{names.Kind.CROSS_VALIDATION}/{cross_validation}"
    return key.namespace, f"{key.kind}/{key.name}"


class Term:
    """The work between becoming the leader and being it no more, on an event loop in a thread of its own.

    However long something keeps that loop, the Lease and the probes do not wait for it.
    """

    def __init__(self, settings: Settings, front: Front, may_write: Callable[[], bool] = lambda: True) -> None:
        self._settings = settings
        self._front = front
        self._may_write = may_write
        self._inner: asyncio.AbstractEventLoop | None = None
        self._task: asyncio.Task[None] | None = None
        self._stopping: asyncio.Event | None = None
        self._to_stop = self._to_end = False

    async def run(self, stopping: asyncio.Event) -> None:
        """Work until it is time to stop; cancelled, as soon as the other thread comes to hear of it."""
        loop = asyncio.get_running_loop()
        ended: asyncio.Future[None] = loop.create_future()

        def end(error: BaseException | None) -> None:
            if ended.done():
                return
            if error is None or isinstance(error, asyncio.CancelledError):
                ended.set_result(None)
            else:
                ended.set_exception(error)

        def work_in_thread() -> None:
            error: BaseException | None = None
            try:
                asyncio.run(self._work())
            except BaseException as raised:  # noqa: BLE001 -- handed on
                error = raised
            # After the loop's end nobody waits for it.
            with contextlib.suppress(RuntimeError):
                loop.call_soon_threadsafe(end, error)

        threading.Thread(target=work_in_thread, name=WORK_THREAD, daemon=True).start()
        stopper = asyncio.create_task(self._stop_when(stopping))
        try:
            await asyncio.shield(ended)
        except asyncio.CancelledError:
            self._to_end = True
            self._call(self._cancel)
            # Nothing is written from now on; a new term must not begin beside this one.
            await asyncio.wait([ended], timeout=END_SECONDS if stopping.is_set() else None)
            raise
        finally:
            stopper.cancel()
            self._front.health.rest()

    async def _work(self) -> None:
        self._task = asyncio.current_task()
        self._stopping = asyncio.Event()
        self._inner = asyncio.get_running_loop()
        # Whoever asked before this loop was there could not reach it.
        if self._to_end:
            return
        if self._to_stop:
            self._stopping.set()
        self._front.health.beat()
        await first_of(work(self._settings, self._front, self._stopping, self._may_write), self._beat())

    async def _beat(self) -> None:
        while True:
            self._front.health.beat()
            await asyncio.sleep(BEAT_SECONDS)

    async def _stop_when(self, stopping: asyncio.Event) -> None:
        await stopping.wait()
        self._to_stop = True
        self._call(self._stop)

    def _stop(self) -> None:
        if self._stopping is not None:
            self._stopping.set()

    def _cancel(self) -> None:
        if self._task is not None:
            self._task.cancel()

    def _call(self, what: Callable[[], object]) -> None:
        """Have something done by the other thread."""
        if self._inner is not None:
            with contextlib.suppress(RuntimeError):
                self._inner.call_soon_threadsafe(what)


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
            await first_of(leader.hold(), Term(settings, front, leader.held).run(stopping))
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
    metrics.LOOP_SILENCE.set_function(lambda: health.silent_seconds)
    server = await ApiServer.connect()

    async def term() -> None:
        await wait_until_reachable(server)
        if settings.leader_election:
            await lead(server, settings, front, stopping)
        else:
            await Term(settings, front).run(stopping)

    async def until_stopped() -> None:
        await stopping.wait()
        # A standby has nothing to finish; what is worked on ends by itself, or is not waited for.
        if health.state != "working":
            return
        await asyncio.sleep(STOP_SECONDS)

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
