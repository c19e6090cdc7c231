"""Which pod a token belongs to: TokenReview, asked once per token and remembered for a while."""

import hashlib
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from crossfold_operator.cluster.base import Obj, Unavailable
from crossfold_operator.cluster.client import ApiError, ApiServer
from crossfold_trainer.contract.progress import AUDIENCE

PATH = "/apis/authentication.k8s.io/v1/tokenreviews"
KNOWN_SECONDS = 300.0
"""How long a token is trusted without asking again; that its pod still exists is looked up each time."""
UNKNOWN_SECONDS = 60.0
REMEMBERED = 20_000
REVIEWS_AT_A_TIME = 4
"""More unknown tokens than these at one time are turned away: nobody can have the API server flooded through us."""
_REVIEW_SECONDS = 5.0
_POD_NAME, _POD_UID = "authentication.kubernetes.io/pod-name", "authentication.kubernetes.io/pod-uid"


@dataclass(frozen=True)
class PodIdentity:
    """The pod that a token is bound to."""

    namespace: str
    name: str
    uid: str


class TooMany(Exception):
    """More tokens are being reviewed than may be."""


class TokenReviewer:
    """Asks the API server whose tokens are, and remembers the answers by the tokens' hashes."""

    def __init__(self, server: ApiServer, clock: Callable[[], float] = time.monotonic) -> None:
        self._server = server
        self._clock = clock
        self._answers: OrderedDict[bytes, tuple[float, PodIdentity | None]] = OrderedDict()
        self._reviewing = 0

    async def pod_of(self, token: str) -> PodIdentity | None:
        """The pod of a token; None for one that is not valid, not for this audience, or bound to no pod.

        Raises:
            TooMany: too many tokens are being reviewed at this moment.
            Unavailable: the API server does not answer, or does not let this operator ask.
        """
        digest = hashlib.sha256(token.encode()).digest()
        until, pod = self._answers.get(digest, (0.0, None))
        if self._clock() < until:
            return pod
        if self._reviewing >= REVIEWS_AT_A_TIME:
            raise TooMany
        self._reviewing += 1
        try:
            pod = identity(await self._review(token))
        finally:
            self._reviewing -= 1
        self._answers[digest] = (self._clock() + (KNOWN_SECONDS if pod else UNKNOWN_SECONDS), pod)
        self._answers.move_to_end(digest)
        if len(self._answers) > REMEMBERED:
            self._answers.popitem(last=False)
        return pod

    async def _review(self, token: str) -> Obj:
        body = {
            "apiVersion": "authentication.k8s.io/v1",
            "kind": "TokenReview",
            "spec": {"token": token, "audiences": [AUDIENCE]},
        }
        try:
            return await self._server.request("POST", PATH, body=body, timeout=_REVIEW_SECONDS)
        except ApiError as error:
            raise Unavailable(f"tokens cannot be reviewed: {error}") from error


def identity(review: Obj) -> PodIdentity | None:
    """The pod that an answered TokenReview names; None when it does not vouch for one."""
    status: dict[str, Any] = review.get("status") or {}
    user: dict[str, Any] = status.get("user") or {}
    extra: dict[str, Any] = user.get("extra") or {}
    kind, _, account = str(user.get("username", "")).partition("serviceaccount:")
    namespace = account.partition(":")[0]
    names, uids = extra.get(_POD_NAME) or [], extra.get(_POD_UID) or []
    if status.get("authenticated") is not True or AUDIENCE not in (status.get("audiences") or ()):
        return None
    if kind != "system:" or not namespace or len(names) != 1 or len(uids) != 1:
        return None
    return PodIdentity(namespace, str(names[0]), str(uids[0]))
