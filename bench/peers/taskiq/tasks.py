"""taskiq, at its fastest: what was tried is in the README one folder up."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from typing import Any

import aiohttp
from taskiq import SimpleRetryMiddleware, TaskiqEvents, TaskiqState
from taskiq.serializers import ORJSONSerializer
from taskiq_redis import RedisStreamBroker

broker = (
    RedisStreamBroker(
        os.environ["BENCH_REDIS"],
        consumer_id="0",  # what was stored before the worker started counts as well
        xread_count=500,
        max_connection_pool_size=100,
    )
    .with_serializer(ORJSONSerializer())
    .with_middlewares(SimpleRetryMiddleware(default_retry_count=5, default_retry_label=True))
)


@broker.on_event(TaskiqEvents.WORKER_STARTUP)
async def open_session(state: TaskiqState) -> None:
    state.session = aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0), cookie_jar=aiohttp.DummyCookieJar()
    )


@broker.task
async def deliver(url: str, message: dict[str, Any]) -> None:
    async with broker.state.session.post(url, json=message) as response:
        await response.read()
        if response.status != 200:
            raise RuntimeError(response.status)


async def enqueue(count: int) -> None:
    await broker.startup()
    message = json.loads(os.environ["BENCH_MESSAGE"])
    for _ in range(count // 100):
        await asyncio.gather(*(deliver.kiq(os.environ["BENCH_SINK"], message) for _ in range(100)))
    await broker.shutdown()


if __name__ == "__main__":
    asyncio.run(enqueue(int(sys.argv[1])))
