"""``python -m crossfold_operator.selfcheck``: do the CRDs answer, and is the operator ready? What `helm test` runs."""

import argparse
import asyncio
import sys
import time
from collections.abc import Awaitable, Callable

import aiohttp

from crossfold_operator import names
from crossfold_operator.cluster import paths
from crossfold_operator.cluster.base import Unavailable
from crossfold_operator.cluster.client import ApiError, ApiServer
from crossfold_operator.names import Kind

RETRY_SECONDS = 2.0


class NotYet(Exception):
    """A check that does not hold; its message says what was seen."""


async def served(server: ApiServer, namespace: str, kind: Kind) -> str:
    """The API server lists the kind."""
    await server.request("GET", paths.collection(kind, namespace), query={"limit": "1"})
    return f"{names.PLURALS[kind]} are served"


async def judged(server: ApiServer, namespace: str) -> str:
    """The API server refuses an object that breaks the schema: the CRDs are ours, with their rules."""
    manifest = {
        "apiVersion": names.API_VERSION,
        "kind": Kind.CROSS_VALIDATION.value,
        "metadata": {"name": "crossfold-selfcheck"},
        "spec": {"parallelism": -1},
    }
    path = paths.collection(Kind.CROSS_VALIDATION, namespace)
    try:
        await server.request("POST", path, query={"dryRun": "All"}, body=manifest)
    except ApiError as error:
        if error.code == 422:
            return "an invalid CrossValidation is refused"
        raise
    raise NotYet("an invalid CrossValidation was accepted: are these the CRDs of this version?")


async def ready(url: str) -> str:
    """The operator says that it is ready."""
    limits = aiohttp.ClientTimeout(total=5)
    try:
        async with aiohttp.ClientSession(timeout=limits) as session, session.get(f"{url}/readyz") as response:
            said = (await response.text()).strip()
            if response.status != 200:
                raise NotYet(f"the operator at {url} is not ready: {said}")
            return f"the operator is ready ({said})"
    except (aiohttp.ClientError, TimeoutError, OSError) as error:
        raise NotYet(f"the operator at {url} does not answer: {type(error).__name__} {error}") from error


async def check(url: str, namespace: str, patience: float) -> bool:
    """Run all checks, each until it holds or patience is at an end. Prints what it saw."""
    deadline = time.monotonic() + patience
    server = await ApiServer.connect()
    try:
        for kind in names.OWN_KINDS:
            if not await _holds(lambda kind=kind: served(server, namespace, kind), deadline):  # type: ignore[misc]
                return False
        return await _holds(lambda: judged(server, namespace), deadline) and await _holds(lambda: ready(url), deadline)
    finally:
        await server.close()


async def _holds(attempt: Callable[[], Awaitable[str]], deadline: float) -> bool:
    while True:
        try:
            print("ok:", await attempt(), flush=True)
            return True
        except (NotYet, ApiError, Unavailable) as error:
            if time.monotonic() >= deadline:
                print("FAILED:", error, flush=True)
                return False
        await asyncio.sleep(RETRY_SECONDS)


def main() -> None:
    """Parse arguments, check, and say so by the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--url", required=True, help="where the operator's probes answer")
    parser.add_argument("--namespace", required=True, help="a namespace that the operator works in")
    parser.add_argument("--patience", type=float, default=90.0, help="seconds until a check that does not hold fails")
    options = parser.parse_args()
    sys.exit(0 if asyncio.run(check(options.url.rstrip("/"), options.namespace, options.patience)) else 1)


if __name__ == "__main__":
    main()
