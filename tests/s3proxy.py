"""A proxy in front of an S3 server that does wrong what servers and networks do wrong; seeded, so that it repeats.

``with faulty(endpoint, Faults(...)) as proxy`` serves on ``proxy.endpoint``.
"""

import asyncio
import contextlib
import re
import threading
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import Enum, auto
from random import Random
from urllib.parse import unquote, urlsplit


class Fault(Enum):
    """What may go wrong with one answer."""

    ERROR = auto()
    """500 InternalError."""
    SLOW_DOWN = auto()
    """503 SlowDown."""
    RESET = auto()
    """The connection breaks before an answer."""
    TRUNCATED = auto()
    """The connection breaks in the middle of the body."""
    STALL = auto()
    """Half of the body comes, then nothing."""
    VANISHED = auto()
    """404 NoSuchKey."""
    CORRUPT = auto()
    """The body is whole, and its first bytes are others."""


@dataclass
class Faults:
    """Which GETs of which objects go wrong."""

    kinds: tuple[Fault, ...] = ()
    """What may happen."""
    share: float = 1.0
    """How many of the answers it happens to."""
    times: int = 10**9
    """How often it happens to an object at most."""
    in_a_row: int = 10**9
    """How often it happens to an object in a row at most."""
    only: str = "/data.zarr/[xy]/c/"
    """A pattern in the paths of objects that it may happen to."""
    seed: int = 0
    asked: Counter[str] = field(default_factory=Counter)
    """How often each path was asked for."""
    done: Counter[Fault] = field(default_factory=Counter)
    _row: Counter[str] = field(default_factory=Counter)

    def next(self, path: str) -> Fault | None:
        """What happens to this answer: a function of the seed, the path and how often it was asked for."""
        self.asked[path] += 1
        if not self.kinds or self.asked[path] > self.times or not re.search(self.only, path):
            return None
        chance = Random(f"{self.seed}/{path}/{self.asked[path]}")
        if chance.random() >= self.share or self._row[path] >= self.in_a_row:
            self._row[path] = 0
            return None
        kind = chance.choice(self.kinds)
        self.done[kind] += 1
        self._row[path] += 1
        return kind

    @property
    def chunks_asked(self) -> Counter[str]:
        """The chunks among the paths."""
        return Counter({path: n for path, n in self.asked.items() if re.search("/data.zarr/[xy]/c/", path)})


@dataclass
class Proxy:
    """A running proxy."""

    endpoint: str
    faults: Faults


_CODES = {
    Fault.ERROR: (500, "Internal Server Error", "InternalError", "We encountered an internal error."),
    Fault.SLOW_DOWN: (503, "Service Unavailable", "SlowDown", "Please reduce your request rate."),
    Fault.VANISHED: (404, "Not Found", "NoSuchKey", "The specified key does not exist."),
}


@contextlib.contextmanager
def faulty(upstream: str, faults: Faults) -> Iterator[Proxy]:
    """Serve an S3 endpoint with faults."""
    target = urlsplit(upstream)
    loop = asyncio.new_event_loop()
    ready, stopped = threading.Event(), asyncio.Event()
    ports: list[int] = []
    connections: set[asyncio.Task[None]] = set()

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.closing(writer), contextlib.suppress(OSError, asyncio.IncompleteReadError):
            while await _one(reader, writer, faults, target.hostname or "", target.port or 80):
                pass

    def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        # As tasks of ours: of its own, asyncio asks how they ended, and complains of those that are cancelled.
        task = loop.create_task(handle(reader, writer))
        connections.add(task)
        task.add_done_callback(connections.discard)

    async def serve() -> None:
        server = await asyncio.start_server(connected, "127.0.0.1", 0)
        ports.append(server.sockets[0].getsockname()[1])
        ready.set()
        await stopped.wait()
        server.close()

    def run() -> None:
        with asyncio.Runner(loop_factory=lambda: loop) as runner:
            runner.run(serve())

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    ready.wait()
    try:
        yield Proxy(f"http://127.0.0.1:{ports[0]}", faults)
    finally:
        loop.call_soon_threadsafe(stopped.set)
        thread.join()


async def _one(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, faults: Faults, host: str, port: int
) -> bool:
    """One request and its answer; whether the connection goes on."""
    head = await reader.readuntil(b"\r\n\r\n")
    body = await reader.readexactly(_length(head))
    method, target, _ = head.split(b"\r\n", 1)[0].decode().split(" ")
    path, _, query = target.partition("?")
    fault = faults.next(unquote(path)) if method == "GET" and "list-type" not in query else None
    if fault in _CODES:
        status, reason, code, message = _CODES[fault]
        content = f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>{message}</Message></Error>".encode()
        writer.write(f"HTTP/1.1 {status} {reason}\r\nContent-Length: {len(content)}\r\n\r\n".encode() + content)
        await writer.drain()
        return True
    if fault is Fault.RESET:
        writer.transport.abort()
        return False
    answer_head, content = await _ask(host, port, head, body)
    if fault in (Fault.TRUNCATED, Fault.STALL):
        writer.write(answer_head + content[: len(content) // 2])
        await writer.drain()
        if fault is Fault.TRUNCATED:
            return False
        await reader.read()  # until the client gives up
        return False
    if fault is Fault.CORRUPT:
        content = bytes(byte ^ 0xFF for byte in content[:16]) + content[16:]
    writer.write(answer_head + content)
    await writer.drain()
    return b"connection: close" not in answer_head.lower()


async def _ask(host: str, port: int, head: bytes, body: bytes) -> tuple[bytes, bytes]:
    """The server's own answer: head and body."""
    reader, writer = await asyncio.open_connection(host, port)
    try:
        writer.write(head + body)
        answer = await reader.readuntil(b"\r\n\r\n")
        if head.startswith(b"HEAD ") or b" 204 " in answer[:16]:
            return answer, b""
        if b"transfer-encoding: chunked" in answer.lower():
            content = b""
            while not content.endswith(b"0\r\n\r\n"):
                content += await reader.read(2**16)
            return answer, content
        return answer, await reader.readexactly(_length(answer))
    finally:
        writer.close()


def _length(head: bytes) -> int:
    found = re.search(rb"(?i)\r\ncontent-length: *(\d+)", head)
    return int(found.group(1)) if found else 0
