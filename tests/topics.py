"""What tests write into topics, read from them and know of consumer groups, by plain clients."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

from confluent_kafka import Consumer, KafkaException, Message, Producer, TopicPartition

QUIET = {"log_level": 0}


class Read(NamedTuple):
    """A record as a plain client sees it."""

    topic: str
    partition: int
    offset: int
    key: bytes | None
    value: bytes | None
    headers: list[tuple[str, bytes | None]]
    timestamp: int

    def header(self, name: str) -> str | None:
        found = [value for known, value in self.headers if known == name]
        return found[-1].decode() if found and found[-1] is not None else None

    @property
    def own(self) -> list[tuple[str, bytes | None]]:
        """The headers that are not Rebound's."""
        return [(n, v) for n, v in self.headers if not n.startswith("rebound-")]


def write(bootstrap: str, topic: str, records: Iterable[dict[str, Any]]) -> None:
    """Produce in this order, and wait until every record is acknowledged."""
    # Without idempotence a batch that is sent again is overtaken.
    settings = {"bootstrap.servers": bootstrap, "linger.ms": 0, "enable.idempotence": True}
    producer = Producer({**settings, **QUIET})
    for one in records:
        while True:
            try:
                producer.produce(topic, **one)
                break
            except BufferError:
                producer.poll(0.1)
    assert producer.flush(30) == 0


def read(
    bootstrap: str, topic: str, enough: int | Callable[[list[Read]], bool], seconds: float = 30
) -> list[Read]:
    """The records of every partition from the beginning, as soon as there are enough."""
    consumer = Consumer({"bootstrap.servers": bootstrap, "group.id": "reader", **QUIET})
    deadline, found = time.monotonic() + seconds, list[Read]()
    try:
        while not (partitions := consumer.list_topics(topic, timeout=10).topics[topic].partitions):
            assert time.monotonic() < deadline
        consumer.assign([TopicPartition(topic, number, 0) for number in partitions])
        while len(found) < enough if isinstance(enough, int) else not enough(found):
            assert time.monotonic() < deadline, found
            found += [_read(m) for m in consumer.consume(500, 0.05) if not m.error()]
        return found
    finally:
        consumer.close()


def committed(bootstrap: str, group: str, topic: str, partition: int = 0) -> int:
    """The group's committed offset; below 0 where there is none."""
    consumer = Consumer({"bootstrap.servers": bootstrap, "group.id": group, **QUIET})
    try:
        (at,) = consumer.committed([TopicPartition(topic, partition)], timeout=10)
        return int(at.offset)
    except KafkaException:
        return -1
    finally:
        consumer.close()


def values(records: Sequence[Any]) -> list[bytes | None]:
    return [one.value for one in records]


def _read(message: Message) -> Read:
    return Read(
        message.topic() or "", message.partition() or 0, message.offset() or 0, message.key(),
        message.value(), message.headers() or [], message.timestamp()[1],
    )  # type: ignore[arg-type]  # fmt: skip
