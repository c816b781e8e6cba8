"""Group commit: what many callers hand in while one round trip is under way goes as one batch."""

from __future__ import annotations

import asyncio
import math
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Generic, TypeVar

from msgspec import Struct

from rebound.domain.errors import Closed, StoreUnavailable

Item = TypeVar("Item")
Result = TypeVar("Result")
MAX_PORTION = 1000
"""Items of one caller that go as one group, and a quarter of the bytes that may wait."""


class Group(Struct, Generic[Item, Result]):
    """What one caller handed in."""

    items: Sequence[Item]
    size: int
    results: asyncio.Future[list[Result]]


class Batcher(Generic[Item, Result]):
    """Collects groups of items and flushes them in batches, at most `flights` at once.

    A batch that fails for a reason of its content is sent again in halves, so that one bad item
    fails alone; StoreUnavailable fails every member, and whoever has been waiting behind them, who
    would wait for the same again. A caller that is cancelled cancels nobody else. The buffer is
    bounded.
    """

    def __init__(
        self,
        flush: Callable[[Sequence[Item]], Awaitable[Sequence[Result]]],
        *,
        size: Callable[[Item], int],
        max_batch: int,
        flights: int = 1,
        max_items: int = 10_000,
        max_bytes: int = 64 * 1024 * 1024,
    ) -> None:
        self._flush = flush
        self._size = size
        self._max_batch = max_batch
        self._room_items = max_items
        self._room_bytes = max_bytes
        self._max_portion = max_bytes // 4
        self._waiting: deque[Group[Item, Result]] = deque()
        self._flights = flights
        self._flushing = 0
        self._running: set[asyncio.Future[None]] = set()
        self._loop: asyncio.AbstractEventLoop
        self._alone = False
        self._closed = False

    async def put(self, items: Sequence[Item]) -> list[Result]:
        """Flush `items` with whatever else waits; return their results in order.

        Raises StoreUnavailable where the buffer is full, Closed after `aclose`, or what the flush
        raised.
        """
        return await self._put(items, sum(map(self._size, items)))

    async def _put(self, items: Sequence[Item], size: int) -> list[Result]:
        if not items:
            return []
        if self._closed:
            raise Closed
        if self._room_items < len(items) or self._room_bytes < size:
            raise StoreUnavailable("too many tasks are waiting for the store; try again")
        self._room_items -= len(items)
        self._room_bytes -= size
        if not self._running:  # else it is theirs; to ask is a call of the system
            self._loop = asyncio.get_running_loop()
        group = Group(items, size, self._loop.create_future())
        if self._alone and not self._running:
            await self._fly_alone(group)
        else:
            self._waiting.append(group)
            self._start()
        return await group.results

    async def put_many(self, items: Sequence[Item]) -> list[Result]:
        """Likewise any number of items, one portion after the other."""
        size = sum(map(self._size, items))
        if len(items) <= MAX_PORTION and size <= self._max_portion:
            return await self._put(items, size)
        results: list[Result] = []
        portion: list[Item] = []
        size = 0
        for item in items:
            if len(portion) >= MAX_PORTION or size >= self._max_portion:
                results += await self._put(portion, size)
                portion, size = [], 0
            portion.append(item)
            size += self._size(item)
        return results + await self._put(portion, size)

    async def aclose(self) -> None:
        """Flush what waits and take nothing more."""
        self._closed = True
        if self._running:
            await asyncio.wait(self._running)

    def _start(self) -> None:
        if self._waiting and len(self._running) < self._flights:
            self._running.add(self._loop.create_task(self._run()))

    async def _fly_alone(self, group: Group[Item, Result]) -> None:
        """A flight in the caller's own task, as one of its own costs two turns of the loop.

        Where the caller is cancelled nobody else is aboard.
        """
        landed = self._loop.create_future()
        self._running.add(landed)
        try:
            await self._fly([group])
        except asyncio.CancelledError:
            group.results.cancel()
            raise
        finally:
            self._running.discard(landed)
            landed.set_result(None)
            self._start()

    async def _fly(self, groups: Sequence[Group[Item, Result]]) -> None:
        self._flushing += 1
        try:
            await self._send(groups)
        finally:
            self._flushing -= 1
            self._alone = len(groups) == 1 and not self._waiting
            self._room_items += sum(len(group.items) for group in groups)
            self._room_bytes += sum(group.size for group in groups)

    async def _run(self) -> None:
        try:
            while self._waiting:
                groups = self._next()
                try:
                    await self._fly(groups)
                finally:
                    _fail(groups, StoreUnavailable("the call was cancelled"))
        finally:
            runner = asyncio.current_task()
            assert runner is not None
            self._running.discard(runner)  # at once: whoever comes next must start another
            _fail(self._waiting, StoreUnavailable("the call was cancelled"))

    def _next(self) -> list[Group[Item, Result]]:
        """What waits, up to a full batch; shared evenly between the flights that are free."""
        most = math.ceil(len(self._waiting) / max(1, self._flights - self._flushing))
        groups = [self._waiting.popleft()]
        count = len(groups[0].items)
        while (
            len(groups) < most
            and self._waiting
            and count + len(self._waiting[0].items) <= self._max_batch
        ):
            groups.append(self._waiting.popleft())
            count += len(groups[-1].items)
        return groups

    async def _send(self, groups: Sequence[Group[Item, Result]]) -> None:
        try:
            results = await self._flush([item for group in groups for item in group.items])
        except Exception as error:
            if len(groups) > 1 and not isinstance(error, StoreUnavailable):
                middle = len(groups) // 2
                await self._send(groups[:middle])
                await self._send(groups[middle:])
            else:
                _fail(groups, error)
                if isinstance(error, StoreUnavailable):
                    self._give_up_waiting(error)
            return
        at = 0
        for group in groups:
            end = at + len(group.items)
            if not group.results.done():
                group.results.set_result(list(results[at:end]))
            at = end

    def _give_up_waiting(self, error: StoreUnavailable) -> None:
        _fail(self._waiting, error)
        self._room_items += sum(len(group.items) for group in self._waiting)
        self._room_bytes += sum(group.size for group in self._waiting)
        self._waiting.clear()


def _fail(groups: Iterable[Group[Item, Result]], error: Exception) -> None:
    for group in groups:
        if not group.results.done():
            group.results.set_exception(error)
