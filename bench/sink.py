"""Receivers: nginx, or a small server in its place, and one in the event loop."""

from __future__ import annotations

import asyncio
import contextlib
import re
import shutil
import sys
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

from bench.servers import free_port, running

ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
_LENGTH = re.compile(rb"content-length: *(\d+)", re.I)
NGINX = """
daemon off; worker_processes 1; pid %(folder)s/pid; error_log /dev/null;
events { worker_connections 4096; }
http {
  access_log off; keepalive_requests 10000000; keepalive_timeout 75;
  client_body_temp_path %(folder)s/b;
  server {
    listen 127.0.0.1:%(port)d backlog=4096;
    location / { return 200 "ok"; }
    location = /status { stub_status; }
  }
}
"""


@contextlib.contextmanager
def sink() -> Iterator[str]:
    """nginx, or a small server in Python where that is missing: its URL. `arrivals` counts."""
    port = free_port()
    with tempfile.TemporaryDirectory() as folder:
        if shutil.which("nginx") is None:
            with running(sys.executable, "-m", "bench.sink", str(port), port=port):
                yield f"http://127.0.0.1:{port}/hook"
            return
        config = Path(folder) / "nginx.conf"
        config.write_text(NGINX % {"folder": folder, "port": port})
        with running("nginx", "-c", str(config), "-p", folder, "-e", "/dev/null", port=port):
            yield f"http://127.0.0.1:{port}/hook"


class Requests(asyncio.Protocol):
    """One connection: `seen` gets the head of each request, and says whether it is answered."""

    def __init__(self, seen: Callable[[bytes], bytes | None]) -> None:
        self._seen = seen

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport: Any = transport
        self._buffer = b""

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        while (end := self._buffer.find(b"\r\n\r\n") + 4) > 3:
            head = self._buffer[:end]
            length = _LENGTH.search(head)
            whole = end + (int(length[1]) if length else 0)
            if len(self._buffer) < whole:
                return
            self._buffer = self._buffer[whole:]
            if (answer := self._seen(head)) is not None:
                self._transport.write(answer)


@contextlib.asynccontextmanager
async def receiver(seen: Callable[[bytes], bytes | None]) -> AsyncIterator[str]:
    """A receiver in this event loop; its URL."""
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Requests(seen), "127.0.0.1", 0, backlog=4096)
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/hook"


async def main() -> None:
    count = 0

    def seen(head: bytes) -> bytes:
        nonlocal count
        count += 1
        if head.startswith(b"GET /status "):
            text = b"server accepts handled requests\n 0 0 %d \n" % count
            return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(text), text)
        return ANSWER

    loop = asyncio.get_running_loop()
    server = await loop.create_server(
        lambda: Requests(seen), "127.0.0.1", int(sys.argv[1]), backlog=4096
    )
    await server.serve_forever()


if __name__ == "__main__":
    import uvloop

    uvloop.run(main())
