"""`Rebound` as other programs use it: its life from start to close."""

from __future__ import annotations

from pathlib import Path

import pytest

from rebound import Config, Destination, Rebound, Task
from rebound.domain.errors import Closed


@pytest.fixture
def config(tmp_path: Path) -> Config:
    return Config(store_url=f"sqlite:///{tmp_path / 'tasks.db'}")


def a_task() -> Task:
    return Task(source="tests", destination=Destination(url="http://one.test"), delay=1000)


async def test_after_close_nothing_is_taken_and_it_cannot_be_started_again(config: Config) -> None:
    async with Rebound(config) as rebound:
        kept = await rebound.create_task(a_task())
    with pytest.raises(Closed):
        await rebound.create_task(a_task())
    with pytest.raises(Closed):
        await rebound.start()
    await rebound.close()
    async with Rebound(config, worker=False) as again:
        assert await again.get_task(kept.id) == kept
