"""How fast are tasks accepted: embedded, by one caller and by 64, and over HTTP?"""

from __future__ import annotations

import asyncio
import re
import sys
import time

import msgspec

from bench.machine import (
    MESSAGE,
    Row,
    environment,
    free_port,
    percentile,
    running,
    spread,
    submitting,
    task,
    wait_ready,
)  # fmt: skip

LATER = 86_400.0
"""Seconds until the tasks are due, so that only creating is measured."""


async def embedded(store_url: str, namespace: str) -> list[Row]:
    async with submitting(store_url, namespace) as rebound:

        async def one() -> None:
            await rebound.create_task(task("http://127.0.0.1:9/hook", delay=LATER))

        await spread(500, 1, one)
        alone, times = await spread(8_000, 1, one)
        many, _ = await spread(60_000, 64, one)
        return [
            Row("create_task, one caller", alone, "tasks/s", 3_500),
            Row("create_task, one caller, p99", percentile(times, 0.99) * 1000, "ms", 1, False),
            Row("create_task, 64 callers", many, "tasks/s", 25_000),
        ]


class Caller(asyncio.Protocol):
    """One keep-alive connection that posts the same bytes again as soon as it has its answer."""

    def __init__(self, request: bytes, left: list[int], done: asyncio.Future[None]) -> None:
        self.request, self.left, self.done = request, left, done
        self.buffer = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport
        self._next()

    def data_received(self, data: bytes) -> None:
        self.buffer += data
        head, end, body = self.buffer.partition(b"\r\n\r\n")
        length = re.search(rb"content-length: (\d+)", head, re.IGNORECASE)
        if not end or length is None or len(body) < int(length[1]):
            return
        self.buffer = b""
        if head.startswith(b"HTTP/1.1 201"):
            self._next()
        else:
            self.done.set_exception(RuntimeError(head + body))

    def _next(self) -> None:
        if self.left[0] > 0:
            self.left[0] -= 1
            self.transport.write(self.request)  # type: ignore[attr-defined]
        elif not self.done.done():
            self.done.set_result(None)


async def over_http(store_url: str, namespace: str) -> list[Row]:
    port = free_port()
    command = (sys.executable, "-m", "rebound", "serve", "--no-worker", "--http-port", str(port))
    with running(*command, port=port, env=environment(store_url, namespace)):
        wait_ready(port)
        await posts(port, 2_000)
        rate = await posts(port, 40_000)
    return [Row("POST /tasks, 64 connections", rate, "tasks/s", 8_000)]


async def posts(port: int, count: int) -> float:
    body = msgspec.json.encode(
        {
            "source": "bench", "destination": {"url": "http://127.0.0.1:9/hook"},
            "delay": LATER, "message_data": MESSAGE,
        }
    )  # fmt: skip
    head = (
        "POST /tasks HTTP/1.1\r\nHost: bench\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(body)}\r\n\r\n"
    )
    loop, left = asyncio.get_running_loop(), [count]
    began = time.perf_counter()
    ends: list[asyncio.Future[None]] = []
    for _ in range(64):
        ends.append(loop.create_future())
        request, done = head.encode() + body, ends[-1]
        await loop.create_connection(
            lambda r=request, d=done: Caller(r, left, d), "127.0.0.1", port
        )
    await asyncio.gather(*ends)
    return count / (time.perf_counter() - began)
