"""Deliveries to https:// destinations, against a real TLS server with an authority of its own."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from rebound.adapters.producers.http import HttpProducer
from rebound.ports import Receipt
from tests.certificates import sign
from tests.receiver import OK, Receiver, failing, producing, task
from tests.support import until


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with an authority, and what it signed for `localhost` and for nothing else."""
    folder = tmp_path_factory.mktemp("certificates")
    sign(folder, "DNS:localhost", "server")
    return folder


@pytest.fixture
async def receiver(certificates: Path) -> AsyncIterator[Receiver]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificates / "server.pem", certificates / "server.key")
    receiver = Receiver()
    server = await asyncio.start_server(receiver.serve, "127.0.0.1", 0, ssl=context)
    receiver.port = server.sockets[0].getsockname()[1]
    yield receiver
    server.close()


@pytest.fixture
async def producer() -> AsyncIterator[HttpProducer]:
    async with producing() as it:
        yield it


@pytest.fixture
def trusted(certificates: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The authority is one of those that aiohttp read from the system when it was imported."""
    context = ssl.create_default_context(cafile=certificates / "ca.pem")
    monkeypatch.setattr("aiohttp.connector._SSL_CONTEXT_VERIFIED", context)


@pytest.mark.usefixtures("trusted")
async def test_attempts_share_a_connection_over_tls(
    receiver: Receiver, producer: HttpProducer
) -> None:
    for _ in range(3):
        sent = await producer.send(task(f"https://localhost:{receiver.port}/"))
        assert sent == Receipt(200, "ok")
    assert (len(receiver.requests), receiver.connections) == (3, 1)


@pytest.mark.usefixtures("trusted")
async def test_a_megabyte_arrives_whole_over_tls(
    receiver: Receiver, producer: HttpProducer
) -> None:
    await producer.send(task(f"https://localhost:{receiver.port}/", data="x" * 1_000_000))
    assert receiver.requests[0].body == b"x" * 1_000_000


@pytest.mark.usefixtures("trusted")
async def test_a_certificate_for_another_host_is_refused(
    receiver: Receiver, producer: HttpProducer
) -> None:
    error = await failing(producer, task(f"https://127.0.0.1:{receiver.port}/"))
    assert str(error).startswith("TLS: IP address mismatch")
    assert receiver.requests == []


async def test_an_unknown_authority_is_refused(receiver: Receiver, producer: HttpProducer) -> None:
    error = await failing(producer, task(f"https://localhost:{receiver.port}/"))
    assert str(error) == "TLS: unable to get local issuer certificate"
    assert receiver.requests == []


@pytest.mark.usefixtures("trusted")
async def test_a_receiver_that_hangs_over_tls_is_left_at_the_time_limit(
    receiver: Receiver, producer: HttpProducer
) -> None:
    async def hang(_: asyncio.StreamWriter) -> None:
        await asyncio.Event().wait()

    receiver.reply = hang
    big = task(f"https://localhost:{receiver.port}/", data="x" * 50_000, to={"timeout": 0.2})
    assert (await failing(producer, big)).timed_out
    receiver.reply = OK
    assert await producer.send(task(f"https://localhost:{receiver.port}/")) == Receipt(200, "ok")
    await until(lambda: receiver.connections == 2)
