"""What the tests of the Redis store alone share."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from redis.asyncio import Redis

from rebound.adapters.stores.redis import RedisStore
from tests.conftest import RedisServer

OwnRedis = Callable[..., RedisServer]


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
