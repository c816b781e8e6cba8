"""arq, at its fastest: what was tried is in the README one folder up."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from typing import Any

import aiohttp
import uvloop
from arq import Retry
from arq.connections import RedisSettings, create_pool

uvloop.install()
REDIS = RedisSettings.from_dsn(os.environ["BENCH_REDIS"])
QUIET = {"version": 1}


async def deliver(ctx: dict[str, Any], url: str, message: dict[str, Any]) -> None:
    try:
        async with ctx["session"].post(url, json=message) as response:
            await response.read()
            if response.status == 200:
                return
    except aiohttp.ClientError:
        pass
    raise Retry(defer=ctx["job_try"] * 5)  # only what raises this is tried again


async def open_session(ctx: dict[str, Any]) -> None:
    connector = aiohttp.TCPConnector(limit=0)
    ctx["session"] = aiohttp.ClientSession(connector=connector, cookie_jar=aiohttp.DummyCookieJar())


class Worker:
    functions = (deliver,)
    on_startup = open_session
    redis_settings = REDIS
    max_jobs = 200
    queue_read_limit = 200
    poll_delay = 0.01
    keep_result = 0
    max_tries = 5


async def enqueue(count: int) -> None:
    pool = await create_pool(REDIS)
    message = json.loads(os.environ["BENCH_MESSAGE"])
    for _ in range(count // 100):
        await asyncio.gather(
            *(pool.enqueue_job("deliver", os.environ["BENCH_SINK"], message) for _ in range(100))
        )


if __name__ == "__main__":
    asyncio.run(enqueue(int(sys.argv[1])))
