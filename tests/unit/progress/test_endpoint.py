"""The endpoint: who may say something of which run, and what becomes of anything else that comes in."""

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from crossfold_operator import metrics, progress
from crossfold_operator.cluster.base import Key, Obj, Unavailable
from crossfold_operator.names import Kind
from crossfold_operator.progress import CODES, Desk, Outcome, ProgressEndpoint, belongs, current_job
from crossfold_operator.server import Health, serve
from crossfold_operator.tokens import PodIdentity, TooMany
from crossfold_trainer.contract.progress import REPORT_LIMIT, ProgressReport
from tests.ports import own_port
from tests.waiting import PATIENCE_S

REPORT = ProgressReport(digest="x", epoch=1, epochs=3, step=7, fraction=0.4, score=0.5, metrics={"val/loss": 0.1})


def obj(kind: Kind, name: str, owner: str = "", *, namespace: str = "team", **meta: Any) -> Obj:
    owners = [{"controller": True, "kind": "x", "name": "x", "uid": owner}] if owner else []
    return {
        "kind": str(kind),
        "metadata": {"name": name, "namespace": namespace, "uid": f"uid-{name}", "ownerReferences": owners} | meta,
    }


RUN = obj(Kind.TRAIN_RUN, "r")
OBJECTS = [
    RUN,
    obj(Kind.JOB, "r", "uid-r"),
    obj(Kind.POD, "r-old", "uid-r"),  # of another owner that has the run's UID: no Job's
    obj(Kind.JOB, "r-a2", "uid-r"),
    obj(Kind.POD, "r-pod1", "uid-r"),
    obj(Kind.POD, "r-a2-pod", "uid-r-a2"),
    obj(Kind.TRAIN_RUN, "other"),
    obj(Kind.JOB, "other", "uid-other"),
    obj(Kind.POD, "other-pod", "uid-other"),
    obj(Kind.TRAIN_RUN, "r", namespace="away", uid="uid-away"),
    obj(Kind.TRAIN_RUN, "idle"),
]


class Cluster:
    """Objects and their owners."""

    def __init__(self, objects: list[Obj]) -> None:
        self.objects = objects

    def get(self, key: Key) -> Obj | None:
        wanted = (key.kind, key.namespace, key.name)
        found = [o for o in self.objects if (o["kind"], o["metadata"]["namespace"], o["metadata"]["name"]) == wanted]
        return found[0] if found else None

    def children(self, kind: Kind, owner_uid: str) -> list[Obj]:
        return [
            o
            for o in self.objects
            if o["kind"] == kind and any(r["uid"] == owner_uid for r in o["metadata"]["ownerReferences"])
        ]


@pytest.mark.parametrize(
    ("jobs", "current"),
    [
        ([], None),
        (["r"], "r"),
        (["r", "r-a2", "r-a10", "r-a9"], "r-a10"),
        (["r", "r-a1", "r-ax", "rr"], "r"),
    ],
)
def test_the_current_job_is_that_of_the_latest_attempt(jobs: list[str], current: str | None) -> None:
    found = current_job("r", [obj(Kind.JOB, name) for name in jobs])
    assert (found["metadata"]["name"] if found else None) == current


def test_a_job_under_deletion_is_nobodys() -> None:
    doomed = obj(Kind.JOB, "r-a2", deletionTimestamp="2026-01-01T00:00:00Z")
    assert current_job("r", [obj(Kind.JOB, "r"), doomed]) is None


@pytest.mark.parametrize(
    ("pod", "run", "allowed"),
    [
        (PodIdentity("team", "r-a2-pod", "uid-r-a2-pod"), ("team", "r"), True),
        (PodIdentity("team", "other-pod", "uid-other-pod"), ("team", "other"), True),
        # Another run's pod, an earlier attempt's, one of the same name that is gone, another namespace's.
        (PodIdentity("team", "other-pod", "uid-other-pod"), ("team", "r"), False),
        (PodIdentity("team", "r-pod1", "uid-r-pod1"), ("team", "r"), False),
        (PodIdentity("team", "r-a2-pod", "uid-of-another"), ("team", "r"), False),
        (PodIdentity("away", "r-a2-pod", "uid-r-a2-pod"), ("team", "r"), False),
        (PodIdentity("team", "r-a2-pod", "uid-r-a2-pod"), ("away", "r"), False),
        (PodIdentity("team", "r-a2-pod", "uid-r-a2-pod"), ("team", "idle"), False),
    ],
)
def test_who_may_speak_of_a_run(pod: PodIdentity, run: tuple[str, str], allowed: bool) -> None:
    cluster = Cluster(OBJECTS)
    found = cluster.get(Key(Kind.TRAIN_RUN, *run))
    assert found is not None
    assert belongs(pod, found, cluster) is allowed  # type: ignore[arg-type]


# Over HTTP -----------------------------------------------------------------------------------------------------------


class Reviewer:
    """Tokens are the names of pods."""

    async def pod_of(self, token: str) -> PodIdentity | None:
        if token == "flood":
            raise TooMany
        if token == "away":
            raise Unavailable("no answer")
        return PodIdentity("team", token, f"uid-{token}") if token.endswith("pod") else None


class Board:
    def __init__(self) -> None:
        self.taken: list[tuple[Key, str, ProgressReport]] = []

    def put(self, key: Key, uid: str, report: ProgressReport) -> None:
        self.taken.append((key, uid, report))


RUNS_POD = "r-a2-pod"


@dataclass
class Front:
    endpoint: ProgressEndpoint
    board: Board
    url: str
    session: aiohttp.ClientSession

    async def post(
        self, run: str = "team/r", body: Any = None, token: str | None = RUNS_POD, **headers: str
    ) -> tuple[int, str]:
        content = REPORT.text() if body is None else body
        sent = headers if token is None else {"Authorization": f"Bearer {token}", **headers}
        async with self.session.post(f"{self.url}/v1/progress/{run}", data=content, headers=sent) as answer:
            return answer.status, await answer.text()


@pytest.fixture
async def front() -> AsyncIterator[Front]:
    endpoint, board = ProgressEndpoint(), Board()
    port = own_port()
    runner = await serve(Health(), port, endpoint.routes())
    desk = Desk(Cluster(OBJECTS), Reviewer(), board)  # type: ignore[arg-type]
    try:
        async with aiohttp.ClientSession() as session:
            with endpoint.open(desk):
                yield Front(endpoint, board, f"http://127.0.0.1:{port}", session)
    finally:
        await runner.cleanup()


def counted(outcome: Outcome) -> float:
    return metrics.PROGRESS_REPORTS.labels(outcome)._value.get()


async def test_a_report_is_taken(front: Front) -> None:
    before = counted(Outcome.ACCEPTED)
    assert await front.post() == (204, "")
    assert front.board.taken == [(Key(Kind.TRAIN_RUN, "team", "r"), "uid-r", REPORT)]
    assert counted(Outcome.ACCEPTED) == before + 1


HUGE = json.dumps({"digest": "x", "metrics": {f"m{i}": 0.1 for i in range(1000)}}).encode()


@pytest.mark.parametrize(
    ("request_", "outcome", "said"),
    [
        ({"token": None}, Outcome.UNAUTHENTICATED, "bearer token"),
        ({"token": ""}, Outcome.UNAUTHENTICATED, "bearer token"),
        ({"token": None, "Authorization": "Basic eDp5"}, Outcome.UNAUTHENTICATED, "bearer token"),
        ({"token": "pöd"}, Outcome.UNAUTHENTICATED, ""),
        ({"token": "someone"}, Outcome.UNAUTHENTICATED, "audience"),
        ({"token": "other-pod"}, Outcome.FORBIDDEN, "does not train"),
        ({"run": "team/nothing"}, Outcome.FORBIDDEN, "does not train"),
        ({"run": "away/r"}, Outcome.FORBIDDEN, "does not train"),
        ({"run": "%00/%2e%2e%2f"}, Outcome.FORBIDDEN, "does not train"),
        ({"token": "flood"}, Outcome.TOO_MANY, ""),
        ({"token": "away"}, Outcome.UNAVAILABLE, ""),
        ({"body": b""}, Outcome.MALFORMED, "JSON"),
        ({"body": b"\xff\xfe"}, Outcome.MALFORMED, "JSON"),
        ({"body": b"[" * 4000}, Outcome.MALFORMED, "JSON"),
        ({"body": b"null"}, Outcome.MALFORMED, ""),
        ({"body": b"{}"}, Outcome.MALFORMED, "digest"),
        ({"body": REPORT.text().replace(b"0.4", b"4")}, Outcome.MALFORMED, "fraction"),
        ({"body": REPORT.text().replace(b"0.4", b"NaN")}, Outcome.MALFORMED, ""),
        ({"body": REPORT.text().replace(b'"step":7', b'"step":-7')}, Outcome.MALFORMED, "step"),
        ({"body": REPORT.text().replace(b'"step":7', b'"step":7,"phase":"Succeeded"')}, Outcome.MALFORMED, "phase"),
        ({"body": b" " * (REPORT_LIMIT + 1)}, Outcome.TOO_LARGE, ""),
        ({"body": HUGE}, Outcome.TOO_LARGE, ""),
    ],
)
async def test_anything_else_is_turned_away(front: Front, request_: Any, outcome: Outcome, said: str) -> None:
    before = counted(outcome)
    code, text = await front.post(**request_)
    assert code == CODES[outcome]
    assert said in text
    assert counted(outcome) == before + 1
    assert front.board.taken == []


async def test_a_report_of_the_greatest_size_is_taken(front: Front) -> None:
    body = REPORT.text()
    assert (await front.post(body=body + b" " * (REPORT_LIMIT - len(body))))[0] == 204


async def test_who_dawdles_is_turned_away(front: Front, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "READ_SECONDS", 0.05)
    answered = asyncio.Event()

    async def slowly() -> AsyncIterator[bytes]:
        yield b"{"
        await answered.wait()
        yield b"}"

    async with asyncio.timeout(PATIENCE_S):
        assert (await front.post(body=slowly()))[0] == 408
    answered.set()


async def test_no_other_method_and_no_other_place(front: Front) -> None:
    async with front.session.get(f"{front.url}/v1/progress/team/r") as answer:
        assert answer.status == 405
    assert (await front.post(run="team/r/status"))[0] == 404


async def test_who_stands_by_says_so() -> None:
    endpoint = ProgressEndpoint()
    port = own_port()
    runner = await serve(Health(), port, endpoint.routes())
    try:
        async with aiohttp.ClientSession() as session:
            front = Front(endpoint, Board(), f"http://127.0.0.1:{port}", session)
            assert (await front.post())[0] == 503
            with endpoint.open(Desk(Cluster(OBJECTS), Reviewer(), front.board)):  # type: ignore[arg-type]
                assert (await front.post())[0] == 204
            assert (await front.post())[0] == 503
    finally:
        await runner.cleanup()


def test_every_outcome_has_a_code_of_its_own() -> None:
    assert set(CODES) == set(Outcome)
    assert len(set(CODES.values())) == len(CODES)
    assert all(code == 204 or 400 <= code < 500 or code == 503 for code in CODES.values())
    assert isinstance(ProgressEndpoint().routes()[0], web.RouteDef)
