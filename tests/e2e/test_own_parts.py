"""A program's own Redis client, HTTP session, logger and clock, handed in through `Config`."""

from __future__ import annotations

import logging
import time
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import redis
from redis.asyncio import Redis

from rebound import Config, Destination, Rebound, Task, ValidationError
from tests.conftest import RedisServer
from tests.e2e.conftest import Receiver
from tests.support import until

MEMORY = "sqlite://:memory:"


def task(receiver: Receiver, **fields: Any) -> Task:
    to = Destination(url=receiver.url("/hook"))
    return Task(**{"id": "t", "source": "tests", "destination": to, "delay": 0, **fields})


async def test_their_redis_client_is_used_as_it_is_and_left_open(
    redis_server: RedisServer, receiver: Receiver, tmp_path: Path
) -> None:
    async with Redis.from_url(redis_server.url, decode_responses=True) as client:
        config = Config(redis=client, namespace=tmp_path.name)
        async with Rebound(config) as rebound:
            await rebound.create_task(task(receiver, message_data="\N{SNOWMAN}"))
            await until(lambda: receiver.got)
            assert (config.store_kind, config.store_shown) == ("redis", "redis")
        assert await client.ping()
        assert [key async for key in client.scan_iter(f"{{{tmp_path.name}:0}}:*")]
    assert receiver.got[0].body.decode() == "\N{SNOWMAN}"


async def test_their_session_is_used_as_it_is_and_left_open(receiver: Receiver) -> None:
    async with aiohttp.ClientSession(headers={"X-Team": "payments"}) as session:
        async with Rebound(Config(store_url=MEMORY, session=session)) as rebound:
            await rebound.create_task(task(receiver))
            await until(lambda: receiver.got)
        assert not session.closed
    assert receiver.got[0].headers["X-Team"] == "payments"


async def test_their_logger_gets_the_events_and_that_of_the_package_none(
    receiver: Receiver, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    logger = logging.getLogger("shop.webhooks")
    async with Rebound(Config(store_url=MEMORY, logger=logger)) as rebound:
        await rebound.create_task(task(receiver))
        await until(lambda: "task delivered" in caplog.messages)
    names = [record.name for record in caplog.records if record.name != "aiohttp.access"]
    assert names == ["shop.webhooks"] * 4
    assert caplog.messages[:2] == ["worker started", "task scheduled"]


async def test_their_clock_says_when_a_task_is_due(receiver: Receiver) -> None:
    offset = 0.0
    config = Config(store_url=MEMORY, clock=lambda: time.time() + offset, poll_interval="10ms")
    async with Rebound(config) as rebound:
        await rebound.create_task(task(receiver, id="later", delay=86_400))
        await rebound.create_task(task(receiver, id="now"))
        await until(receiver.counts)
        assert receiver.counts() == {"now": 1}
        offset = 86_400.0
        await until(lambda: receiver.counts()["later"])


@pytest.mark.parametrize(
    ("part", "message"),
    [
        ({"redis": "redis://h"}, "REDIS: must be a redis.asyncio.Redis, not a builtins.str"),
        ({"redis": redis.Redis()}, "REDIS: must be a redis.asyncio.Redis, not a redis.client."),
        ({"session": object()}, "SESSION: must be an aiohttp.ClientSession, not a builtins.obj"),
        ({"logger": "shop"}, "LOGGER: must be a logging.Logger, not a builtins.str"),
        ({"clock": 5}, "CLOCK: must be a function, not a builtins.int"),
        ({"on_event": "print"}, "ON_EVENT: must be a function, not a builtins.str"),
    ],
)
def test_what_is_no_such_part_is_one_line(part: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message) as caught:
        Config(**part)
    assert caught.value.field == next(iter(part))
