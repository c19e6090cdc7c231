"""A relay that lets answers of a server arrive late: ``python -m benchmarks.trainer.latency PORT MILLISECONDS``.

Prints its own port. Bytes are passed on as they come, so that the added latency costs no bandwidth.
"""

import asyncio
import contextlib
import subprocess
import sys
from collections.abc import Iterator
from urllib.parse import urlsplit

SIZE = 2**18


async def _pass_on(source: asyncio.StreamReader, target: asyncio.StreamWriter, delay: float) -> None:
    loop = asyncio.get_running_loop()
    last = loop.time()
    while content := await source.read(SIZE):
        last = loop.time() + delay
        loop.call_at(last, target.write, content)
    await asyncio.sleep(max(0.0, last - loop.time()) + 0.001)
    target.close()


async def _serve(port: int, delay: float) -> None:
    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        far_reader, far_writer = await asyncio.open_connection("127.0.0.1", port, limit=SIZE)
        await asyncio.gather(
            _pass_on(reader, far_writer, 0.0), _pass_on(far_reader, writer, delay), return_exceptions=True
        )

    server = await asyncio.start_server(handle, "127.0.0.1", 0, limit=SIZE, backlog=512)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


@contextlib.contextmanager
def late(endpoint: str, milliseconds: int) -> Iterator[str]:
    """An endpoint whose answers arrive so much later; the endpoint itself for 0."""
    if milliseconds == 0:
        yield endpoint
        return
    command = [sys.executable, "-m", "benchmarks.trainer.latency", str(urlsplit(endpoint).port), str(milliseconds)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as relay:
        if relay.stdout is None:
            raise RuntimeError("the relay says no port")
        try:
            yield f"http://127.0.0.1:{int(relay.stdout.readline())}"
        finally:
            relay.kill()


if __name__ == "__main__":
    asyncio.run(_serve(int(sys.argv[1]), int(sys.argv[2]) / 1000))
