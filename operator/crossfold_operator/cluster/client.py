"""Raw requests to the Kubernetes API server: plain JSON in, plain JSON out, no models."""

import asyncio
import json
import os
import time
from collections.abc import AsyncIterator, Callable, Mapping
from functools import partial
from typing import Any, NamedTuple, Self
from urllib.parse import urlencode

import aiohttp
from kubernetes.aio import config as kubernetes_config
from kubernetes.aio.client.api_client import ApiClient
from kubernetes.aio.client.configuration import Configuration

from crossfold_operator import metrics, names
from crossfold_operator.cluster.base import Obj, Unavailable
from crossfold_operator.cluster.pacing import Pacing, pause_after

JSON = "application/json"
MERGE_PATCH = "application/merge-patch+json"
_CONNECT_SECONDS = 3.0
# The kubernetes package has no types.
config: Any = kubernetes_config
# A token that cannot be read just now is a ConfigException.
_NO_ANSWER = (aiohttp.ClientError, TimeoutError, OSError, kubernetes_config.ConfigException)


class ApiError(Exception):
    """The API server answered with an error status.

    Attributes:
        code: HTTP status.
        reason: the machine-readable reason of the Status object, or an empty string.
        message: what the API server said.
    """

    def __init__(self, code: int, reason: str, message: str) -> None:
        super().__init__(f"{code} {reason}: {message}")
        self.code = code
        self.reason = reason
        self.message = message

    @classmethod
    def from_body(cls, code: int, body: bytes) -> Self:
        """Read a Status object; anything else (a proxy's page) becomes the message as it is."""
        try:
            status = json.loads(body)
            return cls(code, str(status.get("reason", "")), str(status["message"]))
        except (ValueError, KeyError, AttributeError):
            return cls(code, "", body[:500].decode(errors="replace"))


def _always() -> bool:
    return True


class Credentials(NamedTuple):
    """How to reach the API server, for another client in this process."""

    host: str
    authorization: str
    """Value of the Authorization header; empty where a client certificate is used."""
    ca_file: str | None
    verify: bool
    certificate_file: str | None
    key_file: str | None


class ApiServer:
    """A connection to one API server. Errors are ApiError (it answered) or Unavailable (it did not)."""

    def __init__(
        self, client: ApiClient, may_write: Callable[[], bool] = _always, pacing: Pacing | None = None
    ) -> None:
        self._client: Any = client
        self._may_write = may_write
        self._pacing = pacing

    @classmethod
    async def connect(cls, may_write: Callable[[], bool] = _always) -> Self:
        """Connect as KUBECONFIG says, else as the pod's service account, else by the default kubeconfig.

        Args:
            may_write: asked right before anything but a GET is sent; False: it is not sent.
        """
        configuration = Configuration()
        if "KUBERNETES_SERVICE_HOST" in os.environ and not os.environ.get("KUBECONFIG"):
            config.load_incluster_config(client_configuration=configuration)
        else:
            # The library reads KUBECONFIG when it is imported; a variable set later counts too.
            file = os.environ.get("KUBECONFIG") or config.KUBE_CONFIG_DEFAULT_LOCATION
            await config.load_kube_config(config_file=file, client_configuration=configuration)
        return cls(ApiClient(configuration), may_write)

    def paced(self, pacing: Pacing) -> Self:
        """The same connection with a rate limit, and with another try after 429 and 5xx."""
        return type(self)(self._client, self._may_write, pacing)

    async def close(self) -> None:
        """Close all connections."""
        await self._client.close()

    async def credentials(self) -> Credentials:
        """Current credentials, with a token that was refreshed when it was due."""
        configuration = self._client.configuration
        return Credentials(
            host=configuration.host,
            authorization=await configuration.get_api_key_with_prefix("BearerToken", alias="authorization") or "",
            ca_file=configuration.ssl_ca_cert,
            verify=bool(configuration.verify_ssl),
            certificate_file=configuration.cert_file,
            key_file=configuration.key_file,
        )

    async def request(
        self,
        verb: str,
        path: str,
        *,
        query: Mapping[str, str] | None = None,
        body: Any = None,
        content_type: str = JSON,
        timeout: float = 15.0,  # noqa: ASYNC109 -- goes to the HTTP client, which tells its phases apart
    ) -> Obj:
        """Send one request and return the object that the API server answers with.

        With a rate limit, the request waits for its turn, and is sent again when the answer asks for that.

        Args:
            verb: HTTP method.
            path: path of the URL.
            query: parameters of the URL.
            body: what is sent as JSON.
            content_type: media type of the body.
            timeout: seconds from sending the request to the end of its answer, of each try.

        Returns:
            The answer, parsed.

        Raises:
            ApiError: it answered with an error.
            Unavailable: it did not answer (in time).
        """
        ask = partial(self._ask, verb, path, query, body, content_type=content_type, seconds=timeout)
        tries = 0
        while True:
            tries += 1
            if self._pacing is None:
                code, headers, content = await ask()
                break
            async with self._pacing.turn():
                code, headers, content = await ask()
            pause = pause_after(verb, code, headers, tries)
            if pause is None:
                break
            if code == 429:
                self._pacing.hold(pause)
            else:
                await asyncio.sleep(pause)
        if code >= 400:
            raise ApiError.from_body(code, content)
        try:
            answer: Obj = json.loads(content)
        except ValueError as error:
            raise Unavailable(f"{verb} {path}: the answer is no JSON") from error
        return answer

    async def _ask(
        self, verb: str, path: str, query: Mapping[str, str] | None, body: Any, *, content_type: str, seconds: float
    ) -> tuple[int, Mapping[str, str], bytes]:
        """Send a request once: status, headers and body of the answer."""
        limits = aiohttp.ClientTimeout(total=seconds, sock_connect=min(_CONNECT_SECONDS, seconds))
        started = time.monotonic()
        code = "none"
        try:
            response = await self._send(verb, path, query or {}, body, content_type=content_type, limits=limits)
            async with response:
                code = str(response.status)
                content = await response.read()
        except _NO_ANSWER as error:
            raise Unavailable(f"{verb} {path}: {type(error).__name__}: {error}") from error
        finally:
            metrics.API_REQUESTS.labels(verb, code).inc()
            metrics.API_SECONDS.labels(verb).observe(time.monotonic() - started)
        return response.status, response.headers, content

    async def stream(self, path: str, query: Mapping[str, str], *, idle: float) -> AsyncIterator[Obj]:
        """Yield the lines of a watch until the server ends it.

        Raises:
            ApiError: the server refused it.
            Unavailable: the connection broke or was silent for ``idle`` seconds.
        """
        limits = aiohttp.ClientTimeout(total=None, sock_connect=_CONNECT_SECONDS, sock_read=idle)
        try:
            response = await self._send("GET", path, query, None, content_type=JSON, limits=limits)
            async with response:
                metrics.API_REQUESTS.labels("WATCH", str(response.status)).inc()
                if response.status >= 400:
                    raise ApiError.from_body(response.status, await response.read())
                async for line in response.content:
                    yield json.loads(line)
        except (*_NO_ANSWER, ValueError) as error:
            raise Unavailable(f"watch of {path}: {type(error).__name__}: {error}") from error

    async def _send(
        self,
        verb: str,
        path: str,
        query: Mapping[str, str],
        body: Any,
        *,
        content_type: str,
        limits: aiohttp.ClientTimeout,
    ) -> aiohttp.ClientResponse:
        headers = {"Accept": JSON, "Content-Type": content_type, "User-Agent": names.FIELD_MANAGER}
        pairs: list[tuple[str, str]] = list(query.items())
        # Fetches a fresh token where the kubeconfig or the projected volume has a new one.
        await self._client.update_params_for_auth(headers, pairs, ["BearerToken"], path, verb, body)
        url = self._client.configuration.host + path + ("?" + urlencode(pairs) if pairs else "")
        if verb != "GET" and not self._may_write():
            raise Unavailable(f"{verb} {path}: the Lease is not held any more, so that nothing is written")
        answer = await self._client.rest_client.request(verb, url, headers=headers, body=body, _request_timeout=limits)
        response: aiohttp.ClientResponse = answer.response
        return response


async def wait_until_reachable(server: ApiServer, *, every: float = 2.0) -> None:
    """Return as soon as the API server answers anything at all."""
    while True:
        try:
            await server.request("GET", "/version")
        except Unavailable:
            await asyncio.sleep(every)
        except ApiError:
            return
        else:
            return
