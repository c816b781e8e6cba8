"""The HTTP producer against real sockets: the bytes it sends and what it makes of the answers."""

from __future__ import annotations

import asyncio
import base64
import gzip
from collections.abc import AsyncIterator
from typing import Any

import pytest
from msgspec.structs import replace

from rebound.adapters.producers.http import MAX_READ, HttpProducer
from rebound.domain import validation
from rebound.domain.destination import Destination
from rebound.domain.errors import DeliveryError, Rejected
from rebound.domain.task import Attempt, DeadReason, Leg, Outcome
from rebound.ports import Receipt
from tests.receiver import Receiver, Request, answer, failing, receiving, task


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    async with receiving() as it:
        yield it


@pytest.fixture
async def producer() -> AsyncIterator[HttpProducer]:
    it = HttpProducer(version="1.2")
    yield it
    await it.aclose()


# -- what is sent ------------------------------------------------------------------------------


async def test_exactly_these_headers_and_bytes_are_sent(
    receiver: Receiver, producer: HttpProducer
) -> None:
    text = '{"naïve": "☃",\n "b": 1.0}'
    assert await producer.send(task(receiver.url(), data=text)) == Receipt(200, "ok")
    assert receiver.requests == [
        Request(
            "POST /hook HTTP/1.1",
            {
                "Host": f"127.0.0.1:{receiver.port}",
                "Accept": "*/*",
                "Content-Type": "application/json",
                "Content-Length": str(len(text.encode())),
                "User-Agent": "rebound/1.2",
                "X-Message-Key": "t-1",
                "X-Rebound-Task-Id": "t-1",
                "X-Rebound-Attempt": "1",
            },
            text.encode(),
        )
    ]


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE", "GET"])
@pytest.mark.parametrize("data", ["", "hello"])
async def test_every_method_sends_the_body_and_its_length(
    method: str, data: str, receiver: Receiver, producer: HttpProducer
) -> None:
    await producer.send(task(receiver.url(), data=data, to={"method": method}))
    (request,) = receiver.requests
    assert request.line == f"{method} /hook HTTP/1.1"
    assert request.body == data.encode()
    assert request.headers["Content-Type"] == "application/json"
    assert "Transfer-Encoding" not in request.headers


async def test_json_is_sent_as_the_text_that_was_received(
    receiver: Receiver, producer: HttpProducer
) -> None:
    raw = b'{ "b" : 1.0,  "a": "\\u00e9" , "n": null }'
    one = validation.parse(
        b'{"id":"t","source":"s","destination":{"url":"%s"},"message_data":%s}'
        % (receiver.url().encode(), raw)
    )
    await producer.send(one)
    await producer.send(task(receiver.url(), data=None))
    assert [r.body for r in receiver.requests] == [raw, b"null"]


async def test_base64_is_sent_decoded_as_octet_stream(
    receiver: Receiver, producer: HttpProducer
) -> None:
    data = base64.b64encode(bytes(range(256))).decode()
    await producer.send(task(receiver.url(), data=data, message_encoding="base64"))
    assert receiver.requests[0].body == bytes(range(256))
    assert receiver.requests[0].headers["Content-Type"] == "application/octet-stream"


@pytest.mark.parametrize(
    ("key", "sent"),
    [
        (None, "t-1"),
        ("order 7/ü%", "order%207/%C3%BC%"),
        ({"base64": base64.b64encode(b"\x00a\xff~").decode()}, "%00a%FF~"),
    ],
)
async def test_the_key_is_percent_encoded_outside_visible_ascii(
    key: Any, sent: str, receiver: Receiver, producer: HttpProducer
) -> None:
    await producer.send(task(receiver.url(), message_key=key))
    assert receiver.requests[0].headers["X-Message-Key"] == sent


async def test_the_users_headers_replace_defaults_but_never_ours(
    receiver: Receiver, producer: HttpProducer
) -> None:
    one = task(receiver.url(), to={"headers": {"content-TYPE": "text/plain", "user-agent": "me"}})
    forged = {"X-MESSAGE-KEY": "x", "x-rebound-attempt": "9", "content-length": "1", "X-Own": "ü"}
    headers = {**(one.destination.headers or {}), **forged}  # type: ignore[dict-item]
    await producer.send(replace(one, destination=replace(one.destination, headers=headers)))
    sent = receiver.requests[0].headers
    assert (sent["content-TYPE"], sent["user-agent"], sent["X-Own"]) == ("text/plain", "me", "ü")
    assert (sent["X-Message-Key"], sent["X-Rebound-Attempt"]) == ("t-1", "1")
    lower = [name.lower() for name in sent]
    assert len(lower) == len(set(lower))


@pytest.mark.parametrize(
    ("rest", "target"),
    [
        ("", "/"),
        ("?x=%20+a", "/?x=%20+a"),
        ("//a/../b%2f%7e;c=d,e@f?q=/?:@&%zz", "//a/../b%2f%7e;c=d,e@f?q=/?:@&%zz"),
        ("/p?q=1#fragment", "/p?q=1"),
        ("/ü?é", "/%C3%BC?%C3%A9"),
    ],
)
async def test_the_url_is_sent_byte_for_byte(
    rest: str, target: str, receiver: Receiver, producer: HttpProducer
) -> None:
    await producer.send(task(receiver.url(rest, scheme="HTTP")))
    assert receiver.requests[0].line == f"POST {target} HTTP/1.1"


async def test_userinfo_becomes_basic_auth_unless_the_user_set_it(
    receiver: Receiver, producer: HttpProducer
) -> None:
    url = receiver.url().replace("://", "://me:p%40ü@")
    await producer.send(task(url))
    await producer.send(task(url, to={"headers": {"authorization": "Bearer x"}}))
    first, second = receiver.requests
    assert first.headers["Authorization"] == "Basic " + base64.b64encode("me:p@ü".encode()).decode()
    assert first.headers["Host"] == f"127.0.0.1:{receiver.port}"
    assert "Authorization" not in second.headers
    assert second.headers["authorization"] == "Bearer x"


async def test_the_dead_letter_says_why_and_from_where(
    receiver: Receiver, producer: HttpProducer
) -> None:
    main = Attempt(Leg.MAIN, 2, 1.0, 1.0, Outcome.FAILED, error="ünly " + "é" * 200)
    dead = Attempt(Leg.DEAD, 1, 2.0, 1.0, Outcome.FAILED, error="HTTP 500")
    one = replace(
        task("https://me:secret@api.test:8443/a/b?token=1#f", message_key="k"),
        source="shöp a", leg=Leg.DEAD, dead_reason=DeadReason.EXHAUSTED, attempt=2,
        dead_attempt=1, attempts=(main, dead), last_error="HTTP 500",
        dead_destination=Destination(url=receiver.url("/dlq"), headers={"X-A": "b"}),
    )  # fmt: skip
    await producer.send(one)
    sent = receiver.requests[0].headers
    assert {k: v for k, v in sent.items() if k.startswith("X-") and "Error" not in k} == {
        "X-A": "b",
        "X-Message-Key": "k",
        "X-Rebound-Task-Id": "t-1",
        "X-Rebound-Attempt": "2",
        "X-Rebound-Dead-Reason": "exhausted",
        "X-Rebound-Attempts": "2",
        "X-Rebound-Source": "sh%C3%B6p a",
        "X-Rebound-Original-Destination": "https://api.test:8443/a/b",
    }
    assert sent["X-Rebound-Last-Error"] == "%C3%BCnly " + "%C3%A9" * 41
    assert receiver.requests[0].line == "POST /dlq HTTP/1.1"


# -- how an answer counts ----------------------------------------------------------------------


@pytest.mark.parametrize("status", [200, 201, 202, 299])
async def test_any_2xx_is_a_success(
    status: int, receiver: Receiver, producer: HttpProducer
) -> None:
    receiver.reply = answer(status, b"\xff" + "ü".encode() * 600)
    receipt = await producer.send(task(receiver.url()))
    assert receipt == Receipt(status, "�" + "ü" * 511)


@pytest.mark.parametrize("status", [304, 400, 404, 410, 500, 503, 999])
async def test_any_other_status_is_a_failure_with_its_text(
    status: int, receiver: Receiver, producer: HttpProducer
) -> None:
    body = b"" if status == 304 else b"no"
    receiver.reply = answer(status, body)
    error = await failing(producer, task(receiver.url("/x?token=1")))
    assert (str(error), error.status, error.response) == (f"HTTP {status}", status, body.decode())
    assert (type(error), error.retry_after) == (DeliveryError, None)


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_a_redirect_is_a_failure_and_is_not_followed(
    status: int, receiver: Receiver, producer: HttpProducer
) -> None:
    receiver.reply = answer(status, Location=receiver.url("/elsewhere"))
    assert str(await failing(producer, task(receiver.url()))) == f"HTTP {status}"
    assert len(receiver.requests) == 1


@pytest.mark.parametrize(
    ("status", "headers", "wait"),
    [
        (429, {"Retry_After": "120"}, 120.0),
        (503, {"Retry_After": "9" * 400}, 1e15),
        (503, {"Retry_After": "Tue, 24 Nov 2026 13:00:30 GMT",
               "Date": "Tue, 24 Nov 2026 13:00:00 GMT"}, 30.0),
        (503, {"Retry_After": "Tue Nov 24 13:00:30 2026",
               "Date": "Tuesday, 24-Nov-26 13:00:00 GMT"}, 30.0),
        (429, {"Retry_After": "Sun, 06 Nov 1994 08:49:37 GMT"}, None),
        (429, {"Retry_After": "-1"}, None),
        (500, {"Retry_After": "120"}, None),
        (429, {}, None),
    ],
)  # fmt: skip
async def test_retry_after_counts_on_429_and_503(
    status: int, headers: dict[str, str], wait: float | None, receiver: Receiver,
    producer: HttpProducer,
) -> None:  # fmt: skip
    receiver.reply = answer(status, **headers)
    assert (await failing(producer, task(receiver.url()))).retry_after == wait


@pytest.mark.parametrize(
    ("own", "default", "leg", "rejected"),
    [
        (None, (), Leg.MAIN, False),
        (None, (410,), Leg.MAIN, True),
        (None, ("4xx",), Leg.MAIN, True),
        (None, ("5xx", 404), Leg.MAIN, False),
        ([410], (), Leg.MAIN, True),
        (["4xx"], (500,), Leg.MAIN, True),
        ([], ("4xx",), Leg.MAIN, False),
        ([410], ("4xx",), Leg.DEAD, False),
    ],
)
async def test_a_fatal_status_rejects_the_main_leg_only(
    own: list[int | str] | None, default: tuple[int | str, ...], leg: Leg, rejected: bool,
    receiver: Receiver,
) -> None:  # fmt: skip
    receiver.reply = answer(410, b"gone")
    producer = HttpProducer(fatal_statuses=default)
    to = task(receiver.url(), to={"fatal_statuses": own}).destination
    one = replace(task(receiver.url()), destination=to, dead_destination=to, leg=leg)
    error = await failing(producer, one)
    assert isinstance(error, Rejected) is rejected
    assert (str(error), error.status, error.response) == ("HTTP 410", 410, "gone")
    await producer.aclose()


async def test_a_compressed_answer_is_not_inflated(
    receiver: Receiver, producer: HttpProducer
) -> None:
    bomb = gzip.compress(b"a" * 10_000_000)
    receiver.reply = answer(200, bomb, Content_Encoding="gzip")
    receipt = await producer.send(task(receiver.url()))
    assert receipt.response is not None
    assert receipt.response.encode("latin-1", "replace")[0] == 0x1F
    assert len(receipt.response) <= 1024


async def test_of_a_huge_answer_64_kib_are_read_and_the_connection_is_closed(
    receiver: Receiver, producer: HttpProducer
) -> None:
    written = 0

    async def gigabyte(writer: asyncio.StreamWriter) -> None:
        nonlocal written
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\n")
        while written < 1_000_000_000:
            writer.write(b"x" * MAX_READ)
            await writer.drain()
            written += MAX_READ

    receiver.reply = gigabyte
    assert await producer.send(task(receiver.url())) == Receipt(200, "x" * 1024)
    await asyncio.wait_for(receiver.closed.wait(), 10)
    assert written < 20_000_000


async def test_a_status_that_failed_decides_even_if_its_body_never_ends(
    receiver: Receiver, producer: HttpProducer
) -> None:
    receiver.reply = b"HTTP/1.1 503 No\r\nRetry-After: 7\r\nContent-Length: 9\r\n\r\npart"
    error = await failing(producer, task(receiver.url(), to={"timeout": 0.05}))
    assert (str(error), error.status, error.response) == ("HTTP 503", 503, "part")
    assert error.retry_after == 7.0
