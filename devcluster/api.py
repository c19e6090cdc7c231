"""The little of the Kubernetes API that bringing a cluster up needs."""

import json
import ssl
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

_TIMEOUT_S = 10.0


class ApiError(Exception):
    """An answer other than success."""

    def __init__(self, status: int, body: str) -> None:
        """Keeps what the server said.

        Args:
            status: The HTTP status.
            body: The answer's body.
        """
        super().__init__(f"{status}: {body[:300]}")
        self.status = status


class Api:
    """One API server, as one user."""

    def __init__(self, server: str, authority: Path, token: str) -> None:
        """Opens no connection yet.

        Args:
            server: The URL.
            authority: Certificates to trust.
            token: The user's token.
        """
        self._server = server
        self._headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
        self._tls = ssl.create_default_context(cafile=str(authority))
        # The server signed its certificate itself, without the key identifiers that Python 3.13 asks for.
        self._tls.verify_flags &= ~ssl.VERIFY_X509_STRICT
        # Never by a proxy: the address is on this machine.
        no_proxy = urllib.request.ProxyHandler({})
        self._opener = urllib.request.build_opener(no_proxy, urllib.request.HTTPSHandler(context=self._tls))

    def text(self, method: str, path: str, body: dict[str, Any] | None = None) -> str:
        """Sends a request; returns the body of a successful answer.

        Raises:
            ApiError: Another answer came.
            OSError: None came.
        """
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self._server + path, data, self._headers, method=method)
        try:
            with self._opener.open(request, timeout=_TIMEOUT_S) as answer:
                return str(answer.read().decode())
        except urllib.error.HTTPError as error:
            raise ApiError(error.code, error.read().decode(errors="replace")) from error

    def json(self, method: str, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        """As `text`, for JSON objects."""
        parsed: dict[str, Any] = json.loads(self.text(method, path, body))
        return parsed


def answers(url: str) -> bool:
    """Whether a plain HTTP URL of the cluster answers with success."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(url, timeout=_TIMEOUT_S) as answer:
        return bool(answer.status == 200)
