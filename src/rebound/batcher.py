"""Group commit: what many callers hand in while one round trip is under way goes as one batch."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, TypeVar

from rebound.domain.errors import Closed, StoreUnavailable

Item = TypeVar("Item")
Result = TypeVar("Result")


class Batcher(Generic[Item, Result]):
    """Collects groups of items and flushes them one batch after the other, in order.

    A batch that fails for a reason of its content is sent again in halves, so that one bad item
    fails alone; StoreUnavailable fails every member. A caller that is cancelled cancels nobody
    else. The buffer is bounded.
    """

    def __init__(
        self,
        flush: Callable[[Sequence[Item]], Awaitable[Sequence[Result]]],
        *,
        size: Callable[[Item], int],
        max_batch: int,
        max_items: int = 10_000,
        max_bytes: int = 64 * 1024 * 1024,
    ) -> None:
        self._flush = flush
        self._size = size
        self._max_batch = max_batch
        self._room_items = max_items
        self._room_bytes = max_bytes
        self._waiting: deque[tuple[Sequence[Item], asyncio.Future[list[Result]]]] = deque()
        self._running: asyncio.Task[None] | None = None
        self._closed = False

    async def put(self, items: Sequence[Item]) -> list[Result]:
        """Flush `items` with whatever else waits; return their results in order.

        Raises StoreUnavailable where the buffer is full, Closed after `aclose`, or what the flush
        raised.
        """
        if not items:
            return []
        if self._closed:
            raise Closed
        size = sum(map(self._size, items))
        if self._room_items < len(items) or self._room_bytes < size:
            raise StoreUnavailable("too many tasks are waiting for the store; try again")
        self._room_items -= len(items)
        self._room_bytes -= size
        future: asyncio.Future[list[Result]] = asyncio.get_running_loop().create_future()
        self._waiting.append((items, future))
        if self._running is None:
            self._running = asyncio.create_task(self._run())
        try:
            return await future
        finally:
            self._room_items += len(items)
            self._room_bytes += size

    async def aclose(self) -> None:
        """Flush what waits and take nothing more."""
        self._closed = True
        if self._running is not None:
            await asyncio.wait([self._running])

    async def _run(self) -> None:
        while self._waiting:
            groups = [self._waiting.popleft()]
            count = len(groups[0][0])
            while self._waiting and count + len(self._waiting[0][0]) <= self._max_batch:
                groups.append(self._waiting.popleft())
                count += len(groups[-1][0])
            await self._send(groups)
        self._running = None

    async def _send(
        self, groups: list[tuple[Sequence[Item], asyncio.Future[list[Result]]]]
    ) -> None:
        try:
            results = await self._flush([item for items, _ in groups for item in items])
        except Exception as error:
            if len(groups) > 1 and not isinstance(error, StoreUnavailable):
                middle = len(groups) // 2
                await self._send(groups[:middle])
                await self._send(groups[middle:])
                return
            for _, future in groups:
                if not future.done():
                    future.set_exception(error)
            return
        at = 0
        for items, future in groups:
            if not future.done():
                future.set_result(list(results[at : at + len(items)]))
            at += len(items)
