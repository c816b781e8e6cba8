"""Connections that flood, dawdle or are too many, through a real server and real sockets."""

from __future__ import annotations

import asyncio
import socket
from contextlib import AsyncExitStack, suppress

import msgspec
import pytest

from rebound.adapters.api.app import Api
from rebound.connections import MAX_HEAD, MAX_HEADERS, Corked
from tests.unit.asgi import validator
from tests.unit.wire import connected, raw, serving

GET = b"GET /livez HTTP/1.1\r\nHost: x\r\n"
POST = b"POST /tasks HTTP/1.1\r\nHost: x\r\n"
CHUNKED = POST + b"Transfer-Encoding: chunked\r\n\r\n"
SOON = 0.2
"""Seconds of patience, where a test waits for its end."""


def refusal(answer: bytes, status: int, code: str) -> None:
    """Fails unless this is the one answer, and one of Rebound's errors."""
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 %d " % status), answer[:200]
    assert b"connection: close" in head.lower()
    error = msgspec.json.decode(body)
    validator("Error").validate(error)
    assert error["code"] == code


async def first_answer(reader: asyncio.StreamReader) -> bytes:
    """While the connection is still open."""
    head = await reader.readuntil(b"\r\n\r\n")
    length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r")[0])
    return head + await reader.readexactly(length)


async def healthy(origin: str) -> bool:
    answer = await raw(origin, GET + b"Connection: close\r\n\r\n")
    return answer.startswith(b"HTTP/1.1 200 ")


# -- floods ------------------------------------------------------------------------------------


def headers(count: int, size: int = 1) -> bytes:
    return b"".join(b"x-%d: %s\r\n" % (n, b"v" * size) for n in range(count))


async def test_as_many_headers_and_as_large_as_allowed_are_read(api: Api) -> None:
    async with serving(api) as origin:
        end = b"Connection: close\r\n\r\n"
        for more in (headers(MAX_HEADERS - 2), b"x: " + b"v" * (MAX_HEAD - 200) + b"\r\n"):
            answer = await raw(origin, GET + more + end)
            assert answer.startswith(b"HTTP/1.1 200 ")


@pytest.mark.parametrize(
    "parts",
    [
        [GET + headers(MAX_HEADERS) + b"\r\n"],
        [GET + headers(50, 2000) + b"\r\n"],
        [GET, *[headers(50, 200)] * 20, b"\r\n"],
        [GET + b"x: ", *[b"v" * 10_000] * 20],
        [b"GET /" + b"x" * 70_000 + b" HTTP/1.1\r\n\r\n"],
        [b"GET /" + b"x" * 20_000, *[b"x" * 20_000] * 20],
        [CHUNKED + b"0\r\n", *[headers(50, 200)] * 20],
        [CHUNKED + b"0\r\nx: ", *[b"v" * 10_000] * 20],
        [CHUNKED + b"1;", *[b"x" * 10_000] * 20],
    ],
    ids=[
        "many", "large", "many in parts", "one without end", "url", "url without end",
        "trailers", "a trailer without end", "a chunk's extension",
    ],
)  # fmt: skip
async def test_a_flood_of_headers_is_431_and_others_are_served(
    api: Api, parts: list[bytes]
) -> None:
    async with serving(api) as origin:
        reader, writer = await connected(origin)
        for part in parts:
            writer.write(part)
        refusal(await first_answer(reader), 431, "HEADERS_TOO_LARGE")
        writer.write(b"more of it")
        writer.close()
        assert await healthy(origin)


async def test_who_floods_has_a_second_to_read_why(api: Api) -> None:
    async with serving(api) as origin:
        answer = await asyncio.wait_for(raw(origin, GET + headers(200) + b"\r\n"), 5)
        refusal(answer, 431, "HEADERS_TOO_LARGE")


async def test_requests_sent_ahead_are_answered_up_to_a_thousand(api: Api) -> None:
    async with serving(api) as origin:
        last = GET + b"Connection: close\r\n\r\n"
        answer = await raw(origin, (GET + b"\r\n") * 1000 + last)
        assert answer.count(b"HTTP/1.1 200 ") == 1001
        answer = await raw(origin, (GET + b"\r\n") * 1010 + last)
        refusal(answer, 429, "RATE_LIMITED")
        assert await healthy(origin)


async def test_a_large_body_is_no_flood(api: Api) -> None:
    body = b" " * 500_000 + b'{"source": "s", "destination": {"url": "http://a.b"}}'
    head = POST + b"Connection: close\r\nContent-Length: %d\r\n\r\n" % len(body)
    async with serving(api) as origin:
        assert (await raw(origin, head + body)).startswith(b"HTTP/1.1 201 ")
        chunks = b"".join(b"1;x=y\r\n \r\n" for _ in range(20_000))
        head = CHUNKED.replace(b"Host", b"Connection: close\r\nHost")
        answer = await raw(origin, head + chunks + b"%x\r\n%s\r\n0\r\n\r\n" % (len(body), body))
        assert answer.startswith(b"HTTP/1.1 201 ")


# -- clients that dawdle -----------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        b"G",
        GET,
        GET + b"\r\n" + GET,
        POST + b"Content-Length: 500\r\n\r\n",
        POST + b"Content-Length: 500\r\n\r\n{",
        CHUNKED + b"1\r\n{\r\n",
        CHUNKED + b"0\r\n",
    ],
)
async def test_a_request_that_does_not_arrive_in_time_is_408(api: Api, text: bytes) -> None:
    async with serving(api, patience=SOON) as origin:
        answer = await asyncio.wait_for(raw(origin, text), 5)
        if text.startswith(GET + b"\r\n"):
            assert answer.startswith(b"HTTP/1.1 200 ")
            _, _, answer = answer.partition(b'{"status":"alive"}')
        refusal(answer, 408, "REQUEST_TIMEOUT")


async def test_a_connection_without_a_request_is_closed_without_words(api: Api) -> None:
    async with serving(api, patience=SOON) as origin:
        assert await asyncio.wait_for(raw(origin), 5) == b""


async def test_a_body_that_nobody_waits_for_is_ended_too(api: Api) -> None:
    async with serving(api, patience=SOON) as origin:
        text = GET + b"Content-Length: 1000000\r\n\r\n{"
        answer = await asyncio.wait_for(raw(origin, text), 5)
        assert answer.startswith(b"HTTP/1.1 200 ")
        assert answer.count(b"HTTP/1.1") == 1


async def test_drop_by_drop_does_not_help(api: Api) -> None:
    async with serving(api, patience=SOON) as origin:
        for text in (GET + b"x: ", POST + b"Content-Length: 500000\r\n\r\n"):
            reader, writer = await connected(origin)
            writer.write(text)
            answered = asyncio.create_task(first_answer(reader))
            async with asyncio.timeout(5):
                while not answered.done():
                    writer.write(b"x")
                    await asyncio.wait([answered], timeout=SOON / 10)
            refusal(answered.result(), 408, "REQUEST_TIMEOUT")
            writer.close()


async def test_who_gets_on_may_take_longer(api: Api) -> None:
    body = b" " * 640_000 + b'{"source": "s", "destination": {"url": "http://a.b"}}'
    async with serving(api, patience=SOON) as origin:
        reader, writer = await connected(origin)
        writer.write(POST + b"Content-Length: %d\r\n\r\n" % len(body))
        began = asyncio.get_running_loop().time()
        for at in range(0, len(body), 32_000):
            writer.write(body[at : at + 32_000])
            await asyncio.sleep(SOON / 8)
        assert asyncio.get_running_loop().time() - began > 2 * SOON
        assert (await reader.readline()).startswith(b"HTTP/1.1 201 ")
        writer.close()


async def test_an_idle_connection_is_kept_and_slow_work_of_ours_is_no_fault_of_the_client(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def slowly() -> None:
        await asyncio.sleep(2 * SOON)

    monkeypatch.setattr(api._engine, "ping", slowly)
    async with serving(api, patience=SOON) as origin:
        reader, writer = await connected(origin)
        for path in (b"/health", b"/livez"):
            writer.write(b"GET %s HTTP/1.1\r\nHost: x\r\n\r\n" % path)
            head = await reader.readuntil(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 200 ")
            await reader.readuntil(b"}}" if path == b"/health" else b"}")
            await asyncio.sleep(2 * SOON)
        writer.close()


async def test_a_client_that_does_not_read_its_answers_is_cut_off(api: Api) -> None:
    async with serving(api, patience=SOON) as origin:
        host, _, port = origin.removeprefix("http://").partition(":")
        with socket.socket() as client:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            client.connect((host, int(port)))
            client.setblocking(False)
            loop = asyncio.get_running_loop()
            request = b"GET /docs HTTP/1.1\r\nHost: x\r\n\r\n"
            async with asyncio.timeout(10):
                with suppress(ConnectionError):
                    while True:
                        await loop.sock_sendall(client, request)


# -- too many ----------------------------------------------------------------------------------


async def test_one_connection_too_many_is_503_and_when_one_leaves_there_is_room(api: Api) -> None:
    async with serving(api, most=3) as origin, AsyncExitStack() as stack:
        writers = []
        for _ in range(3):
            reader, writer = await connected(origin)
            stack.callback(writer.close)
            writer.write(GET + b"\r\n")
            await reader.readuntil(b"}")
            writers.append(writer)
        for _ in range(2):
            refusal(await raw(origin), 503, "TOO_MANY_CONNECTIONS")
        writers[0].close()
        async with asyncio.timeout(5):
            while not await healthy(origin):
                await asyncio.sleep(0.01)


async def test_after_the_time_limit_those_that_said_nothing_make_room(api: Api) -> None:
    async with serving(api, most=5, patience=SOON) as origin, AsyncExitStack() as stack:
        for _ in range(5):
            _, writer = await connected(origin)
            stack.callback(writer.close)
            writer.write(b"GET /livez HTTP/1.1\r\nx: ")
        async with asyncio.timeout(5):
            while not await healthy(origin):
                await asyncio.sleep(0.01)


# -- writing -----------------------------------------------------------------------------------


class Written:
    """A transport that keeps what is written."""

    def __init__(self) -> None:
        self.writes: list[bytes] = []
        self.closing = False

    def write(self, data: bytes) -> None:
        self.writes.append(data)

    def is_closing(self) -> bool:
        return self.closing

    def close(self) -> None:
        self.closing = True


@pytest.fixture
async def written() -> tuple[Written, Corked]:
    written = Written()
    return written, Corked(written, asyncio.get_running_loop())  # type: ignore[arg-type]


async def test_what_is_written_in_one_turn_of_the_loop_is_one_write(
    written: tuple[Written, Corked],
) -> None:
    below, corked = written
    for text in (b"head", b"", b"body"):
        corked.write(text)
    assert below.writes == []
    await asyncio.sleep(0)
    assert below.writes == [b"headbody"]
    corked.write(b"next")
    await asyncio.sleep(0)
    assert below.writes == [b"headbody", b"next"]


async def test_closing_writes_what_is_left_and_nothing_behind_it(
    written: tuple[Written, Corked],
) -> None:
    below, corked = written
    corked.write(b"last")
    corked.close()
    corked.write(b"too late")
    await asyncio.sleep(0)
    assert (below.writes, below.closing, corked.is_closing()) == ([b"last"], True, True)


async def test_who_waits_for_100_continue_gets_it_before_sending(api: Api) -> None:
    body = b'{"source": "s", "destination": {"url": "http://a.b"}}'
    head = POST + b"Expect: 100-continue\r\nContent-Length: %d\r\n\r\n" % len(body)
    async with serving(api) as origin:
        reader, writer = await connected(origin)
        writer.write(head)
        assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        writer.write(body)
        assert (await first_answer(reader)).startswith(b"HTTP/1.1 201 ")
        writer.write(POST.replace(b"POST /tasks", b"HEAD /livez") + b"\r\n")
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200 ")
        writer.close()
