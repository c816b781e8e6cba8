"""`Rebound` as other programs use it: its life from start to close."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from rebound import Config, Destination, Rebound, Task
from rebound.domain.errors import Closed, ReboundError, ValidationError


@pytest.fixture
def config(tmp_path: Path) -> Config:
    return Config(store_url=f"sqlite:///{tmp_path / 'tasks.db'}")


def a_task() -> Task:
    return Task(source="tests", destination=Destination(url="http://one.test"), delay=1000)


async def test_started_twice_at_once_it_works_once_and_leaves_nothing_behind(
    config: Config,
) -> None:
    rebound = Rebound(config)
    await asyncio.gather(rebound.start(), rebound.start())
    await rebound.close()
    assert asyncio.all_tasks() == {asyncio.current_task()}


async def test_closed_while_it_starts_it_does_not_start(config: Config) -> None:
    rebound = Rebound(config)
    starting = asyncio.create_task(rebound.start())
    await asyncio.sleep(0)
    await rebound.close()
    with pytest.raises(Closed):
        await starting
    assert asyncio.all_tasks() == {asyncio.current_task()}


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


async def test_close_leaves_no_thread_though_calls_are_under_way(config: Config) -> None:
    threads = set(threading.enumerate())
    rebound = Rebound(config)
    await rebound.start()
    kept = await rebound.create_task(a_task())
    calls = [asyncio.create_task(rebound.cancel(kept.id))]
    calls += [asyncio.create_task(rebound.create_task(kept)) for _ in range(20)]
    await asyncio.sleep(0)
    await rebound.close()
    await asyncio.gather(*calls, return_exceptions=True)
    assert set(threading.enumerate()) == threads
    assert asyncio.all_tasks() == {asyncio.current_task()}


async def test_another_loop_is_refused_and_disturbs_nothing(config: Config) -> None:
    for worker in (True, False):
        async with Rebound(config, worker=worker) as rebound:
            for call in (
                lambda: rebound.create_task(a_task()),
                lambda: rebound.create_tasks([a_task()]),
                rebound.find,
            ):
                with pytest.raises(ReboundError, match="started in another event loop"):
                    await asyncio.to_thread(lambda call=call: asyncio.run(call()))
            await rebound.create_task(a_task())
            assert await rebound.find(limit=1)


def test_one_loop_after_the_other_may_submit_to_a_file(config: Config) -> None:
    rebound = Rebound(config, worker=False)
    asyncio.run(rebound.start())
    for _ in range(2):
        asyncio.run(rebound.create_task(a_task()))
    assert len(asyncio.run(rebound.find()).tasks) == 2
    asyncio.run(rebound.close())


async def test_neither_side_sees_what_the_other_does_to_a_message_afterwards(
    config: Config,
) -> None:
    message: dict[str, Any] = {"a": [1]}
    async with Rebound(config, worker=False) as rebound:
        one = replace(a_task(), message_data=message)
        storing = asyncio.create_task(rebound.create_tasks([one, replace(one, id="b")]))
        await asyncio.sleep(0)
        message["a"].append("while it is stored")
        stored, other = await storing
        message["a"].append("later")
        assert stored.message_data == other.message_data == {"a": [1]}
        stored.message_data.clear()  # type: ignore[union-attr]
        for id_ in (stored.id, other.id):
            kept = await rebound.get_task(id_)
            assert kept is not None
            assert kept.message_data == {"a": [1]}
        again = await rebound.create_task(replace(other, message_data={"a": [1]}))
        assert again == other


async def test_what_is_no_filter_is_refused_by_name(config: Config) -> None:
    async with Rebound(config, worker=False) as rebound:
        for wrong in ({"leg": "zzz"}, {"state": "x"}, {"limit": "5"}, {"cursor": 5}):
            with pytest.raises(ValidationError) as caught:
                await rebound.find(**wrong)  # type: ignore[arg-type]
            assert caught.value.field == next(iter(wrong))
        assert await rebound.get_task("\ud800") is None
