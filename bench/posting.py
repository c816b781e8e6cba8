"""How fast does the HTTP API take tasks?"""

from __future__ import annotations

import asyncio
import re
import shutil
import subprocess
import tempfile
from typing import Any

import msgspec

from bench.figures import Figures
from bench.machine import LATER, MESSAGE, NOWHERE, on_schedule, percentile

ONE = msgspec.json.encode(
    {
        "source": "bench", "destination": {"url": NOWHERE}, "delay": LATER,
        "message_data": MESSAGE,
    }
)  # fmt: skip
BATCH = b'{"tasks":[' + b",".join([ONE] * 100) + b"]}"
CONNECTIONS = 64
OPEN_LOOP = 3_000
"""Requests a second that begin on time, whatever became of the others."""


def wrk(port: int, path: str, body: bytes, seconds: float = 2) -> float:
    """Requests a second by `wrk` with 64 connections. Exits where one was not answered with 2xx."""
    if shutil.which("wrk") is None:
        raise SystemExit("the benchmarks need wrk: apt-get install wrk")
    with tempfile.NamedTemporaryFile("w", suffix=".lua") as script:
        headers = 'wrk.headers["Content-Type"] = "application/json"'
        script.write(f'wrk.method = "POST"\n{headers}\nwrk.body = [==[{body.decode()}]==]\n')
        script.flush()
        said = subprocess.run(
            ["wrk", "-t1", f"-c{CONNECTIONS}", f"-d{seconds}s", "-s", script.name,
             f"http://127.0.0.1:{port}{path}"],
            check=True, capture_output=True, text=True,
        ).stdout  # fmt: skip
    if "Non-2xx" in said or "Socket errors" in said:
        raise SystemExit(said)
    return float(re.search(r"Requests/sec:\s+([\d.]+)", said)[1])  # type: ignore[index]


async def posts(figures: Figures, port: int, what: str = "") -> None:
    figures.add(f"POST /tasks{what}", await asyncio.to_thread(wrk, port, "/tasks", ONE))


async def batches(figures: Figures, port: int) -> None:
    figures.add(
        "POST /tasks/batch", 100 * await asyncio.to_thread(wrk, port, "/tasks/batch", BATCH)
    )


async def open_loop(figures: Figures, port: int) -> None:
    """How long a request takes where 3,000 a second begin on time."""
    head = (
        "POST /tasks HTTP/1.1\r\nHost: bench\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(ONE)}\r\n\r\n"
    )
    free: asyncio.LifoQueue[Connection] = asyncio.LifoQueue()
    loop = asyncio.get_running_loop()
    for _ in range(CONNECTIONS):
        _, connection = await loop.create_connection(Connection, "127.0.0.1", port)
        free.put_nowait(connection)

    async def post() -> None:
        connection = await free.get()
        await connection.ask(head.encode() + ONE)
        free.put_nowait(connection)

    times = await on_schedule(OPEN_LOOP, 5, post)
    while not free.empty():
        free.get_nowait().transport.close()
    figures.add("POST /tasks: p99", percentile(times, 0.99))


class Connection(asyncio.Protocol):
    """One keep-alive connection that asks and waits for 201."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport: Any = transport
        self._buffer = b""

    async def ask(self, request: bytes) -> None:
        self._answered = asyncio.get_running_loop().create_future()
        self.transport.write(request)
        await self._answered

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        head, end, body = self._buffer.partition(b"\r\n\r\n")
        length = re.search(rb"content-length: (\d+)", head, re.IGNORECASE)
        if not end or length is None or len(body) < int(length[1]):
            return
        self._buffer = b""
        if head.startswith(b"HTTP/1.1 201"):
            self._answered.set_result(None)
        else:
            self._answered.set_exception(RuntimeError(head + body))
