"""How fast is what is due delivered to Kafka by one worker process?

    python -m bench.kafka [broker]

Without a broker a real one is started where Java is, else the one built into librdkafka.
"""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from confluent_kafka import Producer

from bench.deliver import work
from bench.machine import Row, redis, submitting, task

COUNT = 100_000
TOPICS = 1
PARTITIONS = 4


@contextlib.contextmanager
def broker() -> Iterator[str]:
    """`host:port` of a broker that has the topics, or makes them."""
    if shutil.which("java") is None:
        mock = Producer({"test.mock.num.brokers": 1, "log_level": 0})
        (only,) = mock.list_topics(timeout=10).brokers.values()
        yield f"{only.host}:{only.port}"
        return
    from tests.services.kafka import KafkaBroker

    with tempfile.TemporaryDirectory() as folder:
        kafka = KafkaBroker(Path(folder))
        kafka.start()
        try:
            for n in range(TOPICS):
                kafka.create_topic(f"bench{n}", PARTITIONS)
            yield kafka.bootstrap
        finally:
            kafka.stop()


async def deliveries(store_url: str, namespace: str, at: str, target: float) -> list[Row]:
    """Tasks are stored first, then one `rebound work` delivers them."""
    async with submitting(store_url, namespace) as rebound:
        tasks = [task(f"kafka://{at}/bench{n % TOPICS}", delay=0) for n in range(COUNT)]
        for first in range(0, COUNT, 500):
            await rebound.create_tasks(tasks[first : first + 500])
        worker = work(store_url, namespace)
        try:
            while not (await rebound.find(state="succeeded", limit=1)).tasks:
                await asyncio.sleep(0.005)
            began = time.perf_counter()
            while (await rebound.find(state="scheduled", limit=1)).tasks or (
                await rebound.find(state="delivering", limit=1)
            ).tasks:
                await asyncio.sleep(0.1)
            took = time.perf_counter() - began
        finally:
            worker.terminate()
            worker.wait()
    name = "sqlite" if store_url.startswith("sqlite") else "redis"
    return [
        Row(f"deliver to Kafka: one worker, one topic, {name}", COUNT / took, "records/s", target)
    ]


async def main() -> int:
    with redis() as store, contextlib.ExitStack() as stack:
        at = sys.argv[1] if len(sys.argv) > 1 else stack.enter_context(broker())
        rows = await deliveries(store, "bench", at, 15_000)
    for row in rows:
        print(row.line(), flush=True)
    return 0 if all(row.met for row in rows) else 1


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
