"""librdkafka's producers: when they are made, replaced, waited for and closed."""

from __future__ import annotations

import asyncio
import time

import pytest
from confluent_kafka import KafkaError

from rebound.adapters.producers import kafka, kafka_client
from rebound.domain.errors import Deferred, DeliveryError, Rejected
from tests.support import until
from tests.unit.kafka.conftest import Make, failure, threads, to
from tests.unit.kafka.mock import MockCluster


async def test_a_full_queue_is_waited_for(
    own_cluster: MockCluster, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kafka, "ROOM", 0.005)
    producer = make(own_cluster, queue_buffering_max_messages=10)
    await producer.send(to())
    await asyncio.gather(*(producer.send(to(id_=f"t{n}")) for n in range(50)))
    assert len(own_cluster.records("one", 51)) == 51


async def test_a_queue_that_stays_full_is_no_failed_attempt(
    own_cluster: MockCluster, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kafka, "ROOM", 0.001)
    producer = make(own_cluster, queue_buffering_max_messages=1)
    own_cluster.down()
    first = asyncio.create_task(producer.send(to()))
    await asyncio.sleep(0)
    assert isinstance(await failure(producer, to()), Deferred)
    first.cancel()
    await asyncio.wait([first])


async def test_a_fatal_error_makes_a_new_client_and_costs_what_was_queued_no_attempt(
    own_cluster: MockCluster, make: Make
) -> None:
    producer = make(own_cluster)
    await producer.send(to())
    (broken,) = producer._clients.values()
    own_cluster.down()
    queued = asyncio.create_task(failure(producer, to()))
    await asyncio.sleep(0)
    own_cluster.break_producer(broken._producer, KafkaError.OUT_OF_ORDER_SEQUENCE_NUMBER)
    own_cluster.up()
    assert isinstance(await queued, Deferred)
    await producer.send(to())
    assert list(producer._clients.values()) != [broken]
    await until(lambda: broken._producer is None)


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (KafkaError.CLUSTER_AUTHORIZATION_FAILED, Rejected),
        (KafkaError.INVALID_PRODUCER_EPOCH, DeliveryError),
    ],
)
async def test_a_client_that_never_worked_fails_its_records_with_the_fatal_error(
    own_cluster: MockCluster, make: Make, code: int, kind: type[DeliveryError]
) -> None:
    own_cluster.down()
    producer = make(own_cluster)
    queued = asyncio.create_task(failure(producer, to()))
    await asyncio.sleep(0)
    (broken,) = producer._clients.values()
    own_cluster.break_producer(broken._producer, code)
    error = await queued
    assert type(error) is kind
    assert "as told" in str(error)


async def test_idle_clients_beyond_the_most_that_are_kept_are_closed(
    cluster: MockCluster,
    make: Make,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(kafka, "KEPT", 2)
    producer = make(cluster)
    host, _, port = cluster.bootstrap.partition(":")
    seen = []
    for more in ("", "127.0.0.2:1", "127.0.0.3:1", "127.0.0.4:1"):
        await producer.send(to(f"kafka://{host}:{port}{',' if more else ''}{more}/one"))
        seen.append(list(producer._clients.values())[-1])
        assert len(producer._clients) <= 2
    await until(lambda: seen[0]._producer is None and seen[1]._producer is None)
    assert seen[3]._producer is not None


async def test_clients_with_records_under_way_are_not_closed_but_their_number_is_bounded(
    cluster: MockCluster,
    make: Make,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(kafka, "KEPT", 1)
    monkeypatch.setattr(kafka, "MOST", 2)
    producer = make(cluster)
    hanging = [asyncio.create_task(producer.send(to(f"kafka://127.0.0.{n}:1/t"))) for n in (1, 2)]
    await until(lambda: len(producer._clients) == 2)
    assert isinstance(await failure(producer, to()), Deferred)
    for one in hanging:
        one.cancel()
    await asyncio.wait(hanging)


async def test_closing_gives_up_what_is_under_way_and_leaves_no_thread(
    own_cluster: MockCluster, make: Make
) -> None:
    producer = make(own_cluster)
    await producer.send(to())
    own_cluster.down()
    hanging = asyncio.create_task(failure(producer, to()))
    await asyncio.sleep(0)
    began = time.monotonic()
    await producer.aclose()
    await producer.aclose()
    assert time.monotonic() - began < 2
    assert "_PURGE_QUEUE" in str(await hanging)
    assert threads() == []


async def test_the_thread_outlives_whatever_polling_raises(
    own_cluster: MockCluster,
    make: Make,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    logged: list[str] = []
    monkeypatch.setattr(kafka_client.LOG, "exception", logged.append)
    monkeypatch.setattr(kafka_client, "IDLE", 0.001)
    producer = make(own_cluster)
    await producer.send(to())
    (client,) = producer._clients.values()
    poll, broken = client.poll, [True]

    def breaks_once(seconds: float) -> kafka_client.Results:
        if broken:
            raise RuntimeError(broken.pop())
        return poll(seconds)

    monkeypatch.setattr(client, "poll", breaks_once)
    await until(lambda: logged)
    await producer.send(to())
    assert logged == ["polling Kafka failed; trying again"]


async def test_an_attempt_that_is_cancelled_disturbs_no_other(
    cluster: MockCluster,
    make: Make,
) -> None:
    producer = make(cluster)
    sending = [asyncio.create_task(producer.send(to("kafka:///cut"))) for _ in range(10)]
    await asyncio.sleep(0)
    sending[3].cancel()
    results = await asyncio.gather(*sending, return_exceptions=True)
    assert [type(one).__name__ for one in results].count("Receipt") == 9
    (client,) = producer._clients.values()
    await until(lambda: client.under_way == 0)
