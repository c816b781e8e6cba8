"""Redis as production runs it: Sentinels, replicas that confirm. Nodes die; nothing is lost."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from redis.crc import key_slot

from rebound import Config, Destination, Rebound, StoreUnavailable, Task
from rebound.adapters.stores.redis_partitions import spread
from tests.e2e.conftest import Receiver
from tests.redis_servers import Cluster, Sentinels, follow
from tests.support import until


@pytest.fixture
def sentinels(tmp_path: Path) -> Iterator[Callable[..., Sentinels]]:
    """Makes groups of servers with Sentinels, which end with the test."""
    made: list[Sentinels] = []

    def make(*lines: str, **options: object) -> Sentinels:
        made.append(Sentinels(tmp_path / f"group{len(made)}", *lines, **options))  # type: ignore[arg-type]
        return made[-1]

    yield make
    for group in made:
        group.stop()


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    """Three masters with a replica each."""
    made = Cluster(tmp_path / "cluster")
    yield made
    made.stop()


def clustered(cluster: Cluster, **settings: object) -> Config:
    return Config(
        redis_mode="cluster",
        redis_cluster_addrs=cluster.addresses,
        poll_interval=0.2,
        **settings,  # type: ignore[arg-type]
    )


def watched(group: Sentinels, **settings: object) -> Config:
    return Config(
        redis_mode="sentinel",
        redis_master_name=group.name,
        redis_sentinel_addrs=group.addresses,
        poll_interval=0.2,
        **settings,  # type: ignore[arg-type]
    )


class Source:
    """Creates tasks one after the other, each until it is confirmed."""

    def __init__(self, rebound: Rebound, receiver: Receiver) -> None:
        self.confirmed: list[str] = []
        self.refused = 0
        self._rebound = rebound
        self._url = receiver.url("/hook")

    async def create(self, count: int) -> None:
        for _ in range(count):
            task = Task(
                id=f"t{len(self.confirmed)}", source="tests", delay=0.2,
                destination=Destination(url=self._url),
            )  # fmt: skip
            while True:
                try:
                    await self._rebound.create_task(task)
                    break
                except StoreUnavailable:
                    self.refused += 1
                    await asyncio.sleep(0.05)
            self.confirmed.append(task.id or "")


async def test_killed_master_loses_no_confirmed_task_and_everything_goes_on_unaided(
    sentinels: Callable[..., Sentinels], receiver: Receiver
) -> None:
    group = sentinels(replicas=2)
    async with Rebound(watched(group, redis_wait_replicas=1, lease=2)) as rebound:
        source = Source(rebound, receiver)
        await source.create(40)
        creating = asyncio.create_task(source.create(40))
        await until(lambda: len(source.confirmed) >= 45)
        group.master.stop()
        await creating
        assert source.refused > 0
        await until(lambda: set(receiver.counts()) == set(source.confirmed))


async def test_frozen_master_that_comes_back_as_a_replica_is_not_written_to(
    sentinels: Callable[..., Sentinels], receiver: Receiver
) -> None:
    group = sentinels()
    async with Rebound(watched(group, lease=2)) as rebound:
        source = Source(rebound, receiver)
        await source.create(5)
        assert await asyncio.to_thread(follow, group.master, 1)
        group.master.freeze()
        await source.create(5)
        group.master.thaw()
        await until(lambda: group.master.info("role") == "slave")
        await source.create(5)
        await until(lambda: set(receiver.counts()) == set(source.confirmed))


async def test_missing_replica_confirms_nothing_and_the_repeat_of_a_call_is_no_way_round(
    sentinels: Callable[..., Sentinels],
) -> None:
    group = sentinels(sentinels=1, password="s3cret")
    config = watched(group, redis_wait_replicas=1, redis_sentinel_password="s3cret")
    async with Rebound(config, worker=False) as rebound:
        task = Task(id="a", source="tests", destination=Destination(url="http://one.test"), delay=0)
        group.data[1].freeze()
        began = time.monotonic()
        for _ in range(2):
            with pytest.raises(StoreUnavailable, match="only 0 of 1 replicas"):
                await rebound.create_task(task)
        assert time.monotonic() - began < 5
        group.data[1].thaw()
        assert (await rebound.create_task(task)).id == "a"
        await rebound.cancel("a")


async def test_cluster_spreads_tasks_over_all_masters_and_survives_the_death_of_one(
    cluster: Cluster, receiver: Receiver
) -> None:
    async with Rebound(clustered(cluster, lease=2)) as rebound:
        source = Source(rebound, receiver)
        await source.create(60)
        sizes = [master.ask("DBSIZE") for master in cluster.masters]
        assert all(sizes), sizes
        for master in cluster.masters:
            assert await asyncio.to_thread(follow, master, 1)
        cluster.masters[1].stop()
        await source.create(60)
        assert source.refused > 0
        await until(lambda: set(receiver.counts()) == set(source.confirmed))
        listed = await rebound.find(limit=1000)
        assert {task.id for task in listed.tasks} == set(source.confirmed)


async def test_slot_that_moves_under_load_holds_up_its_own_tasks_only_and_loses_none(
    cluster: Cluster, receiver: Receiver
) -> None:
    slot = key_slot(spread("rebound")[0].encode())
    async with Rebound(clustered(cluster, lease=2)) as rebound:
        source = Source(rebound, receiver)
        await source.create(40)
        end_of_move = cluster.begin_move(slot, cluster.masters[2])
        creating = asyncio.create_task(source.create(60))
        await until(lambda: source.refused > 2)
        await asyncio.to_thread(end_of_move)
        assert cluster.owner(slot) is cluster.masters[2]
        await creating
        await until(lambda: set(receiver.counts()) == set(source.confirmed))
        assert max(receiver.counts().values()) == 1
        assert await rebound.get_task("t0") is not None
