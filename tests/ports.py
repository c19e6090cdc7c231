"""Ports for tests that run side by side.

A server that a test starts in its own process binds port 0 and is asked for its port. A program that has to be told its
port gets one of ``own_port``. A test that needs a port on which nobody listens holds it, by ``silent_port``.
"""

import contextlib
import random
import socket
from collections.abc import Iterator

LOWEST = 10_000
HIGHEST = 29_999
"""Below the ports that the kernel gives to whoever asks for any, and below the node ports of Kubernetes."""

_held: list[socket.socket] = []


def own_port() -> int:
    """A port of this machine that nobody listens on and no other test gets until this process ends."""
    candidates = range(LOWEST, HIGHEST + 1)
    for port in random.sample(candidates, len(candidates)):
        # A name in the kernel's memory: it is this process's alone, and gone when the process is.
        name = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            name.bind(f"\0crossfold-test-port-{port}")
            with socket.socket() as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                probe.bind(("", port))
        except OSError:
            name.close()
            continue
        _held.append(name)
        return port
    raise RuntimeError(f"no port from {LOWEST} to {HIGHEST} is free")


@contextlib.contextmanager
def silent_port() -> Iterator[int]:
    """A port that is taken and on which nobody listens: every connection to it is refused."""
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        yield int(holder.getsockname()[1])
