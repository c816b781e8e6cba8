"""Kafka producers on librdkafka's own cluster, which is there wherever the extra is."""

from __future__ import annotations

import threading
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from rebound.adapters.producers.kafka import KafkaProducer
from rebound.domain.destination import Destination
from rebound.domain.errors import DeliveryError
from rebound.domain.task import Task
from tests.support import task
from tests.unit.kafka.mock import MockCluster

Make = Callable[..., KafkaProducer]


@pytest.fixture(scope="package")
def cluster() -> MockCluster:
    return MockCluster()


@pytest.fixture
def own_cluster() -> MockCluster:
    """One that the test may break."""
    return MockCluster()


@pytest.fixture
async def make() -> AsyncIterator[Make]:
    made: list[KafkaProducer] = []

    def produce_to(cluster: MockCluster, **properties: Any) -> KafkaProducer:
        named = {name.replace("_", "."): value for name, value in properties.items()}
        made.append(KafkaProducer([cluster.bootstrap], named))
        return made[-1]

    yield produce_to
    for producer in made:
        await producer.aclose()


@pytest.fixture
def producer(make: Make, cluster: MockCluster) -> KafkaProducer:
    return make(cluster)


def to(url: str = "kafka:///one", id_: str = "t", **fields: Any) -> Task:
    return task(id_, destination=Destination(url=url), **fields).accepted()


def threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if "rebound-kafka" in thread.name]


async def failure(producer: KafkaProducer, one: Task) -> DeliveryError:
    with pytest.raises(DeliveryError) as caught:
        await producer.send(one)
    return caught.value
