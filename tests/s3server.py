"""A real S3 server on a folder, for tests: ``with s3_server(folder, "key", "secret", "region") as endpoint``."""

import contextlib
import os
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

from tests.ports import own_port
from tests.waiting import PATIENCE_S


@contextlib.contextmanager
def s3_server(root: Path, access: str, secret: str, region: str) -> Iterator[str]:
    """Serve a folder (its subfolders are the buckets) and yield the endpoint.

    The program is built on first use.
    """
    from devcluster.builds import S3, built

    port = own_port()
    root.mkdir(parents=True, exist_ok=True)
    command = [str(built(S3)), "--port", f"127.0.0.1:{port}", "--region", region, str(root)]
    environment = {**os.environ, "ROOT_ACCESS_KEY": access, "ROOT_SECRET_KEY": secret}
    process = subprocess.Popen(
        command,
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        _wait(port, process)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.kill()  # a polite end waits for clients that keep their connections
        process.wait()


def _wait(port: int, process: "subprocess.Popen[bytes]") -> None:
    end = time.monotonic() + PATIENCE_S
    while time.monotonic() < end:
        if process.poll() is not None:
            raise RuntimeError(f"the S3 server ended with {process.returncode}")
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
            return
        time.sleep(0.05)
    raise TimeoutError("the S3 server does not listen")
