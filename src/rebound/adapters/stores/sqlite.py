"""The store in one SQLite file, shared by any number of processes of one host.

apsw brings a current SQLite: the one that Python links may have the WAL-reset bug, which corrupts
files that several processes write. One thread owns the connection; every call is one transaction
in it, durable when it returns (`synchronous=FULL`).
"""

from __future__ import annotations

import asyncio
import logging
import os
import queue
import threading
import time
from collections.abc import Callable, Collection, Sequence
from typing import Any, TypeVar

import apsw

from rebound.adapters.stores import sqlite_tasks as tasks
from rebound.adapters.stores.sqlite_claim import Claim, Request
from rebound.adapters.stores.sqlite_file import BUSY_TIMEOUT, StoreFile, explain
from rebound.adapters.stores.sqlite_lanes import first, least_waits, look, next_look
from rebound.domain.errors import StoreUnavailable, StoreUnusable
from rebound.domain.task import Task
from rebound.ports import Claimed, Filter, Found, Retention, Stored, Submission

LOG = logging.getLogger("rebound")
WATCH_INTERVAL = 0.02
"""Seconds between looks for what other processes committed."""

Result = TypeVar("Result")
Work = Callable[[apsw.Connection], Any]
Job = tuple[Work, "asyncio.Future[Any]", asyncio.AbstractEventLoop, float]
"""What to do, whom to tell, and when it was asked for."""


class SqliteStore:
    """`ports.Store` in the file `path`; `:memory:` lives as long as the store."""

    name = "sqlite"

    def __init__(
        self,
        path: str,
        *,
        retention: Retention = Retention(),  # noqa: B008
        clock: Callable[[], float] = time.time,
    ) -> None:
        """`clock` is the store's time in seconds since the epoch; tests own it."""
        self._path = path
        self._clock = clock
        self._retention = tasks.Keeper(retention)
        self._jobs: queue.SimpleQueue[Job | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._closed = False
        self._wakes: list[Callable[[], None]] = []

    # -- life --------------------------------------------------------------------------------

    async def open(self) -> Sequence[str]:
        self._closed = False
        try:
            await self._run(_look_over, write=False)
        except StoreUnavailable as error:
            await self.aclose()
            raise StoreUnusable(str(error)) from error
        return ()

    async def aclose(self) -> None:
        self._closed = True
        if self._thread is not None:
            thread, self._thread = self._thread, None
            self._jobs.put(None)
            while thread.is_alive():
                await asyncio.sleep(0.001)

    async def ping(self) -> None:
        await self._run(lambda db: db.execute("SELECT 1 FROM tasks LIMIT 1").fetchone())

    async def time(self) -> float:
        return self._clock()

    # -- the hot path ------------------------------------------------------------------------

    async def add(self, submissions: Sequence[Submission], /) -> Sequence[Stored]:
        def work(db: apsw.Connection) -> list[Stored]:
            now = self._clock()
            return [Stored(tasks.add(db, s, now), now) for s in submissions]

        added = await self._run(work)
        self._wake()
        return added

    async def claim(
        self,
        limit: int,
        /,
        *,
        free: int,
        slots: int,
        kinds: Collection[str],
        lease: float,
        lane_limit: int,
        random: float,
    ) -> Claimed:
        token = os.urandom(9).hex()

        def idle(db: apsw.Connection) -> tuple[float | None, int | None, bool]:
            overdue = self._retention.overdue(db, self._clock())
            return next_look(db, kinds, 0.0), least_waits(db, kinds), overdue

        def work(db: apsw.Connection) -> Claimed:
            now = self._clock()
            self._retention.trim(db, now, 100)
            claim = Claim(
                db, Request(limit, free, slots, kinds, lease, lane_limit, random, now, token)
            )
            claim.run()
            claimed, buried = tasks.readable(db, claim.rows, token, now)
            next_due = now if claim.more else next_look(db, kinds, now)
            waits = least_waits(db, kinds) is not None
            return Claimed(claimed, now, next_due, claim.blocked or waits, buried)

        earliest, waits, overdue = await self._run(idle, write=False)
        now = self._clock()
        nothing_due = earliest is None or earliest > now
        if nothing_due and not overdue and (waits is None or waits > free):
            return Claimed((), now, earliest, waits is not None)
        return await self._run(work)

    async def settle(self, settled: Sequence[Task], /) -> Sequence[str]:
        def work(db: apsw.Connection) -> list[str]:
            now = self._clock()
            queues: set[str] = set()
            lost = [t.id for t in settled if not tasks.settle(db, t, now, queues)]
            for name in queues:
                look(db, name, now, floor=True, keep=True)
            self._retention.trim(db, now, 2 * len(settled))
            return lost

        lost = await self._run(work)
        self._wake()
        return lost

    async def extend(self, leased: Sequence[Task], /, *, lease: float) -> Sequence[str]:
        def work(db: apsw.Connection) -> list[str]:
            until = self._clock() + lease
            return [t.id for t in leased if not tasks.extend(db, t, until)]

        return await self._run(work)

    async def hold(self, queue: str, /, *, seconds: float | None) -> None:
        def work(db: apsw.Connection) -> None:
            now = self._clock()
            until = None if seconds is None else now + seconds
            _lane(db, queue, "held_until", until)
            look(db, queue, now)

        await self._run(work)
        self._wake()

    async def limit(self, queue: str, /, *, in_flight: int | None) -> None:
        def work(db: apsw.Connection) -> None:
            _lane(db, queue, "in_flight", in_flight)
            db.execute("UPDATE lanes SET is_full = 0, waits = NULL WHERE queue = ?", (queue,))
            look(db, queue, self._clock())

        await self._run(work)
        self._wake()

    async def watch(self, kinds: Collection[str], wake: Callable[[], None], /) -> None:
        self._wakes.append(wake)
        seen: int | None = None
        try:
            while True:
                try:
                    version = await self._run(_data_version, write=False)
                except StoreUnavailable:
                    version = None
                if version != seen:
                    seen = version
                    wake()
                await asyncio.sleep(WATCH_INTERVAL)
        finally:
            self._wakes.remove(wake)

    # -- for people --------------------------------------------------------------------------

    async def get(self, id_: str, /) -> Task | None:
        return await self._run(lambda db: tasks.get(db, id_), write=False)

    async def find(self, wanted: Filter, /, *, limit: int, cursor: str | None = None) -> Found:
        before = tasks.cursor_position(cursor)
        return await self._run(lambda db: tasks.find(db, wanted, limit, before), write=False)

    async def swap(self, before: Task, after: Task | None, /) -> bool:
        def work(db: apsw.Connection) -> bool:
            now = self._clock()
            queues: set[str] = set()
            swapped = tasks.swap(db, before, after, now, queues)
            for name in queues:
                look(db, name, now, floor=True, keep=True)
            return swapped

        swapped = await self._run(work)
        self._wake()
        return swapped

    # -- the thread --------------------------------------------------------------------------

    def _wake(self) -> None:
        for wake in self._wakes:
            wake()

    async def _run(
        self, work: Callable[[apsw.Connection], Result], *, write: bool = True
    ) -> Result:
        """Run `work` in the store's thread, in a transaction of its own."""
        if self._closed:
            raise StoreUnavailable("the store is closed")
        if self._thread is None:
            self._thread = threading.Thread(target=self._work, name="rebound-sqlite", daemon=True)
            self._thread.start()
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Result] = loop.create_future()
        job = _transaction(work) if write else work
        self._jobs.put((job, future, loop, time.monotonic()))
        try:
            return await future
        except apsw.Error as error:
            raise StoreUnavailable(explain(self._path, error)) from error

    def _work(self) -> None:
        file = StoreFile(self._path)
        while (job := self._jobs.get()) is not None:
            work, future, loop, since = job
            try:
                db = file.connection()
                left = BUSY_TIMEOUT - (time.monotonic() - since)
                db.set_busy_timeout(max(1, int(left * 1000)))
                result, error = work(db), None
            except BaseException as raised:
                result, error = None, raised
            try:
                loop.call_soon_threadsafe(_deliver, future, result, error)
            except RuntimeError:
                LOG.warning("the event loop ended before the store answered")
        file.close()


def _deliver(future: asyncio.Future[Any], result: Any, error: BaseException | None) -> None:
    if future.done():
        return
    if error is None:
        future.set_result(result)
    else:
        future.set_exception(error)


def _transaction(work: Callable[[apsw.Connection], Result]) -> Callable[[apsw.Connection], Result]:
    def run(db: apsw.Connection) -> Result:
        db.execute("BEGIN IMMEDIATE")
        try:
            result = work(db)
            db.execute("COMMIT")
        except BaseException:
            if db.in_transaction:
                db.execute("ROLLBACK")
            raise
        return result

    return run


def _lane(db: apsw.Connection, queue: str, column: str, value: float | None) -> None:
    kind = queue.partition("|")[0]
    db.execute(
        f"""INSERT INTO lanes (queue, kind, {column}) VALUES (?1, ?2, ?3)
        ON CONFLICT (queue) DO UPDATE SET {column} = ?3""",
        (queue, kind, value),
    )


def _look_over(db: apsw.Connection) -> None:
    """Read the ends of each table: much of what can be wrong with a file shows at the start."""
    for order in ("ASC", "DESC"):
        for table, key in (("tasks", "seq"), ("lanes", "queue")):
            db.execute(f"SELECT * FROM {table} ORDER BY {key} {order} LIMIT 1").fetchall()


def _data_version(db: apsw.Connection) -> int:
    return int(first(db.execute("PRAGMA data_version"))[0])
