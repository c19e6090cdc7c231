"""List and watch one kind of object, for ever: the transport of the mass kinds, and the lists of all kinds."""

import asyncio
import logging
from collections.abc import AsyncIterator
from typing import NoReturn, Protocol

from crossfold_operator import metrics
from crossfold_operator.cluster import paths
from crossfold_operator.cluster.base import Obj, Unavailable
from crossfold_operator.cluster.client import ApiError, ApiServer
from crossfold_operator.names import Kind

logger = logging.getLogger(__name__)

PAGE = 500
_LIST_SECONDS = 60.0
# The server ends a watch after this time, and sends a bookmark every minute: silence beyond it is a dead connection.
_WATCH_SECONDS = 290
_IDLE_SECONDS = 90.0
_PAUSE = 0.1
_FIRST_DELAY, _LAST_DELAY = 0.5, 15.0
_GONE = 410


class Sink(Protocol):
    """Takes what a list or a watch brings."""

    def listed(self, kind: Kind, page: list[Obj]) -> None:
        """Objects of a list, page by page."""
        ...

    def list_ended(self, kind: Kind, version: int, seen: set[tuple[str, str]]) -> None:
        """All objects were listed, as of this version; seen are the namespaces and names of them."""
        ...

    def observe(self, event_type: str | None, obj: Obj) -> None:
        """One event of a watch."""
        ...


class ListWatch:
    """Lists and watches the objects of one kind. Nothing that a watch missed stays unseen: it lists again."""

    def __init__(self, server: ApiServer, kind: Kind, namespace: str, selector: str, sink: Sink) -> None:
        self._server = server
        self._kind = kind
        self._path = paths.collection(kind, namespace)
        self._query = {"labelSelector": selector} if selector else {}
        self._sink = sink
        self._version = ""

    async def list(self) -> None:
        """List all objects, in pages of one consistent snapshot.

        Raises:
            Unavailable: the API server cannot answer, or does not know the kind (yet).
        """
        seen: set[tuple[str, str]] = set()
        version = ""
        async for page in self._pages():
            version = page["metadata"]["resourceVersion"]
            items: list[Obj] = page.get("items") or []
            seen.update((item["metadata"].get("namespace", ""), item["metadata"]["name"]) for item in items)
            self._sink.listed(self._kind, items)
        self._sink.list_ended(self._kind, int(version), seen)
        self._version = version

    async def run(self) -> None:
        """Watch for ever. Lists first unless it was done already, and again whenever the history is lost."""
        delay = _FIRST_DELAY
        while True:
            before = self._version
            try:
                if not self._version:
                    await self.list()
                reason = await self._watch()
                delay = _FIRST_DELAY
            except Unavailable as error:
                reason = "unavailable"
                if self._version != before:
                    delay = _FIRST_DELAY
                # Told once per interruption: the first delay says that it worked before.
                level = logging.WARNING if delay == _FIRST_DELAY else logging.DEBUG
                logger.log(level, "watch interrupted: %s", error, extra={"kind": self._kind})
            except Exception:
                # A watch must never end: start over from a list.
                reason, self._version = "error", ""
                logger.exception("watch failed", extra={"kind": self._kind})
            metrics.WATCH_RESTARTS.labels(self._kind, reason).inc()
            if reason == "ended":
                # A server (or a proxy) that ends watches at once is not to be stormed.
                await asyncio.sleep(_PAUSE)
            else:
                await asyncio.sleep(delay)
                delay = min(2 * delay, _LAST_DELAY)

    async def _pages(self) -> AsyncIterator[Obj]:
        query = {**self._query, "limit": str(PAGE)}
        while True:
            try:
                page = await self._server.request("GET", self._path, query=query, timeout=_LIST_SECONDS)
            except ApiError as error:
                # 404: the CRD is not there (yet). 403: the rights are not there (yet). 410: the pages expired.
                raise Unavailable(f"list of {self._path}: {error}") from error
            yield page
            if not (following := page["metadata"].get("continue")):
                return
            query["continue"] = following

    async def _watch(self) -> str:
        """Watch from the last version on. Returns why it ended."""
        query = {
            **self._query,
            "watch": "true",
            "allowWatchBookmarks": "true",
            "resourceVersion": self._version,
            "timeoutSeconds": str(_WATCH_SECONDS),
        }
        try:
            async for event in self._server.stream(self._path, query, idle=_IDLE_SECONDS):
                if event["type"] == "ERROR":
                    _raise(event["object"])
                self._version = event["object"]["metadata"]["resourceVersion"]
                if event["type"] != "BOOKMARK":
                    self._sink.observe(event["type"], paths.slim(self._kind, event["object"]))
        except ApiError as error:
            if error.code != _GONE:
                raise Unavailable(f"watch of {self._path}: {error}") from error
            self._version = ""
            return "gone"
        return "ended"


def _raise(status: Obj) -> NoReturn:
    raise ApiError(int(status.get("code", 500)), status.get("reason", ""), status.get("message", ""))
