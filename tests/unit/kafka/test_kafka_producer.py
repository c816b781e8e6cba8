"""The Kafka producer against librdkafka's own cluster."""

from __future__ import annotations

import asyncio

import pytest
from confluent_kafka import KafkaError

from rebound.adapters.producers.kafka import KafkaProducer
from rebound.domain.attempt import State
from rebound.domain.destination import Destination
from rebound.domain.errors import DeliveryError, Rejected
from rebound.domain.task import Task
from tests.support import task
from tests.unit.kafka.conftest import Make, failure, threads, to
from tests.unit.kafka.mock import MockCluster

# -- delivering --------------------------------------------------------------------------------


async def test_a_record_arrives_and_the_receipt_says_where(
    producer: KafkaProducer, cluster: MockCluster
) -> None:
    receipt = await producer.send(to("kafka:///arrives", "order-1", message_data={"a": 1}))
    (found,) = cluster.records("arrives", 1)
    assert (found.key(), found.value()) == (b"order-1", b'{"a":1}')
    assert receipt.response == f"partition {found.partition()}, offset 0"
    assert dict(found.headers()) == {
        "rebound-task-id": b"order-1", "rebound-attempt": b"1", "rebound-source": b"tests",
    }  # fmt: skip


async def test_what_is_empty_and_what_is_null_arrive_as_such(
    producer: KafkaProducer, cluster: MockCluster
) -> None:
    headers = [("x", ""), ("x", None), ("x", "ä\0z")]
    target = Destination(url="kafka:///empty", headers=headers, partition=3, timestamp=86_400_000)
    for message, key in ((None, None), ("", "")):
        one = task("t", destination=target, message_data=message, message_key=key)
        await producer.send(one.accepted())
    tombstone, empty = cluster.records("empty", 2)
    assert (tombstone.value(), tombstone.key()) == (None, None)
    assert (empty.value(), empty.key()) == (b"", b"")
    assert empty.headers()[:3] == [("x", b""), ("x", None), ("x", "ä\0z".encode())]
    assert (empty.partition(), empty.timestamp()) == (3, (1, 86_400_000))


@pytest.mark.parametrize(
    ("key", "murmur2"),
    [("21", -973932308), ("foobar", -790332482), ("a-little-bit-long-string", -985981536)],
)
async def test_keys_land_where_javas_clients_put_them(
    producer: KafkaProducer, key: str, murmur2: int
) -> None:
    receipt = await producer.send(to("kafka:///keyed", message_key=key))
    assert (receipt.response or "").startswith(f"partition {(murmur2 & 0x7FFFFFFF) % 4},")


async def test_thousands_at_once_share_one_client_and_one_thread(
    producer: KafkaProducer, cluster: MockCluster
) -> None:
    await asyncio.gather(*(producer.send(to("kafka:///many", f"t{n}")) for n in range(5000)))
    assert len({one.key() for one in cluster.records("many", 5000)}) == 5000
    assert threads() == ["rebound-kafka"]


async def test_brokers_in_any_order_and_form_share_one_client(
    producer: KafkaProducer, cluster: MockCluster
) -> None:
    host, _, port = cluster.bootstrap.partition(":")
    for brokers in (f"{host}:{port}", f"{host}:{port},{host}:{port}", ""):
        await producer.send(to(f"kafka://{brokers}/one"))
    await producer.send(task("t", destination=Destination(host=host, port=port, topic="one")))
    assert len(producer._clients) == 1


async def test_several_clusters_are_served_by_one_thread(
    make: Make, cluster: MockCluster, own_cluster: MockCluster
) -> None:
    producer = make(cluster)
    urls = [f"kafka://{each.bootstrap}/both" for each in (cluster, own_cluster)]
    await asyncio.gather(*(producer.send(to(urls[n % 2], f"t{n}")) for n in range(200)))
    assert [len(each.records("both", 100)) for each in (cluster, own_cluster)] == [100, 100]
    assert threads() == ["rebound-kafka"]


# -- failing -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "code",
    [
        KafkaError.TOPIC_AUTHORIZATION_FAILED,
        KafkaError.CLUSTER_AUTHORIZATION_FAILED,
        KafkaError.TOPIC_EXCEPTION,
    ],
)
async def test_what_another_attempt_would_meet_again_is_rejected(
    own_cluster: MockCluster, make: Make, code: int
) -> None:
    own_cluster.refuse(code)
    error = await failure(make(own_cluster), to())
    assert isinstance(error, Rejected)
    assert "Broker: " in str(error)


async def test_every_other_error_is_retried(own_cluster: MockCluster, make: Make) -> None:
    own_cluster.refuse(KafkaError.INVALID_RECORD)
    error = await failure(make(own_cluster), to())
    assert type(error) is DeliveryError
    assert not error.timed_out


async def test_a_record_too_large_is_rejected_before_it_is_sent(
    make: Make, cluster: MockCluster
) -> None:
    producer = make(cluster, message_max_bytes=2000)
    error = await failure(producer, to(message_data="x" * 2001))
    assert isinstance(error, Rejected)
    assert str(error).startswith("MSG_SIZE_TOO_LARGE: ")


async def test_a_batch_too_large_is_sent_again_one_by_one(
    own_cluster: MockCluster, make: Make
) -> None:
    producer = make(own_cluster)
    own_cluster.refuse(KafkaError.MSG_SIZE_TOO_LARGE)
    one, two = to("kafka:///b", "1", message_key="k"), to("kafka:///b", "2", message_key="k")
    await asyncio.gather(producer.send(one), producer.send(two))
    assert len(own_cluster.records("b", 2)) == 2
    own_cluster.refuse(KafkaError.MSG_SIZE_TOO_LARGE, KafkaError.MSG_SIZE_TOO_LARGE)
    assert isinstance(await failure(producer, one), Rejected)


async def test_a_partition_that_is_not_there_is_retried(producer: KafkaProducer) -> None:
    await producer.send(to())
    absent = Destination(url="kafka:///one", partition=77)
    error = await failure(producer, task("t", destination=absent))
    assert (type(error), str(error)) == (
        DeliveryError, "_UNKNOWN_PARTITION: Local: Unknown partition",
    )  # fmt: skip


async def test_brokers_that_cannot_be_reached_are_a_timeout_that_says_why(
    make: Make, cluster: MockCluster
) -> None:
    producer = make(cluster, delivery_timeout_ms=300)
    error = await failure(producer, to("kafka://127.0.0.1:1/one"))
    assert type(error) is DeliveryError
    assert error.timed_out
    assert "127.0.0.1:1" in str(error)
    assert "refused" in str(error)


async def test_a_broker_that_comes_back_gets_what_waited(
    own_cluster: MockCluster, make: Make
) -> None:
    producer = make(own_cluster)
    await producer.send(to())
    own_cluster.down()
    waiting = [asyncio.create_task(producer.send(to(id_=f"w{n}"))) for n in range(100)]
    await asyncio.sleep(0.05)
    assert not any(one.done() for one in waiting)
    own_cluster.up()
    await asyncio.gather(*waiting)


@pytest.mark.parametrize("headers", [{"a\0b": "x"}, {"a\ud800": "x"}, {"a": "\ud800"}])
async def test_what_cannot_be_in_a_record_is_rejected(
    producer: KafkaProducer, headers: dict[str, str]
) -> None:
    named = Destination(url="kafka:///one", headers=headers)
    one = Task(id="t", source="tests", destination=named, state=State.SCHEDULED)
    assert isinstance(await failure(producer, one), Rejected)


async def test_brokers_that_are_not_allowed_are_rejected(cluster: MockCluster) -> None:
    producer = KafkaProducer([cluster.bootstrap], {}, lambda to: f"not to {to.url}")
    error = await failure(producer, to())
    assert (type(error), str(error)) == (Rejected, "not to kafka:///one")
    assert threads() == []
