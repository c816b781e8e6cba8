"""A raw HTTP server for tests that look at bytes, and tasks to send to it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, NamedTuple

import aiohttp
import pytest
from msgspec.structs import replace

from rebound.adapters.producers.http import HttpProducer
from rebound.domain import validation
from rebound.domain.attempt import Leg, State
from rebound.domain.errors import DeliveryError
from rebound.domain.task import Task

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


class Request(NamedTuple):
    line: str
    headers: dict[str, str]
    body: bytes


class Receiver:
    """Keeps every request; answers with `reply`, bytes or a coroutine that writes."""

    def __init__(self) -> None:
        self.reply: bytes | Callable[[asyncio.StreamWriter], Awaitable[None]] = OK
        self.requests: list[Request] = []
        self.connections = 0
        self.closed = asyncio.Event()
        self.port = 0

    def url(self, rest: str = "/hook", scheme: str = "http") -> str:
        return f"{scheme}://127.0.0.1:{self.port}{rest}"

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            while True:
                self.requests.append(await _request(reader))
                if isinstance(self.reply, bytes):
                    writer.write(self.reply)
                    await writer.drain()
                else:
                    await self.reply(writer)
        except (OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        finally:
            writer.close()
            self.closed.set()


async def _request(reader: asyncio.StreamReader) -> Request:
    head = (await reader.readuntil(b"\r\n\r\n")).decode()
    line, *lines = head[:-4].split("\r\n")
    headers = dict(each.split(": ", 1) for each in lines)
    return Request(line, headers, await reader.readexactly(int(headers["Content-Length"])))


def task(
    url: str, *, data: Any = '{"a":1}', to: dict[str, Any] | None = None, **fields: Any
) -> Task:
    body = {"id": "t-1", "source": "shop", "message_data": data, **fields}
    body["destination"] = {"url": url, "timeout": 20, **(to or {})}
    return replace(
        validation.parse(json.dumps(body).encode()), state=State.DELIVERING, leg=Leg.MAIN
    )


async def failing(producer: HttpProducer, one: Task) -> DeliveryError:
    with pytest.raises(DeliveryError) as caught:
        await producer.send(one)
    assert caught.value.__cause__ is None
    assert caught.value.__context__ is None
    return caught.value


def answer(status: int | str, body: bytes = b"", **headers: str) -> bytes:
    lines = "".join(f"{k.replace('_', '-')}: {v}\r\n" for k, v in headers.items())
    head = f"HTTP/1.1 {status} Whatever\r\n{lines}Content-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


@asynccontextmanager
async def producing(*, by: str = "itself") -> AsyncIterator[HttpProducer]:
    """A producer with connections of its own, or with the session of a caller."""
    async with aiohttp.ClientSession() as session:
        producer = HttpProducer(version="1.2", session=session if by == "session" else None)
        yield producer
        await producer.aclose()


@asynccontextmanager
async def receiving() -> AsyncIterator[Receiver]:
    """A Receiver on a free port."""
    receiver = Receiver()
    server = await asyncio.start_server(receiver.serve, "127.0.0.1", 0, backlog=1000)
    receiver.port = server.sockets[0].getsockname()[1]
    try:
        yield receiver
    finally:
        server.close()
