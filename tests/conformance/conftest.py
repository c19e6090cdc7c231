"""The implementations of the Cluster protocol, each with the world behind it.

A new implementation is one more `Open` function in IMPLEMENTATIONS.
"""

import asyncio
import json
import sys
import threading
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from crossfold_operator.cluster.base import Cluster, Key, Obj, OnChange, WarningEvent
from crossfold_operator.cluster.local import LocalCluster
from crossfold_operator.cluster.slots import Slot
from tests.controlplane import ControlPlane

SLEEP = (sys.executable, "-c", "import time; time.sleep(300)")


@dataclass
class World:
    """One implementation, and what lies behind it."""

    cluster: Cluster
    namespace: str
    changes: list[Obj]
    """All objects that were reported to on_change."""
    someone_patches: Callable[[Key, dict[str, Any]], Awaitable[None]]
    """Somebody else merge-patches an object."""
    someone_deletes: Callable[[Key], Awaitable[None]]
    """Somebody else deletes an object."""
    someone_warns: Callable[[Obj, str, str], Awaitable[list[WarningEvent]]]
    """Somebody else records a Warning Event about an object; what the cluster then tells of it, if it has Events."""
    reopen: Callable[[], Awaitable[Cluster]]
    """End the cluster as a process ends, and open another one over the same objects."""


Factory = Callable[[], AbstractAsyncContextManager[World]]


@dataclass
class _Opened:
    close: Callable[[], Awaitable[None]]
    cluster: Any
    tasks: list[Any] = field(default_factory=list)


@pytest.fixture
def kubernetes_factory(control_plane: ControlPlane, monkeypatch: pytest.MonkeyPatch) -> Iterator[Factory]:
    """KubernetesCluster over a real API server, with the operator's own watches."""
    kubectl, namespace = control_plane.kubectl, f"conformance-{uuid.uuid4().hex[:8]}"
    kubectl("create", "namespace", namespace)
    kubectl("wait", "--for=create", "--timeout=180s", "-n", namespace, "serviceaccount/default")
    monkeypatch.setenv("KUBECONFIG", str(control_plane.kubeconfig))
    from crossfold_operator.cluster.client import ApiServer
    from crossfold_operator.cluster.kubernetes import KubernetesCluster
    from crossfold_operator.main import watch_own_kinds

    async def open_one(on_change: OnChange) -> _Opened:
        server = await ApiServer.connect()
        cluster = KubernetesCluster(server, namespace=namespace, on_change=on_change, resync_seconds=3600)
        await cluster.sync()
        tasks = [asyncio.create_task(c) for c in (cluster.run(), watch_own_kinds(server, namespace, cluster))]

        async def close() -> None:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await server.close()

        return _Opened(close, cluster)

    def target(key: Key) -> tuple[str, ...]:
        return ("-n", key.namespace, key.kind.lower(), key.name)

    async def patches(key: Key, patch: dict[str, Any]) -> None:
        await asyncio.to_thread(kubectl, "patch", *target(key), "--type=merge", "-p", json.dumps(patch))

    async def deletes(key: Key) -> None:
        await asyncio.to_thread(kubectl, "delete", *target(key), "--wait=false")

    async def warns(obj: Obj, reason: str, message: str) -> list[WarningEvent]:
        meta = obj["metadata"]
        about = {"apiVersion": obj["apiVersion"], "kind": obj["kind"], "namespace": namespace}
        event = {
            "apiVersion": "v1",
            "kind": "Event",
            "metadata": {"generateName": "warning-", "namespace": namespace},
            "involvedObject": {**about, "name": meta["name"], "uid": meta["uid"]},
            "type": "Warning",
            "reason": reason,
            "message": message,
            "source": {"component": "kubelet"},
        }
        await asyncio.to_thread(kubectl, "create", "-f", "-", stdin=event)
        return [WarningEvent(reason, message)]

    yield _factory(open_one, namespace, patches, deletes, warns)
    kubectl("delete", "namespace", namespace, "--wait=false")


@pytest.fixture
def local_factory(tmp_path: Path) -> Factory:
    """LocalCluster in a folder; its processes sleep."""
    current: list[LocalCluster] = []

    async def open_one(on_change: OnChange) -> _Opened:
        cluster = LocalCluster(tmp_path, [Slot(i) for i in range(4)], on_change=on_change, command=SLEEP)
        await cluster.start()
        current[:] = [cluster]
        return _Opened(cluster.stop, cluster)

    async def patches(key: Key, patch: dict[str, Any]) -> None:
        obj = current[0].get(key)
        assert obj is not None
        await current[0].patch(key, obj["metadata"]["uid"], patch)

    async def deletes(key: Key) -> None:
        obj = current[0].get(key)
        assert obj is not None
        await current[0].delete(key, obj["metadata"]["uid"])

    async def warns(obj: Obj, reason: str, message: str) -> list[WarningEvent]:
        return []  # one machine has no Events: what keeps a process from starting is in its pod's status

    return _factory(open_one, "default", patches, deletes, warns)


def _factory(
    open_one: Callable[[OnChange], Awaitable[_Opened]],
    namespace: str,
    patches: Callable[[Key, dict[str, Any]], Awaitable[None]],
    deletes: Callable[[Key], Awaitable[None]],
    warns: Callable[[Obj, str, str], Awaitable[list[WarningEvent]]],
) -> Factory:
    @asynccontextmanager
    async def make() -> AsyncIterator[World]:
        changes: list[Obj] = []
        opened = [await open_one(changes.append)]

        async def reopen() -> Cluster:
            await opened[0].close()
            changes.clear()
            opened[0] = await open_one(changes.append)
            world.cluster = opened[0].cluster
            return world.cluster

        world = World(opened[0].cluster, namespace, changes, patches, deletes, warns, reopen)
        try:
            yield world
        finally:
            await opened[0].close()
            for thread in threading.enumerate():
                if thread.name == "kopf":
                    await asyncio.to_thread(thread.join, 10)

    return make


IMPLEMENTATIONS = (pytest.param("kubernetes", marks=pytest.mark.cluster), pytest.param("local"))


@pytest.fixture(params=IMPLEMENTATIONS)
def cluster_factory(request: pytest.FixtureRequest) -> Factory:
    """Opens a world of the implementation under test."""
    factory: Factory = request.getfixturevalue(f"{request.param}_factory")
    return factory


@pytest.fixture
async def world(cluster_factory: Factory) -> AsyncIterator[World]:
    """The implementation under test, with an empty world behind it."""
    async with cluster_factory() as opened:
        yield opened
