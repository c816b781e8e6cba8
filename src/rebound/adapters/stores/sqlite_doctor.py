"""Holds what stands in the SQLite file against itself, page by page, while workers go on.

A row's `body` and `progress` say what its other columns should be. Each page is read in one
statement; each mend is a transaction that judges the row anew.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any, Final, TypeVar

import apsw

from rebound.adapters.stores.sqlite_file import connect, explain
from rebound.adapters.stores.sqlite_health import file_findings
from rebound.adapters.stores.sqlite_lanes import Row, first, look
from rebound.adapters.stores.sqlite_verdict import Verdict, verdict
from rebound.domain import finding
from rebound.domain.errors import StoreUnavailable
from rebound.domain.finding import Damage, Finding, LaneSeen, Report, Severity
from rebound.ports import Examined

PAGE: Final = 200
COLUMNS: Final = (
    "seq", "id", "body", "progress", "state", "queue", "created_at", "updated_at", "due_at",
    "kept_from", "token", "leased_at", "expires_at", "lost",
)  # fmt: skip
_INDEXED: Final = {
    "tasks_due": "state = 'scheduled'",
    "tasks_leased": "state = 'delivering'",
    "tasks_kept": "kept_from IS NOT NULL",
}
"""Index -> its rows."""
_ROWS: Final = f"SELECT {', '.join(COLUMNS)} FROM tasks"
_LANE: Final = """SELECT lanes.queue IS NOT NULL, look, look_priority, held_until, in_flight,
    is_full OR waits IS NOT NULL,
    (SELECT min(due_at) FROM tasks WHERE queue = q AND state = 'scheduled' AND priority = 0),
    (SELECT min(due_at) FROM tasks WHERE queue = q AND state = 'scheduled' AND priority = 1),
    (SELECT min(expires_at) FROM tasks WHERE queue = q AND state = 'delivering')
    FROM (SELECT ? AS q) LEFT JOIN lanes ON lanes.queue = q"""
_NEXT_LANE: Final = """SELECT min(queue) FROM (
    SELECT min(queue) AS queue FROM lanes WHERE queue > ?1
    UNION SELECT min(queue) FROM tasks INDEXED BY tasks_due
        WHERE state = 'scheduled' AND queue > ?1
    UNION SELECT min(queue) FROM tasks INDEXED BY tasks_leased
        WHERE state = 'delivering' AND queue > ?1)"""


Result = TypeVar("Result")


class SqliteDoctor:
    """`ports.Examiner` of the file at `path`."""

    def __init__(self, path: str, *, lease: float, clock: Callable[[], float] = time.time) -> None:
        """`lease`: what a lease without an end gets, in seconds."""
        self._path = path
        self._lease = lease
        self._clock = clock
        self._db: apsw.Connection | None = None

    async def surroundings(self) -> Sequence[Finding]:
        return await asyncio.to_thread(self._surroundings)

    async def examine(self, *, repair: bool) -> Examined:
        return await asyncio.to_thread(self._examine, repair)

    async def aclose(self) -> None:
        if self._db is not None:
            self._db.close()
            self._db = None

    def _surroundings(self) -> list[Finding]:
        found = file_findings(self._path)
        with suppress(StoreUnavailable):  # `examine` will say so
            found += self._opened(_integrity)
        return found

    def _examine(self, repair: bool) -> Examined:
        return self._opened(lambda db: _Examination(db, self._clock, self._lease, repair).run())

    def _opened(self, work: Callable[[apsw.Connection], Result]) -> Result:
        try:
            if self._db is None:
                self._db = connect(self._path)
            return work(self._db)
        except apsw.Error as error:
            raise StoreUnavailable(explain(self._path, error)) from error


def _integrity(db: apsw.Connection) -> list[Finding]:
    try:
        said = [str(row[0]) for row in db.execute("PRAGMA quick_check(10)")]
    except apsw.CorruptError as error:
        said = [str(error)]
    if said == ["ok"]:
        return []
    return [
        Finding(
            severity=Severity.ERROR,
            title="the file is damaged",
            meaning=f"SQLite says: {'; '.join(said)[:500]}",
            remedy="Stop all processes, copy the file and its -wal, then restore a backup, or save"
            " what can be read: `sqlite3 FILE .recover | sqlite3 NEW`.",
        )
    ]


class _Examination:
    """One pass over the file."""

    def __init__(
        self, db: apsw.Connection, clock: Callable[[], float], lease: float, repair: bool
    ) -> None:
        self._db = db
        self._clock = clock
        self._lease = lease
        self._repair = repair
        self._report = Report()

    def run(self) -> Examined:
        """Indexes, then rows, then lanes."""
        indexes = [*self._indexes()]
        tasks = sum(map(self._page, self._pages()))
        lanes = 0
        queue = self._lane_after("")
        while queue is not None:
            lanes += 1
            self._lane(queue)
            queue = self._lane_after(queue)
        return Examined(tasks, lanes, [*indexes, *self._report.findings()])

    def _pages(self) -> Iterator[list[Row]]:
        after: Any = -(2**62)
        while page := self._db.execute(
            f"{_ROWS} WHERE seq > ? ORDER BY seq LIMIT {PAGE}", (after,)
        ).fetchall():
            after = page[-1][0]
            yield page

    def _page(self, page: Sequence[Row]) -> int:
        for row in page:
            damages, changes = self._verdict(row)
            mending = bool(changes) and self._repair
            for damage in self._mend(row[0]) if mending else damages:
                self._report.add(damage, row[1], mended=mending)
        return len(page)

    def _mend(self, seq: int) -> set[Damage]:
        """Judge a row anew and write what it should be; what was wrong with it."""
        with self._transaction():
            row = self._db.execute(f"{_ROWS} WHERE seq = ?", (seq,)).fetchone()
            if row is None:
                return set()
            damages, changes = self._verdict(row)
            if changes:
                columns = ", ".join(f"{name} = ?" for name in changes)
                sql = f"UPDATE tasks SET {columns} WHERE seq = ?"
                self._db.execute(sql, (*changes.values(), seq))
            queue = changes.get("queue", row[COLUMNS.index("queue")])
            if queue is not None:
                self._line_up(queue)
            return damages

    def _verdict(self, row: Row) -> Verdict:
        return verdict(dict(zip(COLUMNS, row, strict=True)), self._clock(), self._lease)

    # -- lanes -------------------------------------------------------------------------------

    def _lane(self, queue: str) -> None:
        damage = self._seen(queue).damage
        mending = self._repair and damage not in (None, finding.UNVISITED)
        if mending:
            with self._transaction():
                damage = self._seen(queue).damage
                self._line_up(queue)
        if damage is not None:
            self._report.add(damage, queue, mended=mending)

    def _lane_after(self, queue: str) -> str | None:
        found: str | None = first(self._db.execute(_NEXT_LANE, (queue,)))[0]
        return found

    def _seen(self, queue: str) -> LaneSeen:
        listed, at, at_urgent, held, limit, is_shut, due, urgent, ending = first(
            self._db.execute(_LANE, (queue,))
        )
        empty = due is urgent is ending is None
        return LaneSeen(
            self._clock(), 0.0 if listed and empty else at, at_urgent, held,
            ending if is_shut else None, held is not None or limit is not None, due, urgent, ending,
        )  # fmt: skip

    def _line_up(self, queue: str) -> None:
        """List the lane where it has tasks, and write when it is worth looking at."""
        self._db.execute(
            "INSERT INTO lanes (queue, kind) VALUES (?, ?) ON CONFLICT (queue) DO NOTHING",
            (queue, queue.partition("|")[0]),
        )
        look(self._db, queue, self._clock(), floor=True, keep=True)

    def _indexes(self) -> Iterator[Finding]:
        """Rows that an index lacks are never found by what goes by it."""
        names = [name for name, rows in _INDEXED.items() if self._disagrees(name, rows)]
        if names:
            if self._repair:
                with self._transaction():
                    self._db.execute("REINDEX tasks")
            yield Finding(
                severity=Severity.ERROR,
                title=f"an index and its table disagree ({', '.join(names)})",
                meaning="Tasks that the index lacks are not delivered, or not forgotten.",
                remedy=finding.REPAIR,
                mended=self._repair,
            )

    def _disagrees(self, index: str, rows: str) -> bool:
        sql = f"""SELECT (SELECT count(*) FROM tasks NOT INDEXED WHERE {rows})
            != (SELECT count(*) FROM tasks INDEXED BY {index} WHERE {rows})"""
        return bool(first(self._db.execute(sql))[0])

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        self._db.execute("BEGIN IMMEDIATE")
        try:
            yield
            self._db.execute("COMMIT")
        except BaseException:
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")
            raise
