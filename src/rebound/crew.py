"""The workers of one process, one for each budget of slots; they start and stop as one."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping

from rebound.engine import Engine
from rebound.ports import Event
from rebound.worker import Limits, Worker


class Crew:
    """Several workers, so that what waits for one kind of system takes no slots from others."""

    def __init__(
        self,
        engine: Engine,
        budgets: Mapping[tuple[str, ...], Limits],
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """`budgets` says which kinds share which limits."""
        self._engine = engine
        self._kinds = [kind for kinds in budgets for kind in kinds]
        self._workers = [
            Worker(engine, kinds, limits, monotonic) for kinds, limits in budgets.items()
        ]

    def start(self) -> None:
        """Begin to work, in the running event loop."""
        self._engine.emit(Event("worker started", detail=", ".join(self._kinds)))
        for worker in self._workers:
            worker.start()

    async def drain(self) -> None:
        """Claim no more, wait for what runs, after the grace cut it short; return when settled."""
        await asyncio.gather(*(worker.drain() for worker in self._workers))
        self._engine.emit(Event("worker stopped"))
