"""Live progress: the HTTP endpoint that running trainers report to. Whatever comes in, nothing but an answer goes out.

``POST /v1/progress/{namespace}/{run}`` with a ProgressReport as JSON and, as bearer token, the one that the kubelet
issued to the pod for this audience. A pod can say something of its own run alone, and of that only while it belongs to
its current Job.
"""

import asyncio
import logging
from collections.abc import Coroutine, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, TypeVar

from aiohttp import web
from pydantic import ValidationError

from crossfold_operator import metrics, names
from crossfold_operator.cluster.base import Cluster, Key, Obj, Unavailable
from crossfold_operator.live import Board
from crossfold_operator.names import Kind
from crossfold_operator.observe.metadata import is_deleting
from crossfold_operator.tokens import PodIdentity, TokenReviewer, TooMany
from crossfold_trainer.contract.progress import ProgressReport

logger = logging.getLogger(__name__)

T = TypeVar("T")

PATH = "/v1/progress/{namespace}/{run}"
READ_SECONDS = 5.0
"""How long a sender may take over its few bytes."""


class Outcome(StrEnum):
    """What became of a report: the label of its metric."""

    ACCEPTED = "accepted"
    MALFORMED = "malformed"
    UNAUTHENTICATED = "unauthenticated"
    FORBIDDEN = "forbidden"
    TOO_SLOW = "too_slow"
    TOO_LARGE = "too_large"
    TOO_MANY = "too_many"
    UNAVAILABLE = "unavailable"


CODES = {
    Outcome.ACCEPTED: 204,
    Outcome.MALFORMED: 400,
    Outcome.UNAUTHENTICATED: 401,
    Outcome.FORBIDDEN: 403,
    Outcome.TOO_SLOW: 408,
    Outcome.TOO_LARGE: 413,
    Outcome.TOO_MANY: 429,
    Outcome.UNAVAILABLE: 503,
}


class _Rejected(Exception):
    def __init__(self, outcome: Outcome, why: str) -> None:
        super().__init__(why)
        self.outcome = outcome


@dataclass(frozen=True)
class Desk:
    """Where reports go while this operator works."""

    cluster: Cluster
    reviewer: TokenReviewer
    board: Board


class ProgressEndpoint:
    """Answers reports; while nobody works here (it stands by), it says so and they try elsewhere."""

    def __init__(self) -> None:
        self._desk: Desk | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        """Of the thread that works; the one that serves requests may be another."""
        self._told = ""

    def routes(self) -> list[web.RouteDef]:
        """What the operator's HTTP server serves of it."""
        return [web.post(PATH, self._post)]

    @contextmanager
    def open(self, desk: Desk) -> Iterator[None]:
        """Take reports in here."""
        self._desk, self._loop = desk, asyncio.get_running_loop()
        try:
            yield
        finally:
            self._desk = self._loop = None

    async def _post(self, request: web.Request) -> web.Response:
        outcome, why = Outcome.ACCEPTED, ""
        try:
            await self._take(request)
        except _Rejected as rejected:
            outcome, why = rejected.outcome, f"{rejected}\n"
        metrics.PROGRESS_REPORTS.labels(outcome).inc()
        return web.Response(status=CODES[outcome], text=why or None)

    async def _take(self, request: web.Request) -> None:
        desk, loop = self._desk, self._loop
        if desk is None or loop is None:
            raise _Rejected(Outcome.UNAVAILABLE, "this operator stands by")
        key = Key(Kind.TRAIN_RUN, request.match_info["namespace"], request.match_info["run"])
        uid = await _there(loop, self._admitted(desk, request.headers.get("Authorization", ""), key))
        report = await _report(request)
        await _there(loop, _put(desk, key, uid, report))

    async def _admitted(self, desk: Desk, authorization: str, key: Key) -> str:
        """The UID of the run of which the sender may report."""
        pod = await self._sender(desk.reviewer, authorization)
        run = desk.cluster.get(key)
        if run is None or not belongs(pod, run, desk.cluster):
            raise _Rejected(Outcome.FORBIDDEN, f"pod {pod.namespace}/{pod.name} does not train {key} now")
        return str(run["metadata"]["uid"])

    async def _sender(self, reviewer: TokenReviewer, authorization: str) -> PodIdentity:
        scheme, _, token = authorization.partition(" ")
        if scheme.lower() != "bearer" or not token.strip() or not token.isascii():
            raise _Rejected(Outcome.UNAUTHENTICATED, "a bearer token is needed")
        try:
            pod = await reviewer.pod_of(token.strip())
        except TooMany:
            raise _Rejected(Outcome.TOO_MANY, "too many tokens are being reviewed") from None
        except Unavailable as error:
            if str(error) != self._told:
                self._told = str(error)
                logger.warning("live progress is not taken: %s", error)
            raise _Rejected(Outcome.UNAVAILABLE, "tokens cannot be reviewed now") from None
        self._told = ""
        if pod is None:
            raise _Rejected(Outcome.UNAUTHENTICATED, "the token is not one of a pod for this audience")
        return pod


async def _there(loop: asyncio.AbstractEventLoop, work: Coroutine[Any, Any, T]) -> T:
    """Do something on the event loop that works.

    Raises:
        _Rejected: it has come to its end.
    """
    if loop is asyncio.get_running_loop():
        return await work
    try:
        return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(work, loop))
    except (RuntimeError, asyncio.CancelledError):
        task = asyncio.current_task()
        if task is not None and task.cancelling():
            raise
        work.close()
        raise _Rejected(Outcome.UNAVAILABLE, "this operator has stopped working") from None


async def _put(desk: Desk, key: Key, uid: str, report: ProgressReport) -> None:
    desk.board.put(key, uid, report)


async def _report(request: web.Request) -> ProgressReport:
    try:
        async with asyncio.timeout(READ_SECONDS):
            body = await request.read()
        return ProgressReport.model_validate_json(body)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False, include_context=False)[0]
        field = ".".join(str(part) for part in first["loc"])
        raise _Rejected(Outcome.MALFORMED, f"{field}: {first['msg']}".removeprefix(": ")) from None
    except TimeoutError:
        raise _Rejected(Outcome.TOO_SLOW, f"the report took more than {READ_SECONDS:g} s") from None
    except web.HTTPRequestEntityTooLarge:
        raise _Rejected(Outcome.TOO_LARGE, "the report is too large") from None
    except OSError as error:
        raise _Rejected(Outcome.MALFORMED, f"the report broke off: {error}") from None


def belongs(pod: PodIdentity, run: Obj, cluster: Cluster) -> bool:
    """Whether a pod, by name and UID, is one of the current Job of a run."""
    meta = run["metadata"]
    if pod.namespace != meta["namespace"]:
        return False
    job = current_job(meta["name"], cluster.children(Kind.JOB, meta["uid"]))
    if job is None:
        return False
    pods = cluster.children(Kind.POD, job["metadata"]["uid"])
    return any((p["metadata"]["name"], p["metadata"]["uid"]) == (pod.name, pod.uid) for p in pods)


def current_job(run: str, jobs: Sequence[Obj]) -> Obj | None:
    """The Job of a run's latest attempt, unless it is being deleted."""
    numbered = [(number, job) for job in jobs if (number := names.attempt_of(run, job["metadata"]["name"]))]
    _, latest = max(numbered, key=lambda pair: pair[0], default=(0, None))
    return None if latest is None or is_deleting(latest) else latest
