"""When each lane is worth looking at, in SQLite; `lua/common.lua` does the same in Redis.

Everything runs inside the caller's transaction.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import apsw

Row = tuple[Any, ...]


def look(
    db: apsw.Connection, queue: str, now: float, *, floor: bool = False, keep: bool = False
) -> float | None:
    """Write when `queue` is worth looking at, and return it: the only writer of `look`.

    With `floor` never earlier than now, or a few lanes with old backlog would starve the others;
    with `keep` a lane that has been waiting for its turn and stays due keeps its place in the line.
    """
    sql = """SELECT look, held_until, in_flight, is_full OR waits IS NOT NULL,
        (SELECT min(due_at) FROM tasks WHERE queue = ?1 AND state = 'scheduled' AND priority = 0),
        (SELECT min(due_at) FROM tasks WHERE queue = ?1 AND state = 'scheduled' AND priority = 1),
        (SELECT min(expires_at) FROM tasks WHERE queue = ?1 AND state = 'delivering')
        FROM lanes WHERE queue = ?1"""
    row = db.execute(sql, (queue,)).fetchone()
    if row is None:
        return None
    before, held, own_limit, is_shut, due, urgent, expiry = row
    times = [t for t in (due, urgent, expiry) if t is not None]
    if held is not None and held <= now:
        held = None
    if not times and held is None and own_limit is None:
        db.execute("DELETE FROM lanes WHERE queue = ?", (queue,))
        return None
    at, at_priority = min(times, default=None), urgent
    if held is not None:
        at, at_priority = held, None if urgent is None else held
    elif is_shut and expiry is not None:
        at, at_priority = expiry, None if urgent is None else expiry
    if not times:
        at = None
    if floor:
        at = None if at is None else max(at, now)
        if keep and at is not None and before is not None and before <= at <= now:
            at = before
        at_priority = None if at_priority is None else max(at_priority, now)
    db.execute(
        "UPDATE lanes SET look = ?, look_priority = ?, held_until = ? WHERE queue = ?",
        (at, at_priority, held, queue),
    )
    return at


def lower(db: apsw.Connection, queue: str, kind: str, due_at: float, priority: int) -> None:
    """A task came into `queue`: look at it by `due_at`, unless it can hand out nothing now."""
    urgent = due_at if priority else None
    db.execute(
        """INSERT INTO lanes (queue, kind, look, look_priority) VALUES (?1, ?2, ?3, ?4)
        ON CONFLICT (queue) DO UPDATE SET (look, look_priority) = (
            SELECT
                iif(shut, coalesce(look, held_until), min(coalesce(look, ?3), ?3)),
                iif(?4 IS NULL, look_priority,
                    iif(shut, coalesce(look_priority, look, held_until),
                        min(coalesce(look_priority, ?4), ?4)))
            FROM (SELECT held_until IS NOT NULL OR is_full OR waits IS NOT NULL AS shut))""",
        (queue, kind, due_at, urgent),
    )


def next_look(db: apsw.Connection, kinds: Collection[str], after: float) -> float | None:
    """The earliest time later than `after` at which a lane of `kinds` is worth looking at."""
    marks = ",".join("?" * len(kinds))
    sql = f"SELECT min(look) FROM lanes WHERE kind IN ({marks}) AND look > ?"
    found = first(db.execute(sql, (*kinds, after)))[0]
    return None if found is None else float(found)


def least_waits(db: apsw.Connection, kinds: Collection[str]) -> int | None:
    """How many free slots the first of the lanes needs that wait for one."""
    marks = ",".join("?" * len(kinds))
    sql = f"SELECT min(waits) FROM lanes WHERE kind IN ({marks})"
    found = first(db.execute(sql, tuple(kinds)))[0]
    return None if found is None else int(found)


def losses(text: str | None) -> tuple[float, ...]:
    """Starts of lost leases, from their column."""
    return tuple(map(float, text.split(","))) if text else ()


def joined(lost: tuple[float, ...], latest: float) -> str:
    """The column for `lost` and one more."""
    return ",".join(map(repr, (*lost, latest)))


def first(cursor: apsw.Cursor) -> Row:
    """The first row, of a query that always has one."""
    row: Row | None = cursor.fetchone()
    assert row is not None
    return row
