"""`RetryingConsumer` on a real Kafka: crashes, rebalances, outages."""

from __future__ import annotations

import asyncio
import json
import logging
import random
import subprocess
import sys
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from rebound import Config, Rebound, Record, Reject, RetryingConsumer
from tests import topics
from tests.conftest import RedisServer
from tests.services.kafka import KafkaBroker
from tests.support import until

FAST = {"session.timeout.ms": 2000, "heartbeat.interval.ms": 200}
"""How soon a group notices that a member is gone."""


@pytest.fixture
async def rebound(tmp_path: Path) -> AsyncIterator[Rebound]:
    logger = logging.Logger("tests")
    logger.addHandler(logging.NullHandler())
    async with Rebound(Config(store_url=f"sqlite:///{tmp_path}/own.db", logger=logger)) as one:
        yield one


class Group:
    """Members of one group on one topic, and what they were given."""

    def __init__(self, broker: KafkaBroker, topic: str, rebound: Rebound, group: str = "") -> None:
        self.given: list[Record] = []
        self.group = group or topic
        self._of = (broker, topic, rebound)
        self.slow: Callable[[Record], float] = lambda _: 0
        self.fails: Callable[[Record], BaseException | None] = lambda _: None

    async def handle(self, record: Record) -> None:
        self.given.append(record)
        if wait := self.slow(record):
            await asyncio.sleep(wait)
        if (error := self.fails(record)) is not None:
            raise error

    def member(self, **options: Any) -> RetryingConsumer:
        broker, topic, rebound = self._of
        config = {**FAST, **options.pop("config", {})}
        return RetryingConsumer(
            rebound, brokers=broker.bootstrap, group=self.group, topics=topic,
            handler=self.handle, config=config, **options,
        )  # fmt: skip

    @property
    def counts(self) -> Counter[bytes | None]:
        return Counter(topics.values(self.given))


async def write(broker: KafkaBroker, topic: str, *records: dict[str, Any]) -> None:
    await asyncio.to_thread(topics.write, broker.bootstrap, topic, records)


async def read(broker: KafkaBroker, topic: str, enough: Any) -> list[topics.Read]:
    return await asyncio.to_thread(topics.read, broker.bootstrap, topic, enough)


async def until_committed(broker: KafkaBroker, group: str, topic: str, offset: int) -> None:
    async with asyncio.timeout(20):
        while offset != await asyncio.to_thread(topics.committed, broker.bootstrap, group, topic):
            await asyncio.sleep(0.02)


# -- the end of a record -----------------------------------------------------------------------


async def test_a_poison_record_is_dead_after_exactly_max_retries_failures_as_it_was_written(
    kafka_broker: KafkaBroker, topic: str, rebound: Rebound
) -> None:
    kafka_broker.create_topic(topic, 2)
    kafka_broker.create_topic(f"{topic}.dead")
    group = Group(kafka_broker, topic, rebound)
    group.fails = lambda r: None if r.value == b"fine" else ValueError("no")
    poison: dict[str, Any] = {
        "key": bytes(range(256)), "value": bytes(reversed(range(256))), "partition": 1,
        "headers": [("trace", b"a"), ("raw", b"\xff"), ("none", None)],
    }  # fmt: skip
    await write(kafka_broker, topic, poison, {"value": None, "key": b"gone"}, {"value": b"fine"})
    retry = {"max_retries": 4, "base_delay": 0.05}
    async with group.member(retry=retry, dead_topic=f"{topic}.dead"):
        dead = {r.value: r for r in await read(kafka_broker, f"{topic}.dead", 2)}
    letter = dead[poison["value"]]
    assert (letter.key, letter.own) == (poison["key"], poison["headers"])
    assert letter.header("rebound-dead-reason") == "exhausted"
    assert (dead[None].key, dead[None].own) == (b"gone", [])
    tries = [r for r in group.given if r.value == poison["value"]]
    assert [r.failures for r in tries] == [0, 1, 2, 3]
    assert len({(r.key, r.headers, r.partition, r.timestamp) for r in tries}) == 1
    assert group.counts[b"fine"] == 1
    records = await read(kafka_broker, topic, 9)  # 2 × 4, and the one that is fine
    assert len(records) == 9


async def test_failures_wait_longer_and_longer_and_success_ends_it(
    kafka_broker: KafkaBroker, topic: str, rebound: Rebound
) -> None:
    kafka_broker.create_topic(topic)
    group, at = Group(kafka_broker, topic, rebound), list[float]()
    loop = asyncio.get_running_loop()

    def fails(record: Record) -> BaseException | None:
        at.append(loop.time())
        return ValueError() if record.failures < 3 else None

    group.fails = fails
    await write(kafka_broker, topic, {"value": b"x"})
    async with group.member(retry={"base_delay": 0.2}):
        await until(lambda: len(at) == 4)
        await until_committed(kafka_broker, topic, topic, 4)
    waits = [later - earlier for earlier, later in pairwise(at)]
    for wait, least in zip(waits, (0.2, 0.4, 0.8), strict=True):
        assert least <= wait < least + 1


async def test_groups_do_not_see_what_came_back_because_of_another_and_count_for_themselves(
    kafka_broker: KafkaBroker, topic: str, rebound: Rebound
) -> None:
    kafka_broker.create_topic(topic)
    billing, audit, idle = (Group(kafka_broker, topic, rebound, f"{topic}.{n}") for n in "abc")
    billing.fails = lambda r: ValueError() if r.failures < 2 else None
    audit.fails = lambda r: Reject() if r.failures else ValueError()
    await write(kafka_broker, topic, {"value": b"x", "key": b"k"})
    retry = {"base_delay": 0.05}
    async with billing.member(retry=retry), audit.member(retry=retry), idle.member():
        await until(lambda: (len(billing.given), len(audit.given)) == (3, 2))
        for group in (billing, audit, idle):
            await until_committed(kafka_broker, group.group, topic, 4)
    assert [r.failures for r in billing.given] == [0, 1, 2]
    assert [r.failures for r in audit.given] == [0, 1]
    assert [r.failures for r in idle.given] == [0]
    assert {r.headers for r in billing.given} == {()}


# -- order -------------------------------------------------------------------------------------


async def test_fresh_records_with_one_key_are_handled_in_order_others_at_the_same_time(
    kafka_broker: KafkaBroker, topic: str, rebound: Rebound
) -> None:
    kafka_broker.create_topic(topic, 3)
    group, chance = Group(kafka_broker, topic, rebound), random.Random(1)
    running, most = 0, 0

    async def handle(record: Record) -> None:
        nonlocal running, most
        group.given.append(record)
        running += 1
        most = max(most, running)
        await asyncio.sleep(chance.random() / 100)
        running -= 1
        ended.append(record)

    ended: list[Record] = []
    group.handle = handle  # type: ignore[method-assign]
    records = [{"key": b"%d" % (n % 20), "value": b"%d" % n} for n in range(1000)]
    await write(kafka_broker, topic, *records)
    async with group.member(concurrency=10):
        await until(lambda: len(ended) == 1000)
    assert most == 10
    for seen in (group.given, ended):
        by_key: dict[bytes | None, list[int]] = defaultdict(list)
        for record in seen:
            by_key[record.key].append(int(record.value or b""))
        assert all(values == sorted(values) for values in by_key.values())
        assert len(by_key) == 20


# -- crashes and rebalances --------------------------------------------------------------------


async def test_killed_between_failure_and_commit_there_is_one_task_and_not_two(
    kafka_broker: KafkaBroker, topic: str, tmp_path: Path
) -> None:
    kafka_broker.create_topic(topic)
    await write(kafka_broker, topic, *({"value": v} for v in (b"a", b"bad", b"c")))
    options = {
        "brokers": kafka_broker.bootstrap, "group": topic, "topic": topic,
        "store": f"sqlite:///{tmp_path}/child.db",
    }  # fmt: skip
    first = child({**options, "die": True})
    out, _ = await asyncio.to_thread(first.communicate)
    assert first.returncode == -9
    assert b"0 bad\n" in out
    assert topics.committed(kafka_broker.bootstrap, topic, topic) <= 1
    second = child({**options, "worker": True})
    lines: list[bytes] = []
    try:
        while b"1 bad\n" not in lines:
            assert second.stdout is not None
            lines.append(await asyncio.to_thread(second.stdout.readline))
            assert lines[-1]
        await until_committed(kafka_broker, topic, topic, 4)
    finally:
        second.kill()
        second.communicate()
    assert Counter(lines)[b"0 bad\n"] == 1  # the crash repeated it
    assert len(await read(kafka_broker, topic, 4)) == 4  # and still it came back once
    async with Rebound(Config(store_url=options["store"]), worker=False) as store:
        assert [t.id for t in (await store.find()).tasks] == [f"{{{topic}:0}}:1"]


def child(options: dict[str, Any]) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "tests.e2e.consuming", json.dumps(options)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, cwd=Path(__file__).parents[2])


@pytest.mark.parametrize("strategy", ["cooperative-sticky", "range"])
async def test_members_that_come_and_go_skip_and_repeat_nothing_and_keep_the_order(
    kafka_broker: KafkaBroker, topic: str, rebound: Rebound, strategy: str
) -> None:
    kafka_broker.create_topic(topic, 6)
    group = Group(kafka_broker, topic, rebound)
    group.slow = lambda r: 0.002
    config = {"partition.assignment.strategy": strategy, "session.timeout.ms": 10_000}
    options = {"config": config, "concurrency": 16}
    chance = random.Random(1)
    records = [{"key": b"%d" % chance.randrange(50), "value": b"%d" % n} for n in range(12_000)]
    await write(kafka_broker, topic, *records)
    first, second, third = (group.member(**options) for _ in range(3))
    async with first:
        await until(lambda: len(group.given) > 500)
        async with second, third:
            await until(lambda: all(m._poller and m._poller._partitions for m in (second, third)))
            then = len(group.given)
            assert then < 11_000
            await until(lambda: len(group.given) > then + 300)
            await second.close()
            await until(lambda: len(group.given) > then + 600)
        await until(lambda: len({r.value for r in group.given}) == 12_000)
    assert len(group.given) == 12_000
    by_key: dict[bytes | None, dict[int, None]] = defaultdict(dict)
    for record in group.given:
        by_key[record.key].setdefault(int(record.value or b""))
    assert all(list(values) == sorted(values) for values in by_key.values())


async def test_a_member_killed_under_load_is_taken_over_from_and_nothing_is_skipped(
    kafka_broker: KafkaBroker, topic: str, rebound: Rebound, tmp_path: Path
) -> None:
    kafka_broker.create_topic(topic, 4)
    values = [b"%d" % n for n in range(3000)]
    await write(kafka_broker, topic, *({"key": v, "value": v} for v in values))
    killed = child(
        {
            "brokers": kafka_broker.bootstrap, "group": topic, "topic": topic, "takes": 0.05,
            "store": f"sqlite:///{tmp_path}/child.db",
        }
    )  # fmt: skip
    async with asyncio.timeout(20):
        while not await asyncio.to_thread(offsets, kafka_broker, topic):
            await asyncio.sleep(0.02)
    killed.kill()
    begun = set(killed.communicate()[0].splitlines(keepends=True))
    assert len(begun) < 3000
    group = Group(kafka_broker, topic, rebound)
    async with group.member():
        await until(lambda: len({b"0 %s\n" % v for v in group.counts} | begun) == 3000)
        async with asyncio.timeout(20):
            while await asyncio.to_thread(offsets, kafka_broker, topic) != 3000:
                await asyncio.sleep(0.1)
    assert len(group.given) < 3000  # what had been committed was not repeated


def offsets(broker: KafkaBroker, topic: str) -> int:
    """How many records of the topic's four partitions its group has committed."""
    each = (topics.committed(broker.bootstrap, topic, topic, n) for n in range(4))
    return sum(offset for offset in each if offset > 0)


# -- outages -----------------------------------------------------------------------------------


async def test_a_store_that_is_away_holds_the_offset_and_takes_the_failure_when_it_is_back(
    kafka_broker: KafkaBroker, topic: str, own_redis: Callable[..., RedisServer]
) -> None:
    kafka_broker.create_topic(topic)
    redis = own_redis()
    async with Rebound(Config(store_url=redis.url), worker=False) as rebound:
        redis.stop()
        group = Group(kafka_broker, topic, rebound)
        group.fails = lambda r: ValueError() if r.value == b"bad" else None
        await write(kafka_broker, topic, *({"value": v} for v in (b"a", b"bad", b"c")))
        async with group.member():
            await until(lambda: len(group.given) == 3)
            await until_committed(kafka_broker, topic, topic, 1)
            redis.start()
            await until_committed(kafka_broker, topic, topic, 3)
        (task,) = (await rebound.find()).tasks
        assert task.id == f"{{{topic}:0}}:1"
    assert len(group.given) == 3


async def test_a_broker_that_is_killed_and_comes_back_is_read_on_from(
    own_kafka: Callable[..., KafkaBroker], topic: str, rebound: Rebound
) -> None:
    broker = own_kafka()
    broker.create_topic(topic, 2)
    group = Group(broker, topic, rebound)
    group.fails = lambda r: ValueError() if r.value == b"7" and not r.failures else None
    async with group.member(retry={"base_delay": 0.1}):
        await write(broker, topic, *({"value": b"%d" % n} for n in range(5)))
        await until(lambda: len(group.given) == 5)
        await asyncio.to_thread(broker.kill)
        await asyncio.to_thread(broker.start)
        await write(broker, topic, *({"value": b"%d" % n} for n in range(5, 10)))
        await until(lambda: len(group.counts) == 10 and group.counts[b"7"] >= 2, 60)
    assert max(r.failures for r in group.given) == 1
