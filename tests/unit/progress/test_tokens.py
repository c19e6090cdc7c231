"""Whom an answered TokenReview vouches for, and how often one is asked for."""

import asyncio
from typing import Any

import pytest

from crossfold_operator import tokens
from crossfold_operator.cluster.base import Unavailable
from crossfold_operator.cluster.client import ApiError
from crossfold_operator.tokens import PodIdentity, TokenReviewer, TooMany, identity
from crossfold_trainer.contract.progress import AUDIENCE

POD = PodIdentity("team", "run-abc", "uid-1")


def answered(**changes: Any) -> dict[str, Any]:
    extra = {
        "authentication.kubernetes.io/pod-name": ["run-abc"],
        "authentication.kubernetes.io/pod-uid": ["uid-1"],
        "authentication.kubernetes.io/credential-id": ["JTI=1"],
    }
    user = {"username": "system:serviceaccount:team:default", "uid": "sa", "extra": extra | changes.pop("extra", {})}
    status = {"authenticated": True, "audiences": [AUDIENCE], "user": user | changes.pop("user", {})}
    return {"kind": "TokenReview", "spec": {}, "status": status | changes}


def test_a_token_of_a_pod_for_us() -> None:
    assert identity(answered()) == POD


@pytest.mark.parametrize(
    "review",
    [
        answered(authenticated=False),
        answered(authenticated="true"),
        answered(audiences=["https://kubernetes.default.svc"]),
        answered(audiences=[]),
        answered(audiences=None),
        answered(user={"username": "alice"}),
        answered(user={"username": "system:node:n1"}),
        answered(user={"username": ""}),
        answered(user={"extra": None}),
        answered(extra={"authentication.kubernetes.io/pod-name": []}),
        answered(extra={"authentication.kubernetes.io/pod-uid": None}),
        answered(extra={"authentication.kubernetes.io/pod-uid": ["a", "b"]}),
        {"status": {"error": "token is expired"}},
        {"status": None},
        {},
    ],
)
def test_anything_else_is_nobody(review: dict[str, Any]) -> None:
    assert identity(review) is None


class Server:
    """Answers reviews by what the token says."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.bodies: list[Any] = []
        self.held: asyncio.Event | None = None

    async def request(self, verb: str, path: str, *, body: Any, timeout: float) -> Any:  # noqa: ASYNC109
        assert (verb, path) == ("POST", "/apis/authentication.k8s.io/v1/tokenreviews")
        token = body["spec"]["token"]
        self.asked.append(token)
        self.bodies.append(body)
        if self.held:
            await self.held.wait()
        if token == "forbidden":
            raise ApiError(403, "Forbidden", "tokenreviews is forbidden")
        if token == "away":
            raise Unavailable("no answer")
        return answered() if token == "good" else answered(authenticated=False)


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def reviewer() -> tuple[TokenReviewer, Server, Clock]:
    server, clock = Server(), Clock()
    return TokenReviewer(server, clock), server, clock  # type: ignore[arg-type]


async def test_each_token_is_asked_about_once_in_a_while() -> None:
    review, server, clock = reviewer()
    for _ in range(3):
        assert await review.pod_of("good") == POD
        assert await review.pod_of("bad") is None
    assert server.asked == ["good", "bad"]
    assert server.bodies[0]["spec"] == {"token": "good", "audiences": [AUDIENCE]}
    clock.now = tokens.UNKNOWN_SECONDS + 1
    assert await review.pod_of("bad") is None
    assert await review.pod_of("good") == POD
    clock.now = tokens.KNOWN_SECONDS + 1
    assert await review.pod_of("good") == POD
    assert server.asked == ["good", "bad", "bad", "good"]


async def test_memory_is_bounded_and_holds_no_token(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tokens, "REMEMBERED", 2)
    review, server, _ = reviewer()
    for token in ("good", "b", "c", "good"):
        await review.pod_of(token)
    assert server.asked == ["good", "b", "c", "good"]
    assert len(review._answers) == 2
    assert b"good" not in review._answers


@pytest.mark.parametrize("token", ["forbidden", "away"])
async def test_no_answer_is_not_remembered(token: str) -> None:
    review, server, _ = reviewer()
    for _ in range(2):
        with pytest.raises(Unavailable):
            await review.pod_of(token)
    assert server.asked == [token] * 2


async def test_a_flood_of_unknown_tokens_stops_here() -> None:
    review, server, _ = reviewer()
    server.held = asyncio.Event()
    waiting = [asyncio.create_task(review.pod_of(f"t{i}")) for i in range(20)]
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    server.held.set()
    outcomes = await asyncio.gather(*waiting, return_exceptions=True)
    assert len(server.asked) == tokens.REVIEWS_AT_A_TIME
    assert sum(isinstance(o, TooMany) for o in outcomes) == 20 - tokens.REVIEWS_AT_A_TIME
    assert await review.pod_of("good") == POD
