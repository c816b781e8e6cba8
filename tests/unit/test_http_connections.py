"""The HTTP producer's connections: how they fail, how long they may take, how they are kept."""

from __future__ import annotations

import asyncio
import sys
import threading
import time
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Any

import aiohttp
import pytest

from rebound.adapters.producers.http import HttpProducer
from rebound.adapters.producers.resolver import Resolver
from rebound.domain.errors import Deferred, DeliveryError, Rejected
from tests.conftest import free_port
from tests.receiver import OK, Receiver, answer, failing, receiving, task
from tests.support import until

SECRET = "hunter2"


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    async with receiving() as it:
        yield it


@pytest.fixture
async def producer() -> AsyncIterator[HttpProducer]:
    it = HttpProducer(version="1.2")
    yield it
    await it.aclose()


async def reset(writer: asyncio.StreamWriter) -> None:
    writer.transport.abort()


HANG = b""


async def trickle(writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n")
    while True:
        writer.write(b".")
        await writer.drain()
        await asyncio.sleep(0.01)


async def break_off(writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nhalf")
    await writer.drain()
    writer.close()


# -- failures ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("reply", "message", "status"),
    [
        (reset, "connection ", None),
        (b"SSH-2.0-OpenSSH_9.2\r\n", "invalid HTTP response: ", None),
        (b"HTTP/1.1 abc OK\r\n\r\n", "invalid HTTP response: ", None),
        (b"HTTP/1.1 200 OK\r\nNo colon hunter2\r\n\r\n", "invalid HTTP response: ", None),
        (b"HTTP/1.1 200 OK\r\nX: " + b"hunter2" * 20_000 + b"\r\n\r\n", "invalid HTTP resp", None),
        (break_off, "the response broke off", 200),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nhunter2\r\n", "", None),
    ],
)
async def test_a_broken_answer_is_a_short_message_without_secrets(
    reply: Any, message: str, status: int | None, receiver: Receiver, producer: HttpProducer
) -> None:
    receiver.reply = reply
    url = receiver.url(f"/x?token={SECRET}").replace("://", f"://me:{SECRET}@")
    one = task(url, to={"headers": {"Authorization": SECRET}})
    error = await failing(producer, one)
    assert str(error).startswith(message)
    assert SECRET not in str(error)
    assert 0 < len(str(error)) < 160
    assert type(error) is DeliveryError
    assert not error.timed_out
    if message:
        assert error.status == status


async def test_a_connection_closed_without_an_answer_is_one_request_whatever_the_method(
    receiver: Receiver, producer: HttpProducer
) -> None:
    async def close(writer: asyncio.StreamWriter) -> None:
        writer.close()

    receiver.reply = close
    for number, method in enumerate(("POST", "PUT", "DELETE", "GET"), 1):
        error = await failing(producer, task(receiver.url(), to={"method": method}))
        assert str(error) == "connection closed without a response"
        assert len(receiver.requests) == number


async def test_a_refused_connection_says_so(producer: HttpProducer) -> None:
    error = await failing(producer, task(f"http://u:{SECRET}@127.0.0.1:{free_port()}/"))
    assert str(error) == "connection refused"


async def test_an_unknown_host_says_so(producer: HttpProducer) -> None:
    error = await failing(producer, task(f"http://u:{SECRET}@nowhere.invalid/?{SECRET}"))
    assert str(error) == "cannot resolve host nowhere.invalid"


async def test_tls_to_a_plain_port_says_so(producer: HttpProducer) -> None:
    async def plain(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(100)
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        writer.close()

    server = await asyncio.start_server(plain, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    error = await failing(producer, task(f"https://127.0.0.1:{port}/"))
    server.close()
    assert str(error).startswith("TLS: ")
    assert type(error) is DeliveryError


@pytest.mark.parametrize("url", ["http://127.1/", "http://2130706433/"])
async def test_a_url_that_cannot_be_sent_to_is_rejected(url: str, producer: HttpProducer) -> None:
    error = await failing(producer, task(url))
    assert (type(error), str(error)[:22]) == (Rejected, "has no valid host or p")


# -- the time limit ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "reply", [HANG, trickle, b"HTTP/1.1 200 OK\r\nX: ", b"HTTP/1.1 100 C\r\n\r\n"]
)
@pytest.mark.parametrize("limit", [0.001, 0.08])
async def test_the_limit_covers_headers_and_body(
    reply: Any, limit: float, receiver: Receiver, producer: HttpProducer
) -> None:
    receiver.reply = reply
    started = time.perf_counter()
    error = await failing(producer, task(receiver.url(), to={"timeout": limit}))
    took = time.perf_counter() - started
    assert error.timed_out
    assert str(error) == f"no complete response within {limit:g} s"
    assert limit <= took < limit + 1
    if limit > 0.01:
        assert error.status == (200 if reply is trickle else None)
        assert error.response == (error.response and "." * len(error.response))
        await asyncio.wait_for(receiver.closed.wait(), 5)


async def test_the_limit_covers_sending(producer: HttpProducer) -> None:
    async def never_read(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.transport.pause_reading()  # type: ignore[attr-defined]
        await done.wait()
        writer.close()

    done = asyncio.Event()
    server = await asyncio.start_server(never_read, "127.0.0.1", 0, limit=1024)
    port = server.sockets[0].getsockname()[1]
    one = task(f"http://127.0.0.1:{port}/", data="x" * 20_000_000, to={"timeout": 0.2})
    assert (await failing(producer, one)).timed_out
    done.set()
    server.close()


async def test_a_cancelled_send_is_cancelled_and_closes_its_connection(
    receiver: Receiver, producer: HttpProducer
) -> None:
    receiver.reply = HANG
    sending = asyncio.create_task(producer.send(task(receiver.url())))
    await until(lambda: receiver.requests)
    sending.cancel()
    with pytest.raises(asyncio.CancelledError):
        await sending
    await asyncio.wait_for(receiver.closed.wait(), 5)


# -- the pool ----------------------------------------------------------------------------------


async def test_a_connection_is_kept_alive_also_after_failures(
    receiver: Receiver, producer: HttpProducer
) -> None:
    for reply in (OK, answer(500, b"x" * 5000), answer(204), OK):
        receiver.reply = reply
        with suppress(DeliveryError):
            await producer.send(task(receiver.url()))
    assert (len(receiver.requests), receiver.connections) == (4, 1)


async def test_a_server_that_closes_without_saying_so_costs_no_attempt(
    receiver: Receiver, producer: HttpProducer
) -> None:
    async def answer_and_close(writer: asyncio.StreamWriter) -> None:
        writer.write(OK)
        writer.close()

    receiver.reply = answer_and_close
    for number in range(1, 21):
        await producer.send(task(receiver.url()))
        assert len(receiver.requests) == number
        if sys.version_info >= (3, 12):  # where aiohttp writes before the loop has seen the close
            await asyncio.sleep(0)


async def test_no_cookie_is_kept(receiver: Receiver, producer: HttpProducer) -> None:
    receiver.reply = answer(200, Set_Cookie="session=1; Path=/")
    for _ in range(2):
        await producer.send(task(receiver.url()))
    assert all("Cookie" not in request.headers for request in receiver.requests)


async def test_hundreds_are_sent_at_once(receiver: Receiver, producer: HttpProducer) -> None:
    async def together(writer: asyncio.StreamWriter) -> None:
        await until(lambda: len(receiver.requests) == 200)
        writer.write(OK)

    receiver.reply = together
    await asyncio.gather(*(producer.send(task(receiver.url())) for _ in range(200)))


async def test_a_closed_producer_leaves_no_connection_and_can_send_again(
    receiver: Receiver, producer: HttpProducer
) -> None:
    await producer.aclose()
    for _ in range(2):
        receiver.closed.clear()
        await producer.send(task(receiver.url()))
        await producer.aclose()
        await asyncio.wait_for(receiver.closed.wait(), 5)


async def test_the_session_of_the_caller_is_used_and_left_open(receiver: Receiver) -> None:
    async with aiohttp.ClientSession(
        headers={"X-Team": "a", "X-Rebound-Attempt": "7"}, raise_for_status=True
    ) as session:
        producer = HttpProducer(session=session)
        receiver.reply = answer(200, b"\x1f\x8b", Content_Encoding="gzip")
        await producer.send(task(receiver.url()))
        receiver.reply = answer(500)
        assert str(await failing(producer, task(receiver.url()))) == "HTTP 500"
        await producer.aclose()
        assert not session.closed
    sent = receiver.requests[0].headers
    assert (sent["X-Team"], sent["X-Rebound-Attempt"]) == ("a", "1")
    assert "Accept-Encoding" not in sent


async def test_a_name_with_a_dead_name_server_delays_no_other(
    producer: HttpProducer, monkeypatch: pytest.MonkeyPatch
) -> None:
    release = threading.Event()
    monkeypatch.setattr("socket.getaddrinfo", lambda *_, **__: release.wait(20) and [])
    hanging = [asyncio.create_task(Resolver().resolve(f"h{n}", 80)) for n in range(100)]
    await asyncio.sleep(0)
    monkeypatch.undo()
    assert await Resolver().resolve("localhost", 80, 0)  # type: ignore[arg-type]
    assert not any(each.done() for each in hanging)
    release.set()
    assert await asyncio.gather(*hanging) == [[]] * 100


async def test_names_that_nobody_waits_for_any_more_do_not_take_ever_more_threads(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    release, resolver = threading.Event(), Resolver()
    monkeypatch.setattr("rebound.adapters.producers.resolver.MOST", 2)
    monkeypatch.setattr("socket.getaddrinfo", lambda *_, **__: release.wait(20) and [])
    hanging = [asyncio.create_task(resolver.resolve(f"h{n}", 80)) for n in range(2)]
    await asyncio.sleep(0)
    with pytest.raises(Deferred, match="2 names are being looked up"):
        await resolver.resolve("h", 80)
    release.set()
    assert await asyncio.gather(*hanging) == [[], []]
    assert await resolver.resolve("h", 80) == []
