"""Rows of the table `tasks`: written, read and forgotten inside the caller's transaction."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from typing import Any

import apsw
from msgspec.structs import replace

from rebound.adapters.stores import records
from rebound.adapters.stores.sqlite_lanes import Row, first, look, losses, lower
from rebound.domain.attempt import DeadLetter, DeadReason, Leg, State
from rebound.domain.errors import ValidationError
from rebound.domain.task import Task
from rebound.ports import Added, Filter, Found, Retention, Submission

LOG = logging.getLogger("rebound")
SCAN, SCAN_BYTES = 5_000, 8 * 1024 * 1024
"""Rows and bytes that one `find` reads before it returns what it has, with a cursor."""
_STATES = tuple(State)
_COLUMNS = """id, body, progress, state, created_at, due_at, kept_from, token, leased_at, lost,
    queue, updated_at, seq"""


def add(db: apsw.Connection, submission: Submission, now: float) -> Added:
    """Insert a task, unless its id is known."""
    task, digest = submission.task, submission.digest
    ready = task.state == State.SCHEDULED
    due = now + submission.delay if ready else None
    fresh = ready and task.leg == Leg.MAIN
    if not fresh:
        ended = None if ready else now
        began = now if task.leg == Leg.DEAD else None
        task = replace(task, updated_at=now, due_at=due, finished_at=ended, dead_at=began)
    db.execute(
        """INSERT INTO tasks (id, body, progress, state, queue, priority, digest, nonce,
            created_at, updated_at, due_at, kept_from) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
        ON CONFLICT (id) DO NOTHING""",
        (
            task.id, submission.body, None if fresh else records.progress(task),
            str(task.state), submission.queue, task.is_priority, digest, submission.nonce,
            now, now, due, None,
        ),
    )  # fmt: skip
    if db.changes() == 0:
        known = first(db.execute("SELECT digest, nonce FROM tasks WHERE id = ?", (task.id,)))
        if known[0] != digest:
            return Added.DIFFERENT
        return Added.CREATED if known[1] == submission.nonce else Added.SAME
    if due is not None:
        lower(db, submission.queue, task.place.served_by, due, task.is_priority)
    return Added.CREATED


def readable(
    db: apsw.Connection, rows: Sequence[Row], token: str, now: float
) -> tuple[list[Task], list[Task]]:
    """The claimed rows as tasks, and those set aside as dead that cannot be; their bytes stay."""
    found, buried = [], []
    for seq, id_, body, progress, created_at, leased_at, lost, queue in rows:
        try:
            found.append(
                records.restore(
                    id_, body or b"", progress, created_at=created_at, lease=(token, queue),
                    lost=losses(lost), leased_at=leased_at,
                )
            )  # fmt: skip
        except records.Unreadable:
            buried.append(records.unreadable(id_, body or b"", created_at=created_at, now=now))
            db.execute(
                """UPDATE tasks SET state = 'dead', token = NULL, leased_at = NULL,
                    expires_at = NULL, due_at = NULL, updated_at = ? WHERE seq = ?""",
                (now, seq),
            )
            look(db, queue, now, floor=True)
    return found, buried


def settle(db: apsw.Connection, task: Task, now: float, queues: set[str]) -> bool:
    """Write the task as it now is, if its token still matches; add the touched `queues`."""
    assert task.lease is not None
    token = task.lease.token
    _write(db, task, token, "token = ?", (token,))
    if db.changes() == 0:
        sql = "SELECT 1 FROM tasks WHERE id = ? AND last_token = ?"
        return db.execute(sql, (task.id, token)).fetchone() is not None
    old = task.lease.queue
    db.execute("UPDATE lanes SET is_full = 0, waits = NULL WHERE queue = ?", (old,))
    queues.add(old)
    _line_up(db, task, queues)
    return True


def swap(
    db: apsw.Connection, before: Task, after: Task | None, now: float, queues: set[str]
) -> bool:
    """Write `after`, or forget the task, if it is as `before` and not leased."""
    seen = (str(before.state), before.updated_at)
    if before.dead_reason == DeadReason.UNREADABLE:
        # Its row may say otherwise while no worker has come by to set it aside.
        db.execute("DELETE FROM tasks WHERE id = ? AND token IS NULL", (before.id,))
        return db.changes() > 0
    if after is None:
        db.execute(
            """DELETE FROM tasks WHERE id = ? AND token IS NULL AND (
                state = ? AND updated_at = ? OR state = 'stub')""",
            (before.id, *seen),
        )
        return db.changes() > 0
    _write(db, after, None, "token IS NULL AND state = ? AND updated_at = ?", seen)
    if db.changes() == 0:
        return False
    queues.add(before.queue)
    _line_up(db, after, queues)
    return True


def _write(
    db: apsw.Connection, task: Task, token: str | None, condition: str, values: tuple[Any, ...]
) -> None:
    state = str(task.state)
    waits = task.state == State.SCHEDULED
    stays = task.state == State.DEAD and task.dead_letter != DeadLetter.DELIVERED
    db.execute(
        f"""UPDATE tasks SET progress = ?, state = ?, queue = ?, priority = ?, updated_at = ?,
            due_at = ?, kept_from = ?, token = NULL, last_token = coalesce(?, last_token),
            leased_at = NULL, expires_at = NULL, lost = NULL WHERE id = ? AND {condition}""",
        (
            records.progress(task), state, task.queue, task.is_priority, task.updated_at,
            task.due_at if waits else None,
            None if waits or stays else task.finished_at, token, task.id, *values,
        ),
    )  # fmt: skip


def _line_up(db: apsw.Connection, task: Task, queues: set[str]) -> None:
    """A scheduled task needs a row in `lanes`."""
    if task.state != State.SCHEDULED or task.due_at is None:
        return
    db.execute(
        "INSERT INTO lanes (queue, kind) VALUES (?, ?) ON CONFLICT (queue) DO NOTHING",
        (task.queue, task.place.served_by),
    )
    queues.add(task.queue)


def extend(db: apsw.Connection, task: Task, until: float) -> bool:
    """Move the lease's expiry, if its token still matches."""
    assert task.lease is not None
    db.execute(
        "UPDATE tasks SET expires_at = ? WHERE id = ? AND token = ?",
        (until, task.id, task.lease.token),
    )
    return db.changes() > 0


def get(db: apsw.Connection, id_: str) -> Task | None:
    """The task with this id, or None."""
    row = db.execute(f"SELECT {_COLUMNS} FROM tasks WHERE id = ?", (id_,)).fetchone()
    return None if row is None else _task(row)


def find(db: apsw.Connection, wanted: Filter, limit: int, before: int | None) -> Found:
    """One page of what is whole, newest first."""
    found: list[Task] = []
    size = 0
    for scanned, row in enumerate(_newest(db, wanted.state, before), 1):
        task = _task(row)
        size += len(row[1] or b"") + len(row[2] or b"")
        if wanted.accepts(task):
            found.append(task)
        if len(found) >= limit or scanned >= SCAN or size >= SCAN_BYTES:
            return Found(found, str(row[-1]))
    return Found(found, None)


def _newest(db: apsw.Connection, state: State | None, before: int | None) -> Iterator[Row]:
    states = _STATES if state is None else (state,)
    marks = ",".join("?" * len(states))
    sql = f"""SELECT {_COLUMNS} FROM tasks WHERE state IN ({marks}) AND seq < ?
        ORDER BY seq DESC"""
    yield from db.execute(sql, (*map(str, states), 2**62 if before is None else before))


def cursor_position(cursor: str | None) -> int | None:
    """Where a page ended. Raises ValidationError for what no page returned."""
    if cursor is None:
        return None
    if not (isinstance(cursor, str) and cursor.isascii() and cursor.isdigit() and len(cursor) < 19):
        raise ValidationError("cursor: is none that a page returned", field="cursor")
    return int(cursor)


def _task(row: Row) -> Task:
    (id_, body, progress, state, created_at, due_at, kept_from, token, leased_at, lost, queue,
     updated_at, _) = row  # fmt: skip
    if state == "stub":
        return records.stub(id_, created_at=created_at, finished_at=kept_from)
    lease = (token, queue) if token is not None else None
    try:
        task = records.restore(
            id_, body or b"", progress, created_at=created_at, due_at=due_at, lease=lease,
            lost=losses(lost), leased_at=leased_at,
        )  # fmt: skip
    except records.Unreadable:
        task = None
    if task is None or (state == "dead" and task.state != State.DEAD):
        return records.unreadable(id_, body or b"", created_at=created_at, now=updated_at)
    return task


class Keeper:
    """Forgets finished tasks by age and number; the only memory of how many were settled."""

    def __init__(self, retention: Retention) -> None:
        self._retention = retention
        self._seconds = {
            "succeeded": retention.succeeded,
            "stub": retention.dedup,
            "dead": retention.dead,
            "cancelled": retention.dead,
        }
        self._settled = 0
        self._warned_at: dict[str, float] = {}

    def overdue(self, db: apsw.Connection, now: float) -> bool:
        """True where a finished task is older than its retention."""
        sql = "SELECT min(kept_from) FROM tasks WHERE state = ? AND kept_from IS NOT NULL"
        ages = ((state, first(db.execute(sql, (state,)))[0]) for state in self._seconds)
        return any(at is not None and at < now - self._seconds[state] for state, at in ages)

    def trim(self, db: apsw.Connection, now: float, most: int) -> None:
        """Forget at most `most` tasks of each kind that are older than their retention."""
        keep = self._retention
        self._shrink(db, now - keep.succeeded, most)
        for state in ("stub", "dead", "cancelled"):
            self._forget(db, state, now - self._seconds[state], most)
        self._settled += most
        if self._settled >= max(2, keep.max_succeeded // 50):
            self._settled = 0
            self._cap(db, now)

    def _shrink(self, db: apsw.Connection, before: float, most: int) -> None:
        """Make stubs of succeeded tasks."""
        if self._retention.dedup <= self._retention.succeeded:
            self._forget(db, "succeeded", before, most)
            return
        db.execute(
            """UPDATE tasks SET state = 'stub', body = NULL, progress = NULL, queue = NULL
            WHERE seq IN (SELECT seq FROM tasks WHERE state = 'succeeded' AND kept_from < ?
                AND kept_from IS NOT NULL ORDER BY kept_from LIMIT ?)""",
            (before, most),
        )

    def _forget(self, db: apsw.Connection, state: str, before: float, most: int) -> None:
        db.execute(
            """DELETE FROM tasks WHERE seq IN (SELECT seq FROM tasks WHERE state = ?
                AND kept_from < ? AND kept_from IS NOT NULL ORDER BY kept_from LIMIT ?)""",
            (state, before, most),
        )

    def _cap(self, db: apsw.Connection, now: float) -> None:
        """Keep the newest only, where a maximum cuts the time short."""
        keep = self._retention
        for state, most, action in (
            ("succeeded", keep.max_succeeded, self._shrink),
            ("stub", keep.max_stubs, lambda d, b, m: self._forget(d, "stub", b, m)),
        ):
            horizon = db.execute(
                """SELECT kept_from FROM tasks WHERE state = ? AND kept_from IS NOT NULL
                ORDER BY kept_from DESC LIMIT 1 OFFSET ?""",
                (state, most),
            ).fetchone()
            if horizon is not None:
                action(db, horizon[0] + 1e-6, 10_000)
                self._warn(state, most, now - horizon[0], now)

    def _warn(self, state: str, most: int, horizon: float, now: float) -> None:
        if now - self._warned_at.get(state, -60.0) < 60:
            return
        self._warned_at[state] = now
        what = {"succeeded": "readable", "stub": "known by id"}[state]
        LOG.warning("more than %d succeeded tasks: %s only for %.0f s", most, what, horizon)
