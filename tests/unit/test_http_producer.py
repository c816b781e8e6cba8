"""The HTTP producer against real sockets: the bytes it sends."""

from __future__ import annotations

import base64
from collections.abc import AsyncIterator
from typing import Any

import pytest
from msgspec.structs import replace

from rebound.adapters.producers.http import HttpProducer
from rebound.domain import validation
from rebound.domain.attempt import Attempt, DeadReason, Leg, Outcome
from rebound.domain.destination import Destination
from rebound.ports import Receipt
from tests.receiver import Receiver, Request, producing, receiving, task


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    async with receiving() as it:
        yield it


@pytest.fixture(params=["itself", "session"])
async def producer(request: pytest.FixtureRequest) -> AsyncIterator[HttpProducer]:
    async with producing(by=request.param) as it:
        yield it


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


async def test_a_message_of_megabytes_arrives_whole(
    receiver: Receiver, producer: HttpProducer
) -> None:
    data = "0123456789abcdef" * 200_000
    await producer.send(task(receiver.url(), data=data))
    assert receiver.requests[0].body == data.encode()


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
        main_error="ünly " + "é" * 200,
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
