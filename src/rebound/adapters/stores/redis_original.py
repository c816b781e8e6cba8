"""The sorted set in which the Go original keeps the tasks that wait.

A member is a task as JSON, its score the second at which it is due.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from rebound.adapters.stores.redis_scripts import Server

KEY: Final = "retry:schedule:"


class RedisOriginal:
    """The waiting tasks on a server. Every call raises StoreUnavailable."""

    key = KEY

    def __init__(self, server: Server) -> None:
        self._server = server

    async def page(self, start: int, count: int) -> Sequence[tuple[bytes, float]]:
        """At most `count` members with their scores, the first due first, from place `start` on."""
        reply = await self._server.command("ZRANGE", KEY, start, start + count - 1, "WITHSCORES")
        return [(m, float(score)) for m, score in zip(reply[::2], reply[1::2], strict=True)]

    async def remove(self, members: Sequence[bytes]) -> int:
        """Remove them; answers how many were still there."""
        return int(await self._server.command("ZREM", KEY, *members, repeat=False))

    async def aclose(self) -> None:
        """Close the connection."""
        await self._server.aclose()
