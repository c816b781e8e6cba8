"""Redis as production runs it: Sentinels, replicas that confirm. Nodes die; nothing is lost."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from rebound import Config, Destination, Rebound, StoreUnavailable, Task
from tests.e2e.conftest import Receiver
from tests.redis_servers import Sentinels
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
