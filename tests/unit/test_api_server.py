"""The API through a real server and real sockets: what only shows on the wire."""

from __future__ import annotations

import asyncio
import io
from collections.abc import AsyncIterator

import aiohttp
import msgspec
import pytest
from yarl import URL

from rebound.adapters.api.app import Api
from tests.unit.asgi import VALID
from tests.unit.wire import raw, serving

MIB = 1_048_576


@pytest.fixture
async def origin(api: Api) -> AsyncIterator[str]:
    """Origin of a server that runs the API."""
    async with serving(api) as found:
        yield found


@pytest.fixture
async def client(origin: str) -> AsyncIterator[aiohttp.ClientSession]:
    """A client with one connection, so that a request shows what the one before left behind."""
    connector = aiohttp.TCPConnector(limit=1)
    async with aiohttp.ClientSession(origin, connector=connector) as session:
        yield session


async def test_head_has_the_headers_of_get_and_leaves_the_connection_usable(
    client: aiohttp.ClientSession,
) -> None:
    for path in ("/health", "/tasks", "/nothing", "/docs"):
        async with client.get(path) as get, client.head(path) as head:
            assert head.status == get.status
            kept = ("Content-Type", "Content-Length")
            assert [head.headers[k] for k in kept] == [get.headers[k] for k in kept]
            assert await head.read() == b""


async def test_a_deleted_tasks_204_has_no_body_and_no_length(client: aiohttp.ClientSession) -> None:
    async with client.post("/tasks", json={**VALID, "id": "a"}) as reply:
        assert reply.status == 201
    await client.post("/tasks/a/cancel")
    async with client.delete("/tasks/a") as reply:
        assert reply.status == 204
        assert not {"Content-Length", "Transfer-Encoding"} & set(reply.headers)
    async with client.get("/tasks/a") as reply:
        assert reply.status == 404


async def test_an_id_with_slashes_survives_the_way(client: aiohttp.ClientSession) -> None:
    await client.post("/tasks", json={**VALID, "id": "a/../b c".replace(" ", "%")})
    async with client.get(URL("/tasks/a%2F..%2Fb%25c", encoded=True)) as reply:
        assert (await reply.json())["id"] == "a/../b%c"


async def test_a_chunked_body_is_read_whole(client: aiohttp.ClientSession) -> None:
    async def chunks() -> AsyncIterator[bytes]:
        for part in (b'{"source": "s", ', b'"destination": ', b'{"url": "http://a.b"}}'):
            yield part

    async with client.post("/tasks", data=chunks()) as reply:
        # aiohttp calls it application/octet-stream.
        assert reply.status == 415
    headers = {"Content-Type": "application/json"}
    async with client.post("/tasks", data=chunks(), headers=headers) as reply:
        assert reply.status == 201


@pytest.mark.parametrize("path", ["/tasks", "/tasks/batch", "/tasks/a/cancel"])
@pytest.mark.parametrize("chunked", [True, False])
async def test_a_413_is_seen_by_who_sends_a_large_body(
    client: aiohttp.ClientSession, path: str, chunked: bool
) -> None:
    async def chunks() -> AsyncIterator[bytes]:
        for _ in range(30):
            yield b"x" * MIB

    data = chunks() if chunked else io.BytesIO(b"x" * (30 * MIB))
    async with client.post(path, data=data) as reply:
        assert reply.status == 413
        assert (await reply.json())["code"] == "PAYLOAD_TOO_LARGE"
    async with client.get("/livez") as reply:
        assert reply.status == 200


@pytest.mark.parametrize(
    ("method", "path", "headers", "status"),
    [
        ("POST", "/nothing", {}, 404),
        ("PUT", "/tasks", {}, 405),
        ("POST", "/tasks", {"Origin": "http://elsewhere"}, 403),
        ("POST", "/tasks", {"Content-Type": "text/plain"}, 415),
    ],
)
async def test_other_errors_are_seen_as_well_and_the_connection_stays(
    client: aiohttp.ClientSession, method: str, path: str, headers: dict[str, str], status: int
) -> None:
    async with client.request(method, path, data=b"x" * MIB, headers=headers) as reply:
        assert reply.status == status
    async with client.get("/livez") as reply:
        assert reply.status == 200


async def test_after_32_mib_the_answer_comes_and_the_connection_ends(origin: str) -> None:
    head = b"POST /tasks HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % (64 * MIB)
    answer = await raw(origin, head, *[b"x" * MIB] * 32)
    assert answer.startswith(b"HTTP/1.1 413 ")
    assert b"connection: close" in answer


async def test_a_client_that_asks_first_is_told_to_go_on(origin: str) -> None:
    body = b'{"source": "s", "destination": {"url": "http://a.b"}}'
    head = (
        b"POST /tasks HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\nExpect: 100-continue\r\n"
        b"Connection: close\r\n\r\n" % len(body)
    )
    answer = await raw(origin, head, body)
    assert answer.startswith(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 201 ")


async def test_bytes_that_are_no_http_are_400_and_others_are_still_served(
    origin: str, client: aiohttp.ClientSession
) -> None:
    for text in (
        b"nonsense\r\n\r\n",
        b"GET /\xff HTTP/1.1\r\nHost: x\r\n\r\n",
        b"POST /tasks HTTP/1.1\r\nHost: x\r\nContent-Length: five\r\n\r\n",
        b"POST /tasks HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n",
        b"POST /tasks HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
    ):
        answer = await raw(origin, text)
        assert answer.startswith(b"HTTP/1.1 400 ")
        assert answer.endswith(b'{"error":"the request is not HTTP/1.1","code":"BAD_REQUEST"}')
    async with client.get("/livez") as reply:
        assert reply.status == 200


async def test_a_client_that_leaves_in_the_middle_of_its_body_stores_nothing(
    origin: str, client: aiohttp.ClientSession, caplog: pytest.LogCaptureFixture
) -> None:
    url = URL(origin)
    _, writer = await asyncio.open_connection(url.host, url.port)
    head = b"POST /tasks HTTP/1.1\r\nHost: x\r\nContent-Length: 500\r\n\r\n"
    writer.write(head + b'{"source": "s", "destination": {"url": "http://a.b"}}')
    writer.close()
    await writer.wait_closed()
    async with client.get("/tasks") as reply:
        assert (await reply.json())["tasks"] == []
    assert not [r for r in caplog.records if r.levelname == "ERROR"]


async def test_many_requests_on_one_connection_are_answered_in_order(origin: str) -> None:
    ask = b"GET /tasks/t%d HTTP/1.1\r\nHost: x\r\n%s\r\n"
    asked = [ask % (n, b"Connection: close\r\n" if n == 9 else b"") for n in range(10)]
    answer = await raw(origin, b"".join(asked))
    assert [answer.find(b"no task t%d " % n) for n in range(10)] == sorted(
        answer.find(b"no task t%d " % n) for n in range(10)
    )
    assert answer.count(b"HTTP/1.1 404 ") == 10


OFFER = b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n"
"""What Java's client and `curl --http2` send with the first request of a connection."""
LAST = b"GET /livez HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"


@pytest.mark.parametrize("cut", [1, 40, 150, 250, 1000])
@pytest.mark.parametrize("chunked", [False, True], ids=["length", "chunked"])
async def test_a_request_that_offers_another_protocol_is_answered_in_this_one(
    chunked: bool, cut: int, origin: str, caplog: pytest.LogCaptureFixture
) -> None:
    body = msgspec.json.encode(VALID)
    length = b"Content-Length: %d\r\n\r\n" % len(body)
    if chunked:
        length, body = (
            b"Transfer-Encoding: chunked\r\n\r\n",
            b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body),
        )
    sent = b"POST /tasks HTTP/1.1\r\nHost: x\r\n" + OFFER + length + body
    answers = await raw(origin, sent[:cut], sent[cut:] + LAST)
    assert [a[:4] for a in answers.split(b"HTTP/1.1 ")[1:]] == [b"201 ", b"200 "]
    assert not caplog.records


async def test_many_offers_at_once_are_answered_each(origin: str) -> None:
    offering = b"GET /livez HTTP/1.1\r\nHost: x\r\n" + OFFER + b"\r\n"
    answers = await raw(origin, offering * 900 + LAST)
    assert answers.count(b"HTTP/1.1 200 ") == 901


@pytest.mark.parametrize(
    "line", [b"HTTP/1.0\r\nConnection: upgrade", b"HTTP/1.1\r\nConnection: close, upgrade"]
)
async def test_an_offer_on_a_connection_that_is_to_end_is_answered(
    line: bytes, origin: str
) -> None:
    request = b"GET /livez " + line + b"\r\nHost: x\r\nUpgrade: h2c\r\n\r\n"
    assert (await raw(origin, request)).startswith(b"HTTP/1.1 200 ")
