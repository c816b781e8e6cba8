"""How fast is what is due delivered to Kafka, and what is consumed there handled?"""

from __future__ import annotations

import asyncio
import contextlib
import json
import shutil
import tempfile
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

from confluent_kafka import Producer

from bench.figures import Figures
from bench.machine import MESSAGE, store, submitting, task
from bench.servers import work
from rebound import Config, Rebound, Record, RetryingConsumer

RECORDS = 60_000
CONSUMED = 200_000
KEYS = 1_000
PARTITIONS = 4


@contextlib.contextmanager
def broker() -> Iterator[str]:
    """A Kafka, with what is consumed there: its `host:port`."""
    if shutil.which("java") is None:
        raise SystemExit("the benchmarks need Java: apt-get install default-jre-headless")
    from tests.services.kafka import KafkaBroker

    with tempfile.TemporaryDirectory() as folder:
        kafka = KafkaBroker(Path(folder))
        kafka.start()
        try:
            for topic in ("delivered", "consumed"):
                kafka.create_topic(topic, PARTITIONS)
            _fill(kafka.bootstrap)
            yield kafka.bootstrap
        finally:
            kafka.stop()


def _fill(at: str) -> None:
    """Records of 300 bytes with one of a thousand keys."""
    properties = {"bootstrap.servers": at, "log_level": 0}
    producer = Producer(properties | {"queue.buffering.max.messages": CONSUMED})
    value = json.dumps(MESSAGE)
    for n in range(CONSUMED):
        producer.produce("consumed", value, f"key{n % KEYS}")
        if n % 1000 == 0:
            producer.poll(0)
    assert producer.flush(60) == 0


async def deliveries(figures: Figures, url: str, at: str) -> None:
    """Tasks are stored first, then one `rebound work` delivers them."""
    namespace = uuid.uuid4().hex
    async with submitting(url, namespace) as rebound:
        await store(rebound, (task(f"kafka://{at}/delivered", delay=0) for _ in range(RECORDS)))
        with work(url, namespace):
            while not (await rebound.find(state="succeeded", limit=1)).tasks:
                await asyncio.sleep(0.005)
            began = time.perf_counter()
            while (await rebound.find(state="scheduled", limit=1)).tasks or (
                await rebound.find(state="delivering", limit=1)
            ).tasks:
                await asyncio.sleep(0.05)
            figures.add("deliver, Kafka", RECORDS / (time.perf_counter() - began))


async def passing(figures: Figures, at: str) -> None:
    """From the first record that is handled to the last one."""
    done, began, handled = asyncio.Event(), 0.0, 0

    async def handle(record: Record) -> None:
        nonlocal handled, began
        began = began or time.perf_counter()
        json.loads(record.value or b"")
        handled += 1
        if handled == CONSUMED:
            done.set()

    config = Config(store_url="sqlite://:memory:", log_level="error")
    group = uuid.uuid4().hex
    async with (
        Rebound(config) as rebound,
        RetryingConsumer(rebound, brokers=at, group=group, topics="consumed", handler=handle),
    ):
        await done.wait()
        figures.add("consume, Kafka", CONSUMED / (time.perf_counter() - began))
