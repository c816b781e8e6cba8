"""The only loop: claim, deliver (bounded), settle in batches, extend leases, drain."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import time
from collections import deque
from collections.abc import Callable, Collection, Sequence
from random import random
from typing import NamedTuple

from rebound.domain.errors import Abandoned, StoreUnavailable
from rebound.domain.task import Task
from rebound.engine import Engine
from rebound.ports import Claimed, Event

LOG = logging.getLogger("rebound")
MAX_CLAIM = 200
"""Tasks of one claim: long enough to share the round trip, short enough not to hold up others."""
MAX_SETTLE = 200
STORE_PAUSE = 0.5
"""Seconds before a store that failed is asked again."""


class Limits(NamedTuple):
    """What bounds a worker; durations in seconds."""

    concurrency: int = 1024
    lane_concurrency: int = 100
    lease: float = 60.0
    poll_interval: float = 1.0
    grace: float = 25.0


class Worker:
    """Claims due tasks of `kinds`, lets the engine attempt them and settles what came of it."""

    def __init__(
        self,
        engine: Engine,
        kinds: Collection[str],
        limits: Limits = Limits(),  # noqa: B008
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """`monotonic` carries the store's clock on between two claims; tests own it."""
        self._engine = engine
        self._store = engine.store
        self._kinds = tuple(kinds)
        self._use = f"working on {', '.join(self._kinds)}"
        self._limits = limits
        self._monotonic = monotonic
        self._offset = math.inf
        self._wake = asyncio.Event()
        self._running: dict[str, tuple[Task, asyncio.Task[None]]] = {}
        self._outcomes: deque[tuple[Task, Task]] = deque()
        self._batch: Sequence[tuple[Task, Task]] = ()
        self._unsettled = 0
        self._settling: asyncio.Task[None] | None = None
        self._blocked = False
        self._draining = False
        self._stuck = False
        self._tasks: list[asyncio.Task[None]] = []

    def start(self) -> None:
        """Begin to work, in the running event loop."""
        for loop in (self._claiming(), self._extending(), self._watching()):
            self._tasks.append(asyncio.create_task(loop))

    async def drain(self) -> None:
        """Claim no more, wait for what runs, after the grace cut it short; return when settled."""
        if not self._tasks:
            return
        self._draining = True
        self.wake()
        deadline = time.monotonic() + self._limits.grace
        await asyncio.wait(self._tasks[:1], timeout=self._limits.grace)
        await self._idle(deadline)
        await asyncio.sleep(0)  # an attempt cancelled before its first step would never settle
        for _, attempt in list(self._running.values()):
            attempt.cancel()
        await self._idle(max(deadline, time.monotonic()) + 1.0)
        loops = [*self._tasks, *filter(None, [self._settling])]
        for loop in loops:
            loop.cancel()
        await asyncio.gather(*loops, return_exceptions=True)
        self._tasks.clear()

    async def work_off(self) -> float | None:
        """Without `start`: do all there is to do now, until nothing is due and all is settled.

        Answers when the next task or lease is due by the store's clock, or None where none waits.
        """
        while True:
            claimed = await self._claim()
            if self.busy or claimed is None:
                await self._idle(time.monotonic() + self._limits.poll_interval)
            elif claimed.next_due is None or claimed.next_due > claimed.now:
                return claimed.next_due

    def wake(self) -> None:
        """Look for due tasks now."""
        self._wake.set()

    @property
    def busy(self) -> int:
        """Tasks claimed and not yet settled."""
        return len(self._running) + self._unsettled

    def now(self) -> float:
        """The store's clock by the last claim, in seconds since the epoch."""
        return self._monotonic() + self._offset

    # -- claiming ----------------------------------------------------------------------------

    async def _claiming(self) -> None:
        while not self._draining:
            self._wake.clear()
            try:
                claimed = await self._claim()
                pause = self._limits.poll_interval
                if claimed is not None and claimed.next_due is not None:
                    pause = min(pause, claimed.next_due - claimed.now)
            except StoreUnavailable as error:
                self._engine.store_is(self._use, error)
                pause = STORE_PAUSE
            except Exception:
                LOG.exception("claiming failed; trying again")
                pause = STORE_PAUSE
            if pause > 0 and not self._draining:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(pause):
                        await self._wake.wait()

    async def _claim(self) -> Claimed | None:
        """Claim once, and begin with what was claimed; None where there was no room for any."""
        limits = self._limits
        free = limits.concurrency - self.busy
        if free <= 0 or self._stuck:
            self._blocked = True
            return None
        asked = self._monotonic()
        until = asked + limits.lease
        claimed = await self._store.claim(
            min(free, MAX_CLAIM),
            free=free,
            slots=limits.concurrency,
            kinds=self._kinds,
            lease=limits.lease,
            lane_limit=limits.lane_concurrency,
            random=random(),
        )
        if not self._stuck:
            self._engine.store_is(self._use, None)
        self._set_clock(claimed.now, asked)
        self._blocked = claimed.blocked
        for task in claimed.buried:
            self._engine.emit(Event("task dead", task))
        loop = asyncio.get_running_loop()
        for task in claimed.tasks:
            if task.lost:
                self._engine.emit(Event("lease lost", task))
            if task.id in self._running:  # its lease expired while it was attempted here
                self._lose(self._running[task.id][0])
            self._running[task.id] = (task, loop.create_task(self._attempt(task, until)))
        return claimed

    def _set_clock(self, now: float, asked: float) -> None:
        """Move the estimate only as far as a clock that read `now`, after `asked`, demands."""
        self._offset = max(now - self._monotonic(), min(self._offset, now - asked))

    async def _watching(self) -> None:
        while True:
            try:
                await self._store.watch(self._kinds, self.wake)
            except StoreUnavailable:
                pass  # whoever needs the store tells
            except Exception:
                LOG.exception("watching failed; polling goes on")
            await asyncio.sleep(STORE_PAUSE)

    # -- delivering --------------------------------------------------------------------------

    async def _attempt(self, task: Task, until: float) -> None:
        if self._monotonic() >= until:  # frozen since the claim: somebody else may have it by now
            self._lose(task)
            return
        try:
            after = await self._engine.attempt(task, self.now)
        except Exception as error:
            unforeseen = not isinstance(error, Abandoned)
            told = "the attempt broke" if unforeseen else error
            LOG.error("task %s: %s; its lease will expire", task.id, told, exc_info=unforeseen)
            self._over(task)
            return
        if not self._over(task):
            return
        self._outcomes.append((task, after))
        self._unsettled += 1
        if self._settling is None:
            self._settling = asyncio.create_task(self._settle())

    def _over(self, task: Task) -> asyncio.Task[None] | None:
        """Count its attempt as running no more; None where its lease was lost before."""
        found = self._running.get(task.id)
        if found is None or found[0] is not task:
            return None
        del self._running[task.id]
        return found[1]

    # -- settling ----------------------------------------------------------------------------

    async def _settle(self) -> None:
        """Settle what has an outcome, in batches; drop nothing while the store is away."""
        try:
            while self._outcomes:
                count = min(len(self._outcomes), MAX_SETTLE)
                self._batch = [self._outcomes.popleft() for _ in range(count)]
                try:
                    await self._settle_batch(self._batch)
                finally:
                    self._batch = ()
                    self._unsettled -= count
                if self._blocked or self._draining:
                    self.wake()
        finally:
            self._settling = None

    async def _settle_batch(self, batch: Sequence[tuple[Task, Task]]) -> None:
        try:
            lost = await self._persistently([after for _, after in batch])
        except Exception:
            if len(batch) == 1:
                LOG.exception("task %s cannot be settled; its lease will expire", batch[0][0].id)
                return
            middle = len(batch) // 2
            await self._settle_batch(batch[:middle])
            await self._settle_batch(batch[middle:])
            return
        for before, after in batch:
            if after.id in lost:
                self._engine.emit(Event("lease lost", before))
            else:
                self._engine.settled(before, after)

    async def _persistently(self, tasks: Sequence[Task]) -> Collection[str]:
        try:
            while True:
                try:
                    lost = await self._store.settle(tasks)
                except StoreUnavailable as error:
                    self._stuck = True  # what was done comes before what is new
                    self._engine.store_is(self._use, error)
                    await asyncio.sleep(STORE_PAUSE)
                else:
                    self._engine.store_is(self._use, None)
                    return set(lost)
        finally:
            self._stuck = False

    # -- leases ------------------------------------------------------------------------------

    async def _extending(self) -> None:
        while True:
            await asyncio.sleep(self._limits.lease / 3)
            held = [task for task, _ in self._running.values()]
            unsettled = (*self._batch, *self._outcomes)
            held += [task for task, _ in unsettled if task.id not in self._running]
            try:
                for at in range(0, len(held), 500):
                    part = held[at : at + 500]
                    lost = set(await self._store.extend(part, lease=self._limits.lease))
                    for task in part:
                        if task.id in lost:
                            self._lose(task)
            except StoreUnavailable as error:
                self._engine.store_is(self._use, error)
            except Exception:
                LOG.exception("extending leases failed; trying again")

    def _lose(self, task: Task) -> None:
        """Another worker has the task now: stop the attempt, it cannot be settled."""
        attempt = self._over(task)
        if attempt is not None:
            attempt.cancel()
            self._engine.emit(Event("lease lost", task))

    # -- the store, and the end --------------------------------------------------------------

    async def _idle(self, deadline: float) -> None:
        """Wait until nothing runs and everything is settled, or until `deadline`."""
        while self.busy and (left := deadline - time.monotonic()) > 0:
            waiting = [attempt for _, attempt in self._running.values()]
            if self._settling is not None:
                waiting.append(self._settling)
            if not waiting:
                return
            await asyncio.wait(waiting, timeout=left, return_when=asyncio.FIRST_COMPLETED)
