"""How tasks stand in Redis: the record of one task, and the arguments that write it."""

from __future__ import annotations

import base64
import binascii
import logging
import re
import struct
import time
from collections import defaultdict
from collections.abc import Sequence
from itertools import count
from typing import Any, Final, NamedTuple

import msgspec
from msgspec.structs import replace

from rebound.adapters.stores import records
from rebound.domain.attempt import DeadLetter, DeadReason, Lease, Leg, State
from rebound.domain.errors import ValidationError
from rebound.domain.task import Task
from rebound.ports import Retention, Submission

LOG = logging.getLogger("rebound")
WARN_EVERY: Final = 60.0
"""Seconds between two warnings of the same kind."""
LARGE: Final = 4096
"""Bytes of a body above which a task is a hash from the beginning, to be copied less."""
_HEADER: Final = struct.Struct(">QQ?16sq")
"""Creation, when it was first due, priority, digest, nonce; see `lua/record.lua`."""
_BEGINNING: Final = struct.Struct(">?16sq")
"""The same without the times, which the store writes."""
_LATEST: Final = 2**53
"""Microseconds since the epoch that a score holds exactly: the year 2255."""
_CURSOR = re.compile(rb"(\d{1,16}) ([!-~]{1,255})")


def micros(seconds: float) -> int:
    """Seconds as the scripts count time."""
    return round(seconds * 1e6)


def seconds(micros: bytes | float) -> float:
    """What a script says of a time, in seconds."""
    return float(micros) / 1e6


class Row(NamedTuple):
    """What t:<id> says of the task, a string's header and body as `g` and `b`.

    Times are in microseconds since the epoch.
    """

    g: bytes | None
    """Header: creation, when it was first due, priority, digest and nonce; see `record.lua`."""
    b: bytes | None = None
    """The caller's fields; None: a stub."""
    s: bytes | None = None
    """What became of it; None: not settled yet."""
    k: bytes | None = None
    """Token of the lease, `<random>.<when it began>`; empty where that was lost."""
    k0: bytes | None = None
    """Token of the last settled lease: while it is `k`, the task is not leased."""
    l: bytes | None = None  # noqa: E741
    """When leases began that were lost since the last settle, by comma; and behind a space when
    the task is due for that, in place of what `s` or `g` say."""
    f: bytes | None = None
    """Of a stub, when it ended."""


def restore(id_: str, row: Row, queue: str | None = None) -> Task:
    """The task, leased from `queue` where it has a token. Raises records.Unreadable."""
    g, body, progress, token, settled_token, losses, _ = row
    lease, leased_at = None, None
    lost: tuple[float, ...] = ()
    try:
        created_at, due = times(g)
        if progress:
            due = None
        if losses:
            starts, _, again = losses.partition(b" ")
            lost = tuple(map(seconds, starts.split(b",")))
            due = seconds(again) if again else due
        if token and token != settled_token:
            lease, leased_at = (token.decode(), queue or ""), seconds(token.rpartition(b".")[2])
    except ValueError as error:
        raise records.Unreadable(f"task {id_} cannot be read: {error}") from error
    task = records.restore(
        id_, body or b"", progress, created_at=created_at, due_at=due, lease=lease, lost=lost,
        leased_at=leased_at,
    )  # fmt: skip
    if lease is not None and queue is None:
        return replace(task, lease=Lease(lease[0], task.queue))
    return task


def shown(id_: str, row: Row) -> Task:
    """The task as people see it: a stub where only that is left, `dead` where it is unreadable."""
    if row.b is None and row.f is not None:
        created_at = times(row.g)[0]
        return records.stub(id_, created_at=created_at, finished_at=seconds(row.f))
    try:
        task = restore(id_, row)
        if task.dead_reason != DeadReason.UNREADABLE:
            return task
    except records.Unreadable:
        pass
    try:
        created_at = times(row.g)[0]
    except ValueError:
        created_at = 0.0
    try:
        ended = float(msgspec.json.decode(row.s or b"{}").get("finished_at", created_at))
    except (msgspec.MsgspecError, AttributeError, TypeError, ValueError):
        ended = created_at
    return records.unreadable(id_, row.b or b"", created_at=created_at, now=ended)


def times(g: bytes | None) -> tuple[float, float | None]:
    """When it was created, and first due, in seconds; of an older stub only the former.

    Raises ValueError.
    """
    if g is not None and len(g) == _HEADER.size:
        created, due, *_ = _HEADER.unpack(g)
        if max(created, due) > _LATEST:
            raise ValueError("its creation is not known")
        return created / 1e6, due / 1e6
    parts = (g or b"").split()  # text, as it was written before there were headers
    if len(parts) not in (3, 5):
        raise ValueError("its creation is not known")
    return seconds(parts[0]), seconds(parts[4]) if len(parts) == 5 else None


def numbered() -> defaultdict[str, int]:
    """Numbers from 1 for the queues of one call, so that each name travels once."""
    return defaultdict(count(1).__next__)


def added(submissions: Sequence[Submission]) -> list[Any]:
    """What `add.lua` takes behind the shift."""
    queues = numbered()
    scheduled, main = State.SCHEDULED, Leg.MAIN  # in Python 3.11 a look-up takes 0.13 µs
    hashes: list[Any] = []
    tasks: list[Any] = []
    for place, (task, delay, body, digest, nonce, queue) in enumerate(submissions, 1):
        number = queues[queue] if task.state == scheduled else 0
        is_fresh = number and task.leg == main
        # Who repeats a call is who made it: a hash that differs from process to process will do.
        text = _BEGINNING.pack(task.is_priority, digest, hash(nonce))
        if is_fresh and len(body) <= LARGE:
            text += body
        else:
            hashes += place, body, b"" if is_fresh else records.progress(task)
        tasks += task.id, round(delay * 1e6), -number if task.is_priority else number, text
    return [len(queues), *queues, len(hashes) // 3, *hashes, *tasks]


def settled(tasks: Sequence[Task]) -> list[Any]:
    """What `settle.lua` takes behind the retention."""
    queues = numbered()
    values: list[Any] = []
    for task in tasks:
        assert task.lease is not None
        number = 0
        if task.state == State.SCHEDULED:
            number = -queues[task.queue] if task.is_priority else queues[task.queue]
        values += (
            task.id,
            task.lease.token,
            queues[task.lease.queue],
            number,
            state_of(task),
            moment_of(task),
            records.progress(task),
        )
    return [len(queues), *queues, *values]


def state_of(task: Task) -> str:
    """The state's name in the scripts."""
    if task.dead_reason == DeadReason.UNREADABLE:
        return "unreadable"
    if task.state == State.DEAD and task.dead_letter == DeadLetter.DELIVERED:
        return "delivered"
    return str(task.state)


def moment_of(task: Task) -> int:
    """When it is due or ended, in microseconds."""
    at = task.due_at if task.state == State.SCHEDULED else task.finished_at
    return micros(at or task.updated_at or 0.0)


def cursor(score: bytes, id_: bytes) -> str:
    """Where a page ended, opaque and fit for a URL."""
    return base64.urlsafe_b64encode(score + b" " + id_).decode().rstrip("=")


def position(cursor: str | None) -> tuple[bytes, bytes]:
    """Score and id of a cursor. Raises ValidationError."""
    if cursor is None:
        return b"+inf", b""
    try:
        raw = base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True)
        found = _CURSOR.fullmatch(raw)
    except (binascii.Error, ValueError):
        found = None
    if found is None:
        raise ValidationError("cursor: is none that a page returned", field="cursor")
    return found[1], found[2]


def claimed(found: Sequence[Any], token: bytes, now: bytes) -> tuple[list[Task], list[Task]]:
    """The claimed tasks, and those that cannot be decoded as they are to be settled, with why."""
    tasks: list[Task] = []
    unreadable: list[Task] = []
    for id_, queue, g, b, s, losses in found:
        name, row = id_.decode(), Row(g, b, s, token, None, losses)
        try:
            tasks.append(restore(name, row, queue.decode()))
        except records.Unreadable:
            at = seconds(now)
            lease = Lease(token.decode(), queue.decode())
            dead = records.unreadable(name, b"", created_at=at, now=at)
            unreadable.append(replace(dead, lease=lease))
    return tasks, unreadable


def same(one: Task, other: Task) -> bool:
    """True where nothing became of a task between two readings."""
    return (one.created_at, one.lost, records.progress(one)) == (
        other.created_at,
        other.lost,
        records.progress(other),
    )


class Keep:
    """Retention as the scripts take it, and the warning where a maximum cuts its time short."""

    def __init__(self, retention: Retention) -> None:
        self._retention = retention
        self._warned_at = -WARN_EVERY
        times = (retention.succeeded, retention.dedup, retention.dead)
        self.arguments = (
            *map(micros, times),
            retention.max_succeeded,
            retention.max_stubs,
        )

    def warn(self, cuts: Sequence[bytes]) -> None:
        """`cuts`: how old the newest is that a maximum cut off, of succeeded tasks and of stubs."""
        if not any(cuts) or time.monotonic() - self._warned_at < WARN_EVERY:
            return
        self._warned_at = time.monotonic()
        keep = self._retention
        for cut, most, what in zip(
            cuts, (keep.max_succeeded, keep.max_stubs), ("readable", "known by id"), strict=True
        ):
            if cut:
                LOG.warning(
                    "more than %d succeeded tasks: %s only for %.0f s",
                    most, what, seconds(cut),
                )  # fmt: skip
