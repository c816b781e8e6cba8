"""Connections that the HTTP producer may not use again, against real sockets."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest
from yarl import URL

from rebound.adapters.producers.exchange import Exchange
from rebound.adapters.producers.http import HttpProducer
from rebound.ports import Receipt
from tests.receiver import OK, Receiver, answer, failing, receiving, task


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    async with receiving() as it:
        yield it


@pytest.fixture
async def producer() -> AsyncIterator[HttpProducer]:
    it = HttpProducer()
    yield it
    await it.aclose()


async def test_an_answer_before_the_body_is_written_counts_and_the_rest_is_dropped(
    producer: HttpProducer,
) -> None:
    answered = asyncio.Event()
    came: asyncio.Future[int] = asyncio.get_running_loop().create_future()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer(413, b"too large"))
        await answered.wait()  # and reads nothing meanwhile
        count = 0
        with contextlib.suppress(OSError):
            while piece := await reader.read(2**20):
                count += len(piece)
        writer.close()
        came.set_result(count)

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        big = task(f"http://127.0.0.1:{port}/", data="x" * 50_000_000)
        error = await failing(producer, big)
        assert (str(error), error.response) == ("HTTP 413", "too large")
        answered.set()
        assert await asyncio.wait_for(came, 10) < 50_000_000


async def test_a_connection_that_said_something_unasked_is_not_used_again(
    receiver: Receiver, producer: HttpProducer
) -> None:
    async def stray(writer: asyncio.StreamWriter) -> None:
        writer.write(OK)
        await writer.drain()
        await said.wait()
        writer.write(answer(500, b"stray"))
        await writer.drain()
        written.set()

    said, written = asyncio.Event(), asyncio.Event()
    receiver.reply = stray
    assert await producer.send(task(receiver.url())) == Receipt(200, "ok")
    said.set()
    await written.wait()
    receiver.reply = OK
    assert await producer.send(task(receiver.url())) == Receipt(200, "ok")
    assert receiver.connections == 2


async def test_a_change_of_protocols_is_no_success_and_ends_the_connection(
    receiver: Receiver, producer: HttpProducer
) -> None:
    receiver.reply = (
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n"
    )
    error = await failing(producer, task(receiver.url()))
    assert (str(error), error.status) == ("HTTP 101", 101)
    await asyncio.wait_for(receiver.closed.wait(), 10)


async def test_a_header_that_would_end_its_line_is_sent_to_nobody(receiver: Receiver) -> None:

    exchange = Exchange(aiohttp.TCPConnector(), read_buffer=1024, most=1024)
    for value in ("a\r\nX: b", "a\nX: b", "a\rX: b", "a\0b"):
        with pytest.raises(ValueError, match="line break"):
            await exchange.ask("POST", URL(receiver.url()), {"A": value}, b"")
    assert receiver.connections == 0
    await exchange.close()


async def test_the_dot_behind_a_host_is_for_the_name_server_and_not_for_the_receiver(
    receiver: Receiver, producer: HttpProducer, monkeypatch: pytest.MonkeyPatch
) -> None:
    names: list[str] = []
    real = socket.getaddrinfo

    def look_up(host: str, *values: Any, **named: Any) -> Any:
        names.append(host)
        return real("127.0.0.1", *values, **named)

    monkeypatch.setattr("socket.getaddrinfo", look_up)
    await producer.send(task(f"http://api.test.:{receiver.port}/"))
    assert {*names} == {"api.test."}  # without it, a list of domains to search would count
    assert receiver.requests[0].headers["Host"] == f"api.test:{receiver.port}"
