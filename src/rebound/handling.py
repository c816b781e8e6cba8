"""Runs a handler on records: so many at once, those with the same key one after the other."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Sequence
from functools import partial

from rebound.domain.progress import Partition
from rebound.domain.record import Record


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
        self._ready: deque[tuple[Partition, Record]] = deque()
        self._running: dict[asyncio.Task[None], Partition] = {}

    def take(self, batch: Iterable[tuple[Partition, Record]]) -> None:
        """Handle these, each as soon as its key and a place are free."""
        for partition, record in batch:
            if partition.take(record):
                self._ready.append((partition, record))
        self._begin()

    async def drain(self, partitions: Sequence[Partition], grace: float) -> None:
        """Begin nothing more of these; after `grace` seconds cancel what still runs of them."""
        for partition in partitions:
            partition.dropped = True
        gone = set(partitions)
        running = [task for task, partition in self._running.items() if partition in gone]
        if not running:
            return
        _, late = await asyncio.wait(running, timeout=grace)
        for task in late:
            task.cancel()
        if late:  # a handler that does not let itself be cancelled is waited for no longer
            await asyncio.wait(late, timeout=1)

    def _begin(self) -> None:
        while self._ready and len(self._running) < self._concurrency:
            partition, record = self._ready.popleft()
            if not partition.dropped:
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
            self._ready.append((partition, following))
        self._begin()
