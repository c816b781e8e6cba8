"""A Kafka consumer that retries: the topic moves on, and the record that failed comes back.

Needs a Kafka: `make services` starts one on port 9092; KAFKA_BROKERS names another.
"""

import asyncio
import os
import sys
import time
import uuid
from tempfile import TemporaryDirectory

from confluent_kafka import Consumer, KafkaException, Producer
from confluent_kafka.admin import AdminClient, NewTopic

from rebound import Config, Rebound, Record, Reject, RetryingConsumer

STARTED = time.monotonic()
BROKERS = os.environ.get("KAFKA_BROKERS", "localhost:9092")
TOPIC = f"parcels-{uuid.uuid4().hex[:8]}"
DEAD = f"{TOPIC}.dead"


def say(text: str) -> None:
    print(f"{time.monotonic() - STARTED:5.2f} s  {text}", flush=True)


class Shipping:
    """The handler of the records. The carrier is away until the second time that it is asked."""

    def __init__(self) -> None:
        self.left = {"parcel 1", "parcel 2", "parcel 3"}
        self.done = asyncio.Event()

    async def handle(self, record: Record) -> None:
        parcel = (record.value or b"").decode()
        if parcel == "parcel 1" and record.failures < 2:
            say(f"{parcel}: the carrier is away, failure {record.failures + 1}")
            raise ConnectionError("the carrier is away")
        self._tick(parcel)
        if parcel == "parcel 2":
            say(f"{parcel}: has no address")
            raise Reject("no address")
        say(f"{parcel}: shipped")

    def _tick(self, parcel: str) -> None:
        self.left.discard(parcel)
        if not self.left:
            self.done.set()


async def main() -> None:
    await asyncio.to_thread(prepare)
    shipping = Shipping()
    with TemporaryDirectory() as folder:
        config = Config(store_url=f"sqlite:///{folder}/rebound.db", kafka_brokers=BROKERS)
        async with (
            Rebound(config) as rebound,
            RetryingConsumer(
                rebound,
                group="shipping",
                topics=[TOPIC],
                handler=shipping.handle,
                retry={"max_retries": 5, "base_delay": 0.5},
                dead_topic=DEAD,
            ),
        ):
            await shipping.done.wait()
            say(await asyncio.to_thread(dead_letter))


def prepare() -> None:
    """Two topics, and three records in one of them."""
    admin = AdminClient({"bootstrap.servers": BROKERS, "log_level": 0})
    try:
        admin.list_topics(timeout=10)
    except KafkaException:
        sys.exit(f"no Kafka answers at {BROKERS}; `make services` starts one")
    for made in admin.create_topics([NewTopic(TOPIC, 1, 1), NewTopic(DEAD, 1, 1)]).values():
        made.result(30)
    producer = Producer({"bootstrap.servers": BROKERS})
    for number in (1, 2, 3):
        producer.produce(TOPIC, key=f"customer-{number}", value=f"parcel {number}")
    producer.flush(30)


def dead_letter() -> str:
    """The record in the dead topic, and why it is there."""
    consumer = Consumer(
        {"bootstrap.servers": BROKERS, "group.id": "people", "auto.offset.reset": "earliest"}
    )
    consumer.subscribe([DEAD])
    while (message := consumer.poll(1)) is None or message.error():
        pass
    why = dict(message.headers() or [])["rebound-error"]
    consumer.close()
    return f"in the dead topic: {message.value()!r}, because of {why!r}"


if __name__ == "__main__":
    asyncio.run(main())
