"""Proxies of the HTTP producer: only the one from the settings counts."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from rebound.adapters.producers.http import HttpProducer
from rebound.domain.errors import DeliveryError
from rebound.ports import Receipt
from tests.conftest import free_port
from tests.receiver import Receiver, answer, failing, receiving, task

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


async def test_a_proxy_from_the_environment_is_ignored(
    receiver: Receiver, producer: HttpProducer, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{free_port()}")
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    assert await producer.send(task(receiver.url())) == Receipt(200, "ok")


async def test_the_proxy_of_the_settings_gets_every_request(receiver: Receiver) -> None:
    producer = HttpProducer(proxy=receiver.url("").replace("://", f"://me:{SECRET}@"))
    await producer.send(task("http://api.invalid/a?b=%20"))
    (request,) = receiver.requests
    assert request.line == "POST http://api.invalid/a?b=%20 HTTP/1.1"
    assert request.headers["Host"] == "api.invalid"
    assert request.headers["Proxy-Authorization"].startswith("Basic ")
    await producer.aclose()


async def test_a_proxy_that_fails_is_named_as_the_proxy() -> None:
    async def forbidding(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer(407))
        writer.close()

    server = await asyncio.start_server(forbidding, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    for proxy, message in ((port, "proxy: HTTP 407"), (free_port(), "proxy: connection refused")):
        producer = HttpProducer(proxy=f"http://me:{SECRET}@127.0.0.1:{proxy}", fatal_statuses=[407])
        error = await failing(producer, task("https://api.invalid/"))
        assert (str(error), error.status, type(error)) == (message, None, DeliveryError)
        await producer.aclose()
    server.close()
