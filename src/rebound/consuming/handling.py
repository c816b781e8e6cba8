"""Runs a handler on records: so many at once, those with the same key one after the other."""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import Awaitable, Callable, Iterable, Sequence
from functools import partial
from itertools import count
from typing import Final

from rebound.domain.progress import Partition, Turn
from rebound.domain.record import Record

CATCH_UP: Final = 5.0
"""Seconds at most in which a partition that is taken away closes its gaps."""


class Handling:
    """What of a consumer's records is under way. Lives in the event loop."""

    def __init__(
        self,
        process: Callable[[Record], Awaitable[None]],
        concurrency: int,
        crash: Callable[[BaseException], None],
    ) -> None:
        """`process` returns when the record is done with; what it raises goes to `crash`."""
        self._process = process
        self._concurrency = concurrency
        self._crash = crash
        self._ready: list[tuple[int, Record, Partition]] = []
        self._order = count()
        self._running: dict[asyncio.Task[None], Partition] = {}

    def take(self, batch: Iterable[tuple[Partition, Record]]) -> None:
        """Handle these, each as soon as its key and a place are free."""
        for partition, record in batch:
            turn = (next(self._order), record)
            if partition.take(turn):
                self._put(partition, turn)
        self._begin()

    async def drain(self, partitions: Sequence[Partition], grace: float, *, lost: bool) -> None:
        """Begin nothing more of these; after `grace` seconds cancel what still runs of them.

        What is done with behind a gap will be repeated by whoever gets the partition, so for a
        while the gaps are closed first, unless the partitions are `lost` already.
        """
        clock = asyncio.get_running_loop().time
        begun = clock()
        end = begun + (0.0 if lost else min(CATCH_UP, grace))
        for partition in partitions:
            partition.closing = True
        while self._running and any(p.has_gaps for p in partitions) and (left := end - clock()) > 0:
            await asyncio.wait(self._running, timeout=left, return_when=asyncio.FIRST_COMPLETED)
        for partition in partitions:
            partition.dropped = True
        gone = set(partitions)
        running = [task for task, partition in self._running.items() if partition in gone]
        if not running:
            return
        _, late = await asyncio.wait(running, timeout=max(0.0, begun + grace - clock()))
        for task in late:
            task.cancel()
        if late:  # a handler that does not let itself be cancelled is waited for no longer
            await asyncio.wait(late, timeout=1)

    def _put(self, partition: Partition, turn: Turn) -> None:
        """What came first goes first: what has waited for its key leaves no gap for long."""
        heapq.heappush(self._ready, (*turn, partition))

    def _begin(self) -> None:
        while self._ready and len(self._running) < self._concurrency:
            _, record, partition = heapq.heappop(self._ready)
            if partition.begin(record):
                task = asyncio.ensure_future(self._run(record))
                self._running[task] = partition
                task.add_done_callback(partial(self._ended, partition, record))

    async def _run(self, record: Record) -> None:
        await self._process(record)

    def _ended(self, partition: Partition, record: Record, task: asyncio.Task[None]) -> None:
        del self._running[task]
        error = asyncio.CancelledError() if task.cancelled() else task.exception()
        if error is not None:  # the record is not done with, so nothing after it is committed
            if not (partition.dropped and task.cancelled()):
                self._crash(error)
            partition.dropped = True
        elif (following := partition.finish(record)) is not None:
            self._put(partition, following)
        self._begin()
