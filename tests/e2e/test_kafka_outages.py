"""Kafka that dies and comes back, a service that stops in the middle, and logins by certificate."""

from __future__ import annotations

import asyncio
import subprocess
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from tests.conftest import RedisServer, need
from tests.e2e import kcat
from tests.e2e.conftest import Receiver, Service
from tests.services.kafka import KafkaBroker, steady_port
from tests.support import until

OUTAGE = 20.0
FAST = {"max_retries": 100, "base_delay": 0.5, "backoff": {"strategy": "fixed"}}


@pytest.fixture
async def services(
    redis_server: RedisServer, tmp_path: Path
) -> AsyncIterator[Callable[[str], Service]]:
    """Services by name, each with a namespace of its own in one Redis."""
    made: list[Service] = []

    def make(name: str) -> Service:
        folder = tmp_path / name
        folder.mkdir()
        store = {"STORE_URL": redis_server.url, "NAMESPACE": f"{tmp_path.name}-{name}"}
        made.append(Service(store, folder))
        return made[-1]

    yield make
    for service in made:
        await service.close()


class Load:
    """Creates tasks for a topic, a batch each 0.1 s, until it is told to stop."""

    def __init__(self, service: Service, url: str) -> None:
        self.accepted: list[str] = []
        self._service = service
        self._url = url
        self._stop = asyncio.Event()
        self._running = asyncio.create_task(self._run())

    async def _run(self) -> None:
        while not self._stop.is_set():
            first = len(self.accepted)
            names = [f"t{n}" for n in range(first, first + 50)]
            await self._service.create_many(
                [{"id": n, "destination": {"url": self._url}, **FAST} for n in names]
            )
            self.accepted += names
            await asyncio.sleep(0.1)

    async def stop(self) -> None:
        self._stop.set()
        await self._running

    async def more(self, count: int) -> None:
        goal = len(self.accepted) + count
        await until(lambda: len(self.accepted) >= goal or self._running.done())


async def delivered(service: Service, seconds: float = 60.0) -> None:
    """Wait until nothing is left to do."""
    async with asyncio.timeout(seconds):
        while await service.find("state=scheduled") or await service.find("state=delivering"):
            await asyncio.sleep(0.1)


async def test_a_broker_killed_for_20_seconds_under_load_gets_every_record_and_disturbs_nobody(
    services: Callable[[str], Service],
    own_kafka: Callable[..., KafkaBroker],
    receiver: Receiver,
) -> None:
    broker = own_kafka()
    waits, retries = services("waits"), services("retries")
    loads = {}
    for name, service, config in (
        ("waits", waits, "{}"),
        ("retries", retries, '{"delivery.timeout.ms": 2000}'),
    ):
        broker.create_topic(name, 4)
        await service.serve(KAFKA_CONFIG=config)
        loads[name] = Load(service, broker.url(name))
    await asyncio.gather(*(load.more(500) for load in loads.values()))
    broker.kill()
    killed_at = time.monotonic()
    await asyncio.gather(*(load.more(1000) for load in loads.values()))
    for service in (waits, retries):
        await service.create(id="web", destination={"url": receiver.url("/")})
        assert (await service.ended("web", 5))["state"] == "succeeded"
        assert (await service.call("GET", "/health"))[0] == 200
    await asyncio.sleep(max(0.0, OUTAGE - (time.monotonic() - killed_at)))
    broker.start()
    await asyncio.gather(*(load.more(500) for load in loads.values()))
    for name, service in (("waits", waits), ("retries", retries)):
        await loads[name].stop()
        await delivered(service)
        counts = Counter(record.task for record in kcat.read(broker, name))
        assert set(counts) == set(loads[name].accepted)
        assert not await service.find("state=dead")


async def test_sigterm_under_load_flushes_and_sends_nothing_twice(
    services: Callable[[str], Service], kafka_broker: KafkaBroker, topic: str
) -> None:
    kafka_broker.create_topic(topic, 4)
    service = services("one")
    await service.serve("serve --no-worker")
    worker = service.run("work", SHUTDOWN_GRACE="5s")
    names = [f"t{n}" for n in range(10_000)]
    creating = asyncio.create_task(
        service.create_many(
            [{"id": n, "destination": {"url": kafka_broker.url(topic)}} for n in names]
        )
    )
    await until(lambda: '"task delivered"' in worker.logged())
    began = time.monotonic()
    assert await worker.terminate() == 0
    assert time.monotonic() - began < 5 + 2
    await creating
    before = Counter(record.task for record in kcat.read(kafka_broker, topic))
    assert 0 < len(before) < len(names)
    assert not await service.find("state=delivering")
    service.run("work")
    await delivered(service)
    counts = Counter(record.task for record in kcat.read(kafka_broker, topic))
    assert counts == Counter(names)


async def test_sigterm_while_the_broker_is_away_cuts_records_short_without_counting_them(
    services: Callable[[str], Service],
) -> None:
    service = services("one")
    await service.serve("serve --no-worker")
    worker = service.run("work", SHUTDOWN_GRACE="1s")
    nowhere = f"kafka://127.0.0.1:{steady_port()}/topic"
    await service.create_many(
        [{"id": f"t{n}", "destination": {"url": nowhere}} for n in range(100)]
    )
    async with asyncio.timeout(20):
        while len(await service.find("state=delivering")) < 100:
            await asyncio.sleep(0.05)
    began = time.monotonic()
    assert await worker.terminate() == 0
    assert time.monotonic() - began < 1 + 2
    for n in (0, 99):
        task = await service.task(f"t{n}")
        assert (task["state"], task["attempt"]) == ("scheduled", 0)
        assert [a["outcome"] for a in task["attempts"]] == ["cut_short"]


def certificates(folder: Path) -> Path:
    """A key and its certificate for the broker, and for its client."""
    for name in ("broker", "client"):
        key, crt = folder / f"{name}.key", folder / f"{name}.crt"
        subprocess.run(
            [need("openssl"), "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2",
             "-subj", f"/CN={name}", "-addext", "subjectAltName=IP:127.0.0.1",
             "-keyout", str(key), "-out", str(crt)],
            check=True, capture_output=True,
        )  # fmt: skip
        (folder / f"{name}.pem").write_text(key.read_text() + crt.read_text())
    return folder


async def test_brokers_that_ask_for_a_certificate_get_it_and_a_stranger_is_told_why(
    services: Callable[[str], Service], own_kafka: Callable[..., KafkaBroker], tmp_path: Path
) -> None:
    folder = certificates(tmp_path)
    broker = own_kafka(
        certificates=folder, properties={"super.users": "User:CN=client;User:ANONYMOUS"}
    )
    broker.create_topic("vault")
    known = {
        "KAFKA_BROKERS": broker.tls_bootstrap,
        "KAFKA_SECURITY_PROTOCOL": "ssl",
        "KAFKA_SSL_CA_LOCATION": str(folder / "broker.crt"),
        "KAFKA_SSL_CERTIFICATE_LOCATION": str(folder / "client.crt"),
        "KAFKA_SSL_KEY_LOCATION": str(folder / "client.key"),
    }
    strange = {n: v for n, v in known.items() if n[10:13] not in ("CER", "KEY")}
    ways = {"known": known, "strange": strange}
    for name, settings in ways.items():
        service = services(name)
        await service.serve(**settings, KAFKA_CONFIG='{"delivery.timeout.ms": 3000}')
        await service.create(id=name, destination={"url": "kafka:///vault"}, max_retries=1)
        task = await service.ended(name)
        assert task["state"] == ("succeeded" if name == "known" else "dead"), task
    assert "SSL" in task["last_error"]
    assert [record.task for record in kcat.read(broker, "vault")] == ["known"]
