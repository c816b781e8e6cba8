"""Lists of tasks, newest first, out of one part of a store or of several."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final, NamedTuple

from rebound.adapters.stores import redis_records as rows
from rebound.adapters.stores.redis_records import Row
from rebound.domain.attempt import State
from rebound.domain.task import Task
from rebound.ports import Filter, Found

READ_AT_ONCE: Final = 500
READ_AT_MOST: Final = 2000
"""Tasks that one `find` reads before it returns what it has, with a cursor."""
READ_BYTES: Final = 8 * 1024 * 1024
_WANTED: Final = {
    None: ("", "by:open", "by:succeeded", "by:dead", "by:cancelled"),
    State.SCHEDULED: ("by:delivering", "by:open"),
}


class Page(NamedTuple):
    """What `find.lua` answers."""

    more: int
    """1 if there may be more."""
    score: bytes
    """Score and id of the last one looked at."""
    last: bytes
    read: Sequence[Any]
    """For each its score, its id and the fields of `Row`."""


Read = Callable[..., Awaitable[Page]]
"""Takes what `find.lua` takes, from the score on."""


async def find(read: Read, wanted: Filter, limit: int, cursor: str | None) -> Found:
    """As `ports.Store.find` does. Raises ValidationError for a bad cursor."""
    score, last = rows.position(cursor)
    sets = _WANTED.get(wanted.state) or ("", f"by:{wanted.state}")
    narrow = wanted.leg or wanted.source or wanted.client_id
    found: list[Task] = []
    for _ in range(READ_AT_MOST // READ_AT_ONCE):
        count = READ_AT_ONCE if narrow else min(limit - len(found), READ_AT_ONCE)
        more, score, last, read_now = await read(score, last, count, READ_BYTES, *sets)
        for at, id_, *fields in read_now:
            task = rows.shown(id_.decode(), Row(*fields))
            if wanted.accepts(task):
                found.append(task)
            if len(found) >= limit:
                return Found(found, rows.cursor(at, id_))
        if not more:
            return Found(found, None)
    return Found(found, rows.cursor(score, last))


def merged(pages: Sequence[Page]) -> Page:
    """One page out of those of several parts: what is no older than where each has come to."""

    def place(score: bytes, id_: bytes) -> tuple[float, bytes]:
        return float(score), id_

    read = [row for page in pages for row in page.read]
    read.sort(key=lambda row: place(row[0], row[1]), reverse=True)
    open_ = [page for page in pages if page.more]
    if not open_:
        return Page(0, b"", b"", read)
    first = max(open_, key=lambda page: place(page.score, page.last))
    end = place(first.score, first.last)
    kept = [row for row in read if place(row[0], row[1]) >= end]
    return Page(1, first.score, first.last, kept)
