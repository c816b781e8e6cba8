"""What the tests of the Redis store alone share."""

from __future__ import annotations

import struct
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from redis.asyncio import Redis

from rebound.adapters.stores.redis import RedisStore
from tests.conftest import RedisServer

OwnRedis = Callable[..., RedisServer]
HEADER = 41
"""Bytes in front of the body of a task that no worker has had; see `lua/record.lua`."""


@asynccontextmanager
async def opened(url: str, **options: object) -> AsyncIterator[RedisStore]:
    """A store that is closed at the end."""
    store = RedisStore(url, **options)  # type: ignore[arg-type]
    try:
        yield store
    finally:
        await store.aclose()


@asynccontextmanager
async def plain(server: RedisServer, **options: object) -> AsyncIterator[Redis]:
    """A client that knows nothing of Rebound."""
    async with Redis.from_url(server.url, **options) as client:  # type: ignore[arg-type]
        yield client


async def written_before(raw: Redis, key: str) -> None:
    """Turn the record of an unclaimed task into the hash that it was before there were headers."""
    text = await raw.execute_command("GET", key, NEVER_DECODE=True)
    created, due, priority, digest, nonce = struct.unpack_from(">QQ?16s8s", text)
    g = f"{created} {digest.hex()} {nonce.hex()} {priority:d} {due}"
    await raw.delete(key)
    await raw.hset(key, mapping={"g": g, "b": text[HEADER:]})
