"""Leader election by a Lease: at most one operator works at a time.

It needs no equal clocks: a leader stops working 10 s after it began its last successful renewal, and nobody takes a
Lease over before having seen it unchanged for 15 s, each by its own monotonic clock.

The Lease is renewed on an event loop of its own, which waits for no work; what works in another thread asks ``held``
before each write, so that a thread that comes to itself too late writes nothing.
"""

import asyncio
import logging
import math
import time
from collections.abc import Callable
from datetime import UTC, datetime

from crossfold_operator.cluster.base import Obj, Unavailable
from crossfold_operator.cluster.client import ApiError, ApiServer

logger = logging.getLogger(__name__)

LEASE_SECONDS = 15
RENEW_WITHIN_SECONDS = 10.0
RETRY_SECONDS = 2.0
CALL_SECONDS = 3.0


class LeaseLost(Exception):
    """The Lease was not renewed in time, or another process has it: stop working now."""


class Leader:
    """Acquires, holds and releases one Lease."""

    def __init__(self, server: ApiServer, *, namespace: str, name: str, identity: str) -> None:
        self._server = server
        self._path = f"/apis/coordination.k8s.io/v1/namespaces/{namespace}/leases"
        self._name = name
        self._identity = identity
        self._other = ""
        """Who else holds the Lease, as last seen."""
        self._unchanged = ("", 0.0)
        """Version of another's Lease, and when this process first saw it."""
        self._clock: Callable[[], float] = time.monotonic
        """Of the event loop that renews it."""
        self._renewed = -math.inf
        """When the last successful renewal began."""

    def held(self) -> bool:
        """Whether the Lease is surely this process's now. Any thread may ask."""
        return self._clock() < self._renewed + RENEW_WITHIN_SECONDS

    async def acquire(self) -> None:
        """Return once this process holds the Lease."""
        told = None
        self._clock = asyncio.get_running_loop().time
        while not await self._try():
            if self._other != told:
                told = self._other
                logger.info("standing by", extra={"leader": told})
            await asyncio.sleep(RETRY_SECONDS)
        logger.info("leading", extra={"identity": self._identity})

    async def hold(self) -> None:
        """Renew for ever.

        Raises:
            LeaseLost: it was not renewed for 10 s, or another process has it.
        """
        try:
            await self._renew()
        finally:
            self._renewed = -math.inf

    async def _renew(self) -> None:
        while True:
            try:
                async with asyncio.timeout(self._renewed + RENEW_WITHIN_SECONDS - _now()):
                    await asyncio.sleep(RETRY_SECONDS)
                    if await self._try():
                        continue
            except TimeoutError:
                raise LeaseLost(f"the Lease was not renewed for {RENEW_WITHIN_SECONDS:g} s") from None
            if self._other:
                raise LeaseLost(f"{self._other} has taken the Lease")

    async def release(self) -> None:
        """Empty the holder, so that another process can take over at once. Best effort. Nothing is written from now."""
        self._renewed = -math.inf
        try:
            lease = await self._call("GET", f"{self._path}/{self._name}")
            if lease["spec"].get("holderIdentity") == self._identity:
                await self._put(lease, holder="")
        except (ApiError, Unavailable) as error:
            logger.warning("the Lease was not released: %s", error)

    async def _try(self) -> bool:
        """Take or renew the Lease. False when that is not possible (now); _other says whether somebody has it."""
        began = _now()
        if not await self._taken():
            return False
        self._other, self._renewed = "", began
        return True

    async def _taken(self) -> bool:
        try:
            lease = await self._call("GET", f"{self._path}/{self._name}")
            holder = lease["spec"].get("holderIdentity") or ""
            self._other = holder if holder != self._identity else ""
            if self._other and not self._expired(lease):
                return False
            await self._put(lease, holder=self._identity)
        except ApiError as error:
            if error.code == 404:
                return await self._create()
            if error.code != 409:
                logger.warning("the Lease cannot be taken: %s", error)
            return False
        except Unavailable as error:
            logger.debug("the Lease cannot be reached: %s", error)
            return False
        return True

    async def _create(self) -> bool:
        lease: Obj = {
            "apiVersion": "coordination.k8s.io/v1",
            "kind": "Lease",
            "metadata": {"name": self._name},
            "spec": self._spec({}, self._identity),
        }
        try:
            await self._call("POST", self._path, lease)
        except (ApiError, Unavailable) as error:
            logger.log(
                logging.DEBUG if isinstance(error, Unavailable) or error.code == 409 else logging.WARNING,
                "the Lease cannot be created: %s",
                error,
            )
            return False
        return True

    async def _put(self, lease: Obj, *, holder: str) -> None:
        # The resourceVersion inside makes this fail with 409 when anybody was faster.
        await self._call("PUT", f"{self._path}/{self._name}", {**lease, "spec": self._spec(lease["spec"], holder)})

    async def _call(self, verb: str, path: str, body: Obj | None = None) -> Obj:
        return await self._server.request(verb, path, body=body, timeout=CALL_SECONDS)

    def _spec(self, old: Obj, holder: str) -> Obj:
        now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        spec = {**old, "holderIdentity": holder, "leaseDurationSeconds": LEASE_SECONDS, "renewTime": now}
        if holder != old.get("holderIdentity") and holder:
            spec |= {"acquireTime": now, "leaseTransitions": old.get("leaseTransitions", -1) + 1}
        return spec

    def _expired(self, lease: Obj) -> bool:
        """Whether another's Lease was seen unchanged for as long as it is valid."""
        version, now = lease["metadata"]["resourceVersion"], _now()
        if version != self._unchanged[0]:
            self._unchanged = (version, now)
        return now - self._unchanged[1] >= max(LEASE_SECONDS, lease["spec"].get("leaseDurationSeconds") or 0)


def _now() -> float:
    # The loop's clock is the monotonic one.
    return asyncio.get_running_loop().time()
