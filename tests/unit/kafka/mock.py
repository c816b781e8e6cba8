"""librdkafka's own cluster, in this process: real sockets, and errors as a test orders them."""

from __future__ import annotations

import ctypes
from pathlib import Path
from typing import Any

import confluent_kafka
from confluent_kafka import Consumer, Message, Producer, TopicPartition

PRODUCE = 0
"""Number of the request in Kafka's protocol."""


def _library() -> ctypes.CDLL:
    near = Path(confluent_kafka.__file__).parent
    (file,) = (*near.parent.glob("confluent_kafka.libs/librdkafka*"), *near.glob(".dylibs/librdk*"))
    library = ctypes.CDLL(str(file))
    library.rd_kafka_handle_mock_cluster.restype = ctypes.c_void_p
    return library


def _handle(client: object) -> ctypes.c_void_p:
    """The `rd_kafka_t *` that is the first member of confluent-kafka's objects."""
    return ctypes.c_void_p.from_address(id(client) + object.__basicsize__)


class MockCluster:
    """One broker that makes topics, with four partitions, when they are asked for."""

    def __init__(self) -> None:
        self._library = _library()
        self._owner = Producer({"test.mock.num.brokers": 1, "log_level": 0})
        (only,) = self._owner.list_topics(timeout=10).brokers.values()
        self.bootstrap = f"{only.host}:{only.port}"
        self._cluster = ctypes.c_void_p(
            self._library.rd_kafka_handle_mock_cluster(_handle(self._owner))
        )

    def refuse(self, *codes: int, request: int = PRODUCE) -> None:
        """Answer the next requests with these errors, one each."""
        numbers = [ctypes.c_int(code) for code in codes]
        call = self._library.rd_kafka_mock_push_request_errors
        call(self._cluster, ctypes.c_int16(request), ctypes.c_size_t(len(codes)), *numbers)

    def down(self) -> None:
        self._library.rd_kafka_mock_broker_set_down(self._cluster, ctypes.c_int32(1))

    def up(self) -> None:
        self._library.rd_kafka_mock_broker_set_up(self._cluster, ctypes.c_int32(1))

    def break_producer(self, producer: object, code: int) -> None:
        """Let a producer meet a fatal error."""
        self._library.rd_kafka_test_fatal_error(_handle(producer), ctypes.c_int(code), b"as told")

    def records(self, topic: str, count: int) -> list[Message]:
        """The first `count` records of a topic, by partition and offset."""
        consumer = Consumer({"bootstrap.servers": self.bootstrap, "group.id": "x", "log_level": 0})
        try:
            consumer.assign([TopicPartition(topic, n, 0) for n in range(4)])
            found: list[Any] = []
            while len(found) < count:
                batch = consumer.consume(count - len(found), timeout=10)
                assert batch, f"{len(found)} of {count} records in {topic}"
                found += batch
            assert not [one.error() for one in found if one.error()]
            return sorted(found, key=lambda one: (one.partition(), one.offset()))
        finally:
            consumer.close()
