"""`RetryingConsumer` on the broker that librdkafka has built in."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from confluent_kafka import Producer

from rebound import (
    Closed,
    Config,
    Rebound,
    ReboundError,
    Record,
    Reject,
    RetryingConsumer,
    StoreUnavailable,
    ValidationError,
)
from rebound.adapters.consumers import kafka
from rebound.domain.progress import ROOM
from tests import topics
from tests.support import until


@pytest.fixture(scope="module")
def cluster() -> Iterator[str]:
    """`host:port` of a broker in this process; it makes topics with four partitions."""
    mock = Producer({"test.mock.num.brokers": 1, "log_level": 0})
    (broker,) = mock.list_topics(timeout=10).brokers.values()
    yield f"{broker.host}:{broker.port}"
    del mock  # it lives as long as its client


async def write(cluster: str, topic: str, *records: dict[str, Any]) -> None:
    await asyncio.to_thread(topics.write, cluster, topic, records)


def quiet() -> logging.Logger:
    logger = logging.Logger("tests")
    logger.addHandler(logging.NullHandler())
    return logger


def a_rebound(**config: Any) -> Rebound:
    return Rebound(Config(store_url="sqlite://:memory:", logger=quiet(), **config))


class Handler:
    """Records what it gets; `fail` says with what a record fails."""

    def __init__(self, fail: Callable[[Record], BaseException | None] = lambda _: None) -> None:
        self.got: list[Record] = []
        self._fail = fail

    async def __call__(self, record: Record) -> None:
        self.got.append(record)
        if (error := self._fail(record)) is not None:
            raise error

    @property
    def values(self) -> list[bytes | None]:
        return topics.values(self.got)


async def test_a_poison_record_is_dead_after_max_retries_failures_and_a_rejected_one_at_once(
    cluster: str, topic: str
) -> None:
    failing = {b"poison": ValueError("no"), b"spam": Reject(), b"fine": None}
    handler = Handler(lambda r: failing[r.value or b""])
    poison = {"key": b"\xff", "value": b"poison", "headers": [("a", b"\xfe"), ("a", None)]}
    others = {"key": "k", "value": b"fine"}, {"value": b"spam", "partition": 0}
    await write(cluster, topic, {**poison, "partition": 2}, *others)
    async with (
        a_rebound() as rebound,
        RetryingConsumer(
            rebound, brokers=cluster, group=topic, topics=[topic], handler=handler,
            retry={"max_retries": 3, "base_delay": 0.05}, dead_topic=f"{topic}.dead",
        ),
    ):  # fmt: skip
        dead = await asyncio.to_thread(topics.read, cluster, f"{topic}.dead", 2)
    letters = {one.value: one for one in dead}
    assert letters[b"poison"].own == [("a", b"\xfe"), ("a", None)]
    assert letters[b"poison"].key == b"\xff"
    assert letters[b"spam"].key is None
    assert (
        letters[b"spam"].header(
            "rebound-error",
        )
        == "Reject: The handler refuses the message for good."
    )
    tries = [r for r in handler.got if r.value == b"poison"]
    assert [r.failures for r in tries] == [0, 1, 2]
    assert {(r.key, r.headers, r.partition, r.timestamp) for r in tries} == {
        (b"\xff", (("a", b"\xfe"), ("a", None)), 2, tries[0].timestamp)
    }
    assert handler.values.count(b"fine") == handler.values.count(b"spam") == 1
    assert topics.committed(cluster, topic, topic, 2) == 3
    assert not [t for t in threading.enumerate() if t.name.startswith("rebound-")]


async def test_nothing_is_committed_while_the_store_is_away_and_nothing_skipped(
    cluster: str, topic: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kafka, "COMMIT_EVERY", 0.01)
    handler = Handler(lambda r: ValueError() if r.value == b"bad" else None)
    await write(cluster, topic, *({"value": v, "partition": 0} for v in (b"a", b"bad", b"c")))
    rebound = a_rebound()
    tries = 0

    async def create_task(task: Any) -> Any:
        nonlocal tries
        tries += 1
        if tries < 4:
            raise StoreUnavailable
        return await Rebound.create_task(rebound, task)

    monkeypatch.setattr(rebound, "create_task", create_task)
    monkeypatch.setattr("rebound.consuming.storing.PAUSE", 0.05)
    async with (
        rebound,
        RetryingConsumer(
            rebound, brokers=cluster, group=topic, topics=topic, handler=handler,
            retry={"base_delay": 1000},
        ),
    ):  # fmt: skip
        await until(lambda: tries == 3)
        assert handler.values == [b"a", b"bad", b"c"]
        assert await asyncio.to_thread(topics.committed, cluster, topic, topic) <= 1
        await until(lambda: tries == 4)
        while await asyncio.to_thread(topics.committed, cluster, topic, topic) != 3:
            await asyncio.sleep(0.01)
        (task,) = (await rebound.find()).tasks
        assert task.id == f"{{{topic}:0}}:1"


async def test_what_can_never_be_stored_ends_the_consumer_or_goes_to_the_dead_topic(
    cluster: str, topic: str
) -> None:
    handler = Handler(lambda r: ValueError())
    await write(cluster, topic, {"value": b"x" * 2000, "partition": 0})
    async with a_rebound(max_payload_bytes=1000) as rebound:
        consumer = RetryingConsumer(
            rebound, brokers=cluster, group=topic, topics=topic, handler=handler
        )
        with pytest.raises(ReboundError, match="MAX_PAYLOAD_BYTES"):
            await consumer.run()
        assert topics.committed(cluster, topic, topic) < 0
        # With a dead topic it goes there, past the store.
        again = RetryingConsumer(
            rebound, brokers=cluster, group=f"{topic}.2", topics=topic, handler=handler,
            dead_topic=f"{topic}.dead",
        )  # fmt: skip
        async with again:
            (dead,) = await asyncio.to_thread(topics.read, cluster, f"{topic}.dead", 1)
        assert (dead.value, dead.header("rebound-dead-reason")) == (b"x" * 2000, "rejected")
        assert topics.committed(cluster, f"{topic}.2", topic) == 1
    assert len(handler.got) == 2


async def test_a_slow_handler_pauses_its_partition_and_nothing_is_skipped_or_repeated(
    cluster: str, topic: str
) -> None:
    gate, seen = asyncio.Event(), list[Record]()

    async def handler(record: Record) -> None:
        await gate.wait()
        seen.append(record)

    count = 5 * ROOM
    values = [b"%d" % n for n in range(count)]
    await write(cluster, topic, *({"value": v, "partition": 1} for v in values))
    async with (
        a_rebound() as rebound,
        RetryingConsumer(
            rebound, brokers=cluster, group=topic, topics=topic, handler=handler, concurrency=8
        ) as consumer,
    ):
        poller = consumer._poller
        assert poller is not None
        await until(lambda: poller._paused)
        (full,) = [p for p in poller._partitions.values() if p.paused]
        assert full._taken < ROOM + kafka.BATCH + 1
        gate.set()
        await until(lambda: len(seen) >= count)
    assert topics.values(seen) == values
    assert topics.committed(cluster, topic, topic, 1) == count


async def test_run_ends_with_its_cancellation_and_finishes_what_is_under_way(
    cluster: str, topic: str
) -> None:
    begun, ended = asyncio.Event(), False

    async def handler(_: Record) -> None:
        nonlocal ended
        begun.set()
        await asyncio.sleep(0.2)
        ended = True

    await write(cluster, topic, {"value": b"x", "partition": 0})
    async with a_rebound() as rebound:
        consumer = RetryingConsumer(
            rebound, brokers=cluster, group=topic, topics=topic, handler=handler
        )
        running = asyncio.create_task(consumer.run())
        await begun.wait()
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
        await consumer.close()
    assert ended
    assert topics.committed(cluster, topic, topic) == 1


async def test_a_rebound_that_was_closed_first_ends_the_consumer_and_loses_nothing(
    cluster: str, topic: str
) -> None:
    rebound = a_rebound()
    await rebound.start()
    handler = Handler(lambda r: ValueError())
    consumer = RetryingConsumer(
        rebound, brokers=cluster, group=topic, topics=topic, handler=handler
    )
    await rebound.close()
    await write(cluster, topic, {"value": b"x", "partition": 0})
    with pytest.raises(Closed):
        await consumer.run()
    assert topics.committed(cluster, topic, topic) < 0


# -- what is refused ---------------------------------------------------------------------------


async def nothing(_: Record) -> None:
    pass


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"topics": []}, "topics"),
        ({"topics": ["a b"]}, "topic"),
        ({"topics": ["a", "d"], "dead_topic": "d"}, "one of the topics"),
        ({"topics": "^a.*", "dead_topic": "a.dead"}, "one of the topics"),
        ({"dead_topic": "é"}, "topic"),
        ({"group": ""}, "group"),
        ({"brokers": "a b"}, "brokers"),
        ({"handler": None}, "handler"),
        ({"handler": lambda record: None}, "handler"),
        ({"concurrency": 0}, "concurrency"),
        ({"retry": {"max_retrys": 1}}, "retry"),
        ({"retry": {"backoff": {"strategy": "mine"}}}, "strategy"),
        ({"config": {"group.id": "x"}}, "group.id"),
    ],
)
def test_wrong_arguments_are_named_before_anything_is_read(wrong: Any, said: str) -> None:
    given = {"group": "g", "topics": "t", "handler": nothing, "brokers": "a:9092", **wrong}
    with pytest.raises(ValidationError, match=said):
        RetryingConsumer(a_rebound(), **given)


def test_brokers_that_tasks_may_not_name_are_refused() -> None:
    rebound = a_rebound(kafka_brokers="a:9092", kafka_allowed_brokers="a:9092")
    given: dict[str, Any] = {"group": "g", "topics": "t", "handler": nothing}
    RetryingConsumer(rebound, **given)
    RetryingConsumer(rebound, brokers="a:9092", **given)
    with pytest.raises(ValidationError, match="KAFKA_ALLOWED_BROKERS"):
        RetryingConsumer(rebound, brokers="b:9092", **given)


async def test_properties_that_librdkafka_refuses_are_named_at_the_start() -> None:
    consumer = RetryingConsumer(
        a_rebound(), group="g", topics="t", handler=nothing, config={"no.such": 1}
    )
    with pytest.raises(ValidationError, match=r"no\.such"):
        await consumer.start()
    await consumer.close()


def test_without_the_extra_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    rebound = a_rebound()
    monkeypatch.setattr(rebound.engine, "producers", {})
    with pytest.raises(ValidationError, match=r"pip install 'rebound-retry\[kafka\]'"):
        RetryingConsumer(rebound, group="g", topics="t", handler=nothing)
