"""How many records a second pass a RetryingConsumer whose handler succeeds?

    python -m bench.consumer [broker]

Without a broker a real one is started where Java is, else the one built into librdkafka.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
import time
import uuid

from confluent_kafka import Producer

from bench.kafka import TOPICS, broker
from bench.machine import MESSAGE, Row
from rebound import Config, Rebound, Record, RetryingConsumer

COUNT = 200_000
KEYS = 1000


def fill(at: str, topic: str) -> None:
    """Write the records: 300 bytes of JSON with one of a thousand keys."""
    producer = Producer(
        {"bootstrap.servers": at, "log_level": 0, "queue.buffering.max.messages": COUNT}
    )
    value = json.dumps(MESSAGE)
    for n in range(COUNT):
        producer.produce(topic, value, f"key{n % KEYS}")
        if n % 1000 == 0:
            producer.poll(0)
    assert producer.flush(60) == 0


async def passing(at: str, topic: str, target: float) -> list[Row]:
    """From the first record that is handled to the last one."""
    done, began = asyncio.Event(), 0.0
    handled = 0

    async def handle(record: Record) -> None:
        nonlocal handled, began
        began = began or time.perf_counter()
        json.loads(record.value or b"")
        handled += 1
        if handled == COUNT:
            done.set()

    async with (
        Rebound(Config(store_url="sqlite://:memory:", log_level="error")) as rebound,
        RetryingConsumer(rebound, brokers=at, group=uuid.uuid4().hex, topics=topic, handler=handle),
    ):
        await done.wait()
        took = time.perf_counter() - began
    return [Row("RetryingConsumer: records that succeed", COUNT / took, "records/s", target)]


async def main() -> int:
    with contextlib.ExitStack() as stack:
        at = sys.argv[1] if len(sys.argv) > 1 else stack.enter_context(broker())
        topic = f"bench{TOPICS - 1}"
        fill(at, topic)
        rows = await passing(at, topic, 10_000)
    for row in rows:
        print(row.line(), flush=True)
    return 0 if all(row.met for row in rows) else 1


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
