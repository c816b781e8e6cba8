"""What the HTTP producer makes of an answer, against real sockets."""

from __future__ import annotations

import asyncio
import gzip
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest
from msgspec.structs import replace

from rebound.adapters.producers.http import MAX_READ, HttpProducer
from rebound.domain.attempt import Leg
from rebound.domain.errors import DeliveryError, Rejected
from rebound.ports import Receipt
from tests.receiver import OK, Receiver, answer, failing, producing, receiving, task


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    async with receiving() as it:
        yield it


@pytest.fixture(params=["itself", "session"])
async def producer(request: pytest.FixtureRequest) -> AsyncIterator[HttpProducer]:
    async with producing(by=request.param) as it:
        yield it


def in_parts(parts: list[bytes]) -> Callable[[asyncio.StreamWriter], Awaitable[None]]:
    """A reply whose parts come one after the other."""

    async def write(writer: asyncio.StreamWriter) -> None:
        for part in parts:
            writer.write(part)
            await writer.drain()
            await asyncio.sleep(0.05)

    return write


@pytest.mark.parametrize("status", [200, 201, 202, 299])
async def test_any_2xx_is_a_success(
    status: int, receiver: Receiver, producer: HttpProducer
) -> None:
    receiver.reply = answer(status, b"\xff" + "ü".encode() * 600)
    receipt = await producer.send(task(receiver.url()))
    assert receipt == Receipt(status, "�" + "ü" * 511)


@pytest.mark.parametrize("status", ["099", 304, 400, 404, 410, 500, 503, 999])
async def test_any_other_status_is_a_failure_with_its_text(
    status: int | str, receiver: Receiver, producer: HttpProducer
) -> None:
    body, number = b"" if status == 304 else b"no", int(status)
    receiver.reply = answer(status, body)
    error = await failing(producer, task(receiver.url("/x?token=1")))
    assert (str(error), error.status, error.response) == (f"HTTP {number}", number, body.decode())
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
    receiver.reply = answer(status, b"", **headers)
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


INTERIM = b"HTTP/1.1 103 Early Hints\r\n\r\n"


async def test_interim_answers_are_skipped(receiver: Receiver, producer: HttpProducer) -> None:
    receiver.reply = INTERIM * 10 + answer(200, b"ok")
    assert await producer.send(task(receiver.url())) == Receipt(200, "ok")


@pytest.mark.parametrize("producer", ["itself"], indirect=True)
async def test_a_flood_of_interim_answers_ends_the_attempt(
    receiver: Receiver, producer: HttpProducer
) -> None:
    written = 0

    async def flood(writer: asyncio.StreamWriter) -> None:
        nonlocal written
        while True:
            writer.write(INTERIM * 1000)
            await writer.drain()
            written += 1

    receiver.reply = flood
    error = await failing(producer, task(receiver.url()))
    assert str(error) == "invalid HTTP response: too many responses"
    await asyncio.wait_for(receiver.closed.wait(), 10)
    assert written < 1000


async def test_answers_that_nobody_asked_for_are_taken_for_no_other_request(
    receiver: Receiver, producer: HttpProducer
) -> None:
    receiver.reply = answer(200, b"first") + answer(200, b"stray")
    assert await producer.send(task(receiver.url())) == Receipt(200, "first")
    receiver.reply = answer(500)
    assert str(await failing(producer, task(receiver.url()))) == "HTTP 500"


@pytest.mark.parametrize("producer", ["itself"], indirect=True)
async def test_a_connection_that_is_flooded_while_idle_is_closed(
    receiver: Receiver, producer: HttpProducer
) -> None:
    async def flood(writer: asyncio.StreamWriter) -> None:
        writer.write(answer(200, b"ok"))
        await writer.drain()
        idle.set()
        while True:
            await asyncio.sleep(0)
            writer.write(answer(200, b"stray") * 1000)
            await writer.drain()

    idle = asyncio.Event()
    receiver.reply = flood
    assert await producer.send(task(receiver.url())) == Receipt(200, "ok")
    await idle.wait()
    await asyncio.wait_for(receiver.closed.wait(), 10)


@pytest.mark.parametrize("producer", ["itself"], indirect=True)
@pytest.mark.parametrize(
    ("parts", "text"),
    [
        ([b"HTTP/1.1 204 No Content\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"], ""),
        ([b"HTTP/1.1 204 No Content\r\n", b"\r\n{}"], ""),
        ([b"HTTP/1.1 204 No Content\r\n\r", b"\n{}"], ""),
        ([b"HTTP/1.1 200 OK\nContent-Length: 0\n", b"\n{}"], ""),
        ([INTERIM + OK + b"more"], "ok"),
        ([OK[:-1], b"kmore"], "ok"),
        ([b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\nmore"], "ok"),
    ],
)
async def test_what_is_sent_beyond_an_answer_changes_nothing_but_ends_the_connection(
    parts: list[bytes], text: str, receiver: Receiver, producer: HttpProducer
) -> None:
    receiver.reply = in_parts(parts)
    assert (await producer.send(task(receiver.url()))).response == text
    await asyncio.wait_for(receiver.closed.wait(), 10)


@pytest.mark.parametrize("producer", ["itself"], indirect=True)
async def test_a_status_counts_whatever_is_sent_beyond_its_answer(
    receiver: Receiver, producer: HttpProducer
) -> None:
    receiver.reply = answer(410) + b"Gone"
    gone = task(receiver.url(), to={"fatal_statuses": [410]})
    assert isinstance(await failing(producer, gone), Rejected)


@pytest.mark.parametrize("producer", ["itself"], indirect=True)
@pytest.mark.parametrize("cut", [0, 1], ids=["at once", "later"])
@pytest.mark.parametrize(
    ("status", "said"), [(200, "the response broke off or is malformed"), (500, "HTTP 500")]
)
async def test_a_malformed_body_ends_the_attempt_at_once(
    status: int, said: str, cut: int, receiver: Receiver, producer: HttpProducer
) -> None:
    head = b"HTTP/1.1 %d Whatever\r\nTransfer-Encoding: chunked\r\n\r\n" % status
    receiver.reply = in_parts([head, b"zz\r\nok\r\n"] if cut else [head + b"zz\r\nok\r\n"])
    error = await asyncio.wait_for(failing(producer, task(receiver.url())), 10)
    assert (str(error), error.status, error.timed_out) == (said, status, False)
