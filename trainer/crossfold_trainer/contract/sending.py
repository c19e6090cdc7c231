"""Where live progress goes, and how a report gets there. The standard library alone."""

import contextlib
import http.client
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from urllib.parse import urlsplit

from crossfold_trainer.contract import progress
from crossfold_trainer.contract.config import RunConfig

PATIENCE_S = 2.0
"""Seconds that connecting, and each read or write, may take."""
STANDBY_TRIES = 4
"""Of two operators one stands by and says so: which of them answers is chosen for each connection."""

Send = Callable[[bytes], None]
"""Delivers a report; raises OSError when it cannot."""


class Undelivered(OSError):
    """Somebody answered, and did not take the report."""


def sender(config: RunConfig, environment: Mapping[str, str] = os.environ) -> Send | None:
    """Where the environment says that reports go; None: nowhere."""
    if file := environment.get(progress.FILE_VARIABLE):
        return file_sender(Path(file))
    if url := environment.get(progress.URL_VARIABLE):
        token = Path(progress.TOKEN_FOLDER) / progress.TOKEN_FILE
        return http_sender(f"{url.rstrip('/')}/v1/progress/{config.namespace}/{config.run}", token)
    return None


def file_sender(path: Path) -> Send:
    """Writes each report into one file, whole: a reader sees the old one or the new one."""

    def send(report: bytes) -> None:
        scratch = path.with_name(f"{path.name}.new")
        scratch.write_bytes(report)
        scratch.replace(path)

    return send


def http_sender(url: str, token: Path) -> Send:
    """Posts each report to a URL, past any proxy, with a bearer token that is read anew each time."""
    parts = urlsplit(url)

    def post(report: bytes) -> int:
        kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
        connection = kind(parts.hostname or "", parts.port, timeout=PATIENCE_S)
        headers = {"Content-Type": "application/json", "Authorization": f"Bearer {token.read_text().strip()}"}
        with contextlib.closing(connection):
            connection.request("POST", parts.path, report, headers)
            return connection.getresponse().status

    def send(report: bytes) -> None:
        for _ in range(STANDBY_TRIES):
            try:
                status = post(report)
            except http.client.HTTPException as error:
                raise Undelivered(f"{url} answers with no HTTP: {error!r}") from error
            if status != http.client.SERVICE_UNAVAILABLE:
                break
        if status >= http.client.BAD_REQUEST:
            raise Undelivered(f"{url} answers with {status} {http.client.responses.get(status, '')}".rstrip())

    return send
