"""Deliveries to a real Kafka, looked at with kcat, and with Kafka's own producer beside them."""

from __future__ import annotations

import asyncio
import base64
import random
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from tests.e2e import kcat
from tests.e2e.conftest import Receiver, Service
from tests.services.java import console_producer, java
from tests.services.kafka import USERS, AclOperation, KafkaBroker, steady_port

BYTES = bytes(range(256))


@pytest.fixture
async def shop(tmp_path: Path) -> AsyncIterator[Service]:
    """For what does not depend on the store."""
    one = Service({"STORE_URL": f"sqlite:///{tmp_path}/rebound.db"}, tmp_path)
    yield one
    await one.close()


async def succeed(service: Service, *names: str) -> None:
    for name in names:
        task = await service.ended(name, 60)
        assert task["state"] == "succeeded", task
        assert task["attempt"] == 1


# -- what arrives ------------------------------------------------------------------------------


async def test_kcat_reads_key_headers_and_bytes_as_they_were_sent(
    service: Service, kafka_broker: KafkaBroker, topic: str
) -> None:
    kafka_broker.create_topic(topic, 3)
    to = {"url": kafka_broker.url(topic)}
    listed = [["trace", "a=1"], ["trace", "b"], ["raw", {"base64": "//4B"}], ["none", None]]
    sent: dict[str, dict[str, Any]] = {
        "text": {"message_data": "größer, ☃", "destination": {**to, "headers": {"trace": "a"}}},
        "json": {"message_data": {"b": [1, 2.50], "a": None}, "message_key": "Schlüssel"},
        "bytes": {"message_data": base64.b64encode(BYTES).decode(), "message_encoding": "base64"},
        "binary-key": {"message_data": "", "message_key": {"base64": "AP8K"}},
        "no-key": {"message_data": "x", "message_key": None},
        "tombstone": {"message_data": None, "message_key": "gone"},
        "text-null": {"message_data": "null"},
        "listed": {"message_data": "x", "destination": {**to, "headers": listed}},
        "placed": {
            "message_data": "x",
            "destination": {**to, "partition": 2, "timestamp": 1_600_000_000_123},
        },
    }
    await service.serve()
    await service.create_many([{"id": n, "destination": to, **t} for n, t in sent.items()])
    await succeed(service, *sent)
    records = kcat.read(kafka_broker, topic)
    assert len(records) == len(sent)
    found = {name: kcat.of(records, name) for name in sent}
    assert {n: (r.key, r.value) for n, r in found.items()} == {
        "text": (b"text", "größer, ☃".encode()),
        "json": ("Schlüssel".encode(), b'{"b": [1, 2.5], "a": null}'),
        "bytes": (b"bytes", BYTES),
        "binary-key": (b"\x00\xff\n", b""),
        "no-key": (None, b"x"),
        "tombstone": (b"gone", None),
        "text-null": (b"text-null", b"null"),
        "listed": (b"listed", b"x"),
        "placed": (b"placed", b"x"),
    }
    own = {n: (("rebound-task-id", n), ("rebound-attempt", "1"), ("rebound-source", "e2e"))
           for n in sent}  # fmt: skip
    assert found["text"].headers == (("trace", "a"), *own["text"])
    assert found["json"].headers == own["json"]
    assert found["listed"].headers == (
        ("trace", "a=1"), ("trace", "b"), ("raw", "\xff\xfe\x01"), ("none", "NULL"), *own["listed"]
    )  # fmt: skip
    assert (found["placed"].partition, found["placed"].timestamp) == (2, 1_600_000_000_123)


async def test_the_dead_letter_is_a_record_with_the_same_bytes_that_says_why(
    shop: Service, kafka_broker: KafkaBroker, receiver: Receiver, topic: str
) -> None:
    kafka_broker.create_topic(topic)
    receiver.answers["/fails"] = lambda _: web.Response(status=500, text="no")
    await shop.serve()
    await shop.create(
        id="t", source="shöp", message_data=base64.b64encode(BYTES).decode(), base_delay=0.01,
        message_encoding="base64", message_key="k", max_retries=3,
        destination={"url": receiver.url("/fails?token=1")},
        dead_destination={"url": kafka_broker.url(topic), "headers": {"team": "a"}},
    )  # fmt: skip
    task = await shop.ended("t")
    assert (task["state"], task["dead_reason"], task["dead_letter"]) == (
        "dead", "exhausted", "delivered",
    )  # fmt: skip
    (record,) = kcat.read(kafka_broker, topic)
    assert (record.key, record.value) == (b"k", BYTES)
    assert record.headers == (
        ("team", "a"),
        ("rebound-task-id", "t"),
        ("rebound-attempt", "1"),
        ("rebound-dead-reason", "exhausted"),
        ("rebound-attempts", "3"),
        ("rebound-last-error", "HTTP 500"),
        ("rebound-source", "sh%C3%B6p"),
        ("rebound-original-destination", receiver.url("/fails")),
    )


async def test_the_originals_host_port_and_topic_and_the_default_brokers_work_over_http(
    shop: Service, kafka_broker: KafkaBroker, topic: str
) -> None:
    kafka_broker.create_topic(topic)
    dead, port = steady_port(), kafka_broker.port
    await shop.serve(KAFKA_BROKERS=kafka_broker.bootstrap)
    places: dict[str, dict[str, Any]] = {
        "text-port": {"host": "127.0.0.1", "port": str(port), "topic": topic},
        "number-port": {"host": "127.0.0.1", "port": port, "topic": topic},
        "empty-url": {"url": "", "host": "127.0.0.1", "port": str(port), "topic": topic},
        "defaults": {"url": f"kafka:///{topic}"},
        "one-is-down": {"url": f"kafka://127.0.0.1:{dead},127.0.0.1:{port}/{topic}"},
    }
    for name, to in places.items():
        created = await shop.create(
            id=name, destination=to, destination_type="kafka", attempt=0,
            message_data='{"order_id": 123}', client_id="order-service", is_priority=True,
        )  # fmt: skip
        assert created["message"] == f"Task {name} scheduled successfully"
    await succeed(shop, *places)
    records = kcat.read(kafka_broker, topic)
    assert sorted(r.task for r in records) == sorted(places)
    assert {r.value for r in records} == {b'{"order_id": 123}'}


async def test_keys_land_in_the_partitions_where_kafkas_own_producer_puts_them(
    shop: Service, kafka_broker: KafkaBroker, topic: str
) -> None:
    keys = [f"key-{n}-{'x' * (n % 7)}" for n in range(200)]
    for name in (topic, f"{topic}.java"):
        kafka_broker.create_topic(name, 12)
    await shop.serve()
    await shop.create_many(
        [{"id": key, "destination": {"url": kafka_broker.url(topic)}} for key in keys]
    )
    subprocess.run(
        java(console_producer(), "--bootstrap-server",
             kafka_broker.bootstrap, "--topic", f"{topic}.java", "--property", "parse.key=true",
             "--property", "key.separator=:"),
        input="".join(f"{key}:x\n" for key in keys), text=True, check=True, timeout=60,
        capture_output=True,
    )  # fmt: skip
    await succeed(shop, *keys)
    ours = {r.key: r.partition for r in kcat.read(kafka_broker, topic)}
    theirs = {r.key: r.partition for r in kcat.read(kafka_broker, f"{topic}.java")}
    assert ours == theirs
    assert set(theirs.values()) == set(range(12))


# -- what does not arrive ----------------------------------------------------------------------


async def test_a_topic_that_does_not_exist_is_tried_again_until_somebody_makes_it(
    shop: Service, kafka_broker: KafkaBroker, topic: str
) -> None:
    kafka_broker.create_topic(f"{topic}.dead")
    await shop.serve(KAFKA_CONFIG='{"topic.metadata.propagation.max.ms": 500}')
    to = {"url": kafka_broker.url(topic)}
    await shop.create(
        id="hopeless", destination=to, max_retries=2, base_delay=0.1, message_data="h",
        dead_destination={"url": kafka_broker.url(f"{topic}.dead")},
    )  # fmt: skip
    task = await shop.ended("hopeless")
    assert (task["dead_reason"], task["attempt"]) == ("exhausted", 2)
    assert "UNKNOWN_TOPIC" in task["last_error"]
    letter = kcat.of(kcat.read(kafka_broker, f"{topic}.dead"), "hopeless")
    assert dict(letter.headers)["rebound-original-destination"] == kafka_broker.url(topic)
    await shop.create(
        id="patient", destination=to, max_retries=100, base_delay=0.3,
        backoff={"strategy": "fixed"},
    )  # fmt: skip
    async with asyncio.timeout(20):
        while (await shop.task("patient"))["attempt"] < 2:
            await asyncio.sleep(0.05)
    kafka_broker.create_topic(topic)
    assert (await shop.ended("patient"))["state"] == "succeeded"
    assert kcat.of(kcat.read(kafka_broker, topic), "patient").value == b""


@pytest.mark.parametrize("may", [(), (AclOperation.DESCRIBE,)], ids=["nothing", "describe"])
async def test_a_topic_without_permission_goes_to_the_dead_leg_at_once(
    shop: Service, kafka_broker: KafkaBroker, topic: str, may: tuple[AclOperation, ...]
) -> None:
    kafka_broker.create_topic(topic)
    kafka_broker.create_topic(f"{topic}.dead")
    if may:
        kafka_broker.allow("rebound", topic, *may)
    kafka_broker.allow("rebound", f"{topic}.dead")
    process = await shop.serve(**logged_in(kafka_broker, "rebound"))
    await shop.create(
        id="t", message_data="x", destination={"url": f"kafka:///{topic}"},
        dead_destination={"url": f"kafka:///{topic}.dead"},
    )  # fmt: skip
    task = await shop.ended("t")
    assert (task["dead_reason"], task["dead_letter"], task["attempt"]) == (
        "rejected", "delivered", 1,
    )  # fmt: skip
    assert "TOPIC_AUTHORIZATION_FAILED" in task["last_error"]
    assert kcat.read(kafka_broker, topic) == []
    letter = kcat.of(kcat.read(kafka_broker, f"{topic}.dead"), "t")
    assert dict(letter.headers)["rebound-dead-reason"] == "rejected"
    assert USERS["rebound"] not in process.logged()


async def test_a_wrong_password_is_a_failure_that_says_so_and_never_shows_the_password(
    shop: Service, kafka_broker: KafkaBroker, topic: str
) -> None:
    kafka_broker.create_topic(topic)
    wrong = {**logged_in(kafka_broker, "rebound"), "KAFKA_SASL_PASSWORD": "not-this-one"}
    config = '{"delivery.timeout.ms": 2000}'
    process = await shop.serve(**wrong, KAFKA_CONFIG=config)
    await shop.create(id="t", destination={"url": f"kafka:///{topic}"}, max_retries=1)
    task = await shop.ended("t")
    assert (task["state"], task["dead_reason"]) == ("dead", "exhausted")
    assert "uthentication" in task["last_error"]
    assert "not-this-one" not in process.logged() + str(task)


async def test_a_record_too_large_goes_to_the_dead_leg_at_once_and_its_neighbours_arrive(
    shop: Service, kafka_broker: KafkaBroker, topic: str
) -> None:
    kafka_broker.create_topic(topic, max_message_bytes=2000)
    kafka_broker.create_topic(f"{topic}.dead")
    await shop.serve()
    to = {"destination": {"url": kafka_broker.url(topic)}}
    dead = {"dead_destination": {"url": kafka_broker.url(f"{topic}.dead")}}
    noise = random.Random(1)
    large = {f"large{n}": noise.randbytes(3000 + n).hex() for n in range(3)}
    small = [f"small{n}" for n in range(300)]
    await shop.create_many(
        [{"id": n, "message_data": large.get(n, "x" * 100), **to, **dead}
         for n in [*small[:150], *large, *small[150:]]]
    )  # fmt: skip
    for name, text in large.items():
        task = await shop.ended(name)
        assert (task["dead_reason"], task["attempt"]) == ("rejected", 1)
        assert "MSG_SIZE_TOO_LARGE" in task["last_error"]
        letter = kcat.of(kcat.read(kafka_broker, f"{topic}.dead"), name)
        assert letter.value == text.encode()
    await succeed(shop, *small)
    assert sorted(r.task for r in kcat.read(kafka_broker, topic)) == sorted(small)


def logged_in(broker: KafkaBroker, user: str) -> dict[str, str]:
    return {
        "KAFKA_BROKERS": broker.sasl_bootstrap,
        "KAFKA_SECURITY_PROTOCOL": "sasl_plaintext",
        "KAFKA_SASL_MECHANISM": "PLAIN",
        "KAFKA_SASL_USERNAME": user,
        "KAFKA_SASL_PASSWORD": USERS[user],
    }
