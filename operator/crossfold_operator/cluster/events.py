"""core/v1 Events: recording our own, and reading the warnings of others."""

import hashlib
import logging
import time
from collections import OrderedDict
from dataclasses import dataclass

from crossfold_operator import names
from crossfold_operator.cluster.base import Obj, Unavailable, WarningEvent
from crossfold_operator.cluster.client import MERGE_PATCH, ApiError, ApiServer
from crossfold_operator.times import timestamp

logger = logging.getLogger(__name__)

MAX_MESSAGE = 1024
REPEAT_SECONDS = 60.0
"""The same Event about the same object is counted at most once in this time."""
_REMEMBERED = 10_000
_NAME_LIMIT = 253
_SECONDS = 5.0


@dataclass
class _Sent:
    count: int
    at: float


class EventRecorder:
    """Writes Events. What repeats is one Event with a count, under a name that follows from what it says."""

    def __init__(self, server: ApiServer) -> None:
        self._server = server
        self._sent: OrderedDict[str, _Sent] = OrderedDict()

    async def record(self, regarding: Obj, *, warning: bool, reason: str, message: str) -> None:
        """Record an Event. Best effort: never raises, and never repeats itself within a minute."""
        event = _event(regarding, warning=warning, reason=reason, message=message)
        name, namespace = event["metadata"]["name"], event["metadata"]["namespace"]
        sent, now = self._sent.get(name), time.monotonic()
        if sent is not None and now - sent.at < REPEAT_SECONDS:
            return
        path = f"/api/v1/namespaces/{namespace}/events"
        count = 1
        try:
            if sent is None:
                try:
                    await self._server.request("POST", path, body=event, timeout=_SECONDS)
                except ApiError as error:
                    if error.code != 409:
                        raise
                    count += int((await self._server.request("GET", f"{path}/{name}", timeout=_SECONDS))["count"])
            else:
                count += sent.count
            if count > 1:
                again = {"count": count, "lastTimestamp": event["lastTimestamp"]}
                await self._server.request(
                    "PATCH", f"{path}/{name}", body=again, content_type=MERGE_PATCH, timeout=_SECONDS
                )
        except (ApiError, Unavailable, KeyError, TypeError) as error:
            # The log has it already. An Event that expired meanwhile (404) is written anew the next time.
            self._sent.pop(name, None)
            logger.debug("Event not recorded: %s", error, extra={"reason": reason})
            return
        self._sent[name] = _Sent(count, now)
        if len(self._sent) > _REMEMBERED:
            self._sent.popitem(last=False)


def _event(regarding: Obj, *, warning: bool, reason: str, message: str) -> Obj:
    meta = regarding["metadata"]
    now = timestamp()
    digest = hashlib.sha256("\0".join((meta["uid"], reason, message)).encode()).hexdigest()[:16]
    return {
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {"name": f"{meta['name'][: _NAME_LIMIT - 17]}.{digest}", "namespace": meta["namespace"]},
        "involvedObject": {
            "apiVersion": regarding["apiVersion"],
            "kind": regarding["kind"],
            "name": meta["name"],
            "namespace": meta["namespace"],
            "uid": meta["uid"],
            "resourceVersion": meta.get("resourceVersion", ""),
        },
        "type": "Warning" if warning else "Normal",
        "reason": str(reason),
        "message": message if len(message) <= MAX_MESSAGE else message[: MAX_MESSAGE - 1] + "…",
        "source": {"component": names.FIELD_MANAGER},
        "reportingComponent": names.FIELD_MANAGER,
        "firstTimestamp": now,
        "lastTimestamp": now,
        "count": 1,
    }


async def recent_warnings(server: ApiServer, regarding: Obj) -> list[WarningEvent]:
    """Warning Events about an object, newest first, other than our own.

    Raises:
        ApiError: the API server refused.
        Unavailable: it cannot answer.
    """
    meta = regarding["metadata"]
    answer = await server.request(
        "GET",
        f"/api/v1/namespaces/{meta['namespace']}/events",
        query={"fieldSelector": f"involvedObject.uid={meta['uid']},type=Warning", "limit": "100"},
    )
    events = [e for e in answer.get("items") or [] if e.get("source", {}).get("component") != names.FIELD_MANAGER]
    events.sort(key=_when, reverse=True)
    return [WarningEvent(e.get("reason", ""), e.get("message", "")) for e in events]


def _when(event: Obj) -> str:
    series = event.get("series") or {}
    found = series.get("lastObservedTime") or event.get("lastTimestamp") or event.get("eventTime")
    return str(found or event["metadata"].get("creationTimestamp", ""))
