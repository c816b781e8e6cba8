"""A fair claim over the lanes that are due, in SQLite; `lua/claim.lua` does the same in Redis.

Everything runs inside the caller's transaction.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator
from typing import NamedTuple

import apsw

from rebound.adapters.stores.sqlite_lanes import Row, first, joined, look, losses
from rebound.domain.fairness import most, needed
from rebound.domain.task import MAX_LOST

MAX_BODIES = 8 * 1024 * 1024
"""Bytes of bodies that one claim hands out, but at least one task."""
MIN_VISITS, MAX_VISITS = 32, 256
"""Lanes that one claim visits: as many as it wants tasks, within these bounds."""

GOLDEN = 0.6180339887498949
"""Spreads the one random number of a claim over the tasks that it pushes back."""

_COLUMNS = "seq, id, body, progress, created_at, leased_at, lost, queue"
_OPEN = """SELECT queue, look FROM served WHERE look <= :now
    UNION SELECT queue, look FROM served WHERE waits <= :free"""
_URGENT = "SELECT queue FROM served WHERE look_priority <= :now ORDER BY look_priority"
_DUE = f"""SELECT {_COLUMNS} FROM tasks WHERE queue = ? AND state = 'scheduled' AND priority = ?
    AND due_at <= ? ORDER BY due_at LIMIT ?"""
_EXPIRED = f"""SELECT {_COLUMNS} FROM tasks WHERE queue = ? AND state = 'delivering'
    AND expires_at <= ? ORDER BY expires_at LIMIT ?"""


class Request(NamedTuple):
    """The arguments of `Store.claim`, the time, and the token for what is claimed."""

    limit: int
    free: int
    slots: int
    kinds: Collection[str]
    lease: float
    lane_limit: int
    random: float
    now: float
    token: str


class Claim:
    """One claim: visits due lanes in turn and leases a share of each."""

    def __init__(self, db: apsw.Connection, request: Request) -> None:
        self.rows: list[Row] = []
        """Of the leased tasks: `_COLUMNS`, `lost` with the lease just lost."""
        self.blocked = False
        self.more = False
        self._db = db
        self._request = request
        self._left = request.limit
        self._free = request.free
        self._bytes = 0
        self._pushed = 0
        self._taken: dict[str, int] = {}
        self._in_flight: dict[str, int] = {}

    def run(self) -> None:
        """Fill `rows`, `blocked` and `more` (another claim is worth while at once)."""
        request = self._request
        due, urgent = self._count(), self._urgent()
        if not due:
            return
        others = due > len(urgent)
        budget = math.floor(0.75 * request.limit + request.random) if others else request.limit
        budget = min(budget, request.limit)
        if urgent:
            share = max(1, math.ceil(budget / len(urgent)))
            for queue in urgent[:MAX_VISITS]:
                budget -= self._visit(queue, min(share, budget), priority=budget, only=True)
        share = max(1, math.ceil(request.limit / due))
        visited = 0
        for queue in self._lanes():
            if self._left <= 0 or self._full_bodies:
                self.more = True
                break
            visited += 1
            allowed = share - self._taken.get(queue, 0)
            budget -= self._visit(queue, allowed, priority=budget, only=False)
        self.blocked = self.blocked or self.more
        self.more = visited < due or (self.more and bool(self.rows))

    @property
    def _full_bodies(self) -> bool:
        return self._bytes >= MAX_BODIES

    def _count(self) -> int:
        """How many lanes a claim may look at: due ones, and those that wait for fewer slots."""
        (row,) = self._query(f"SELECT count(*) FROM ({_OPEN})")
        return int(row[0])

    def _lanes(self) -> list[str]:
        """Those lanes, the longest waiting first."""
        visits = min(max(self._request.limit, MIN_VISITS), MAX_VISITS)
        return [row[0] for row in self._query(f"{_OPEN} ORDER BY look LIMIT {visits}")]

    def _urgent(self) -> list[str]:
        """Lanes with due priority tasks."""
        return [row[0] for row in self._query(_URGENT)]

    def _query(self, sql: str) -> list[Row]:
        request = self._request
        kinds = {f"kind{n}": kind for n, kind in enumerate(request.kinds)}
        served = f"SELECT * FROM lanes WHERE kind IN ({','.join(f':{name}' for name in kinds)})"
        values = {**kinds, "now": request.now, "free": request.free}
        return self._db.execute(f"WITH served AS ({served}) {sql}", values).fetchall()

    def _visit(self, queue: str, allowed: int, *, priority: int, only: bool) -> int:
        """Lease up to `allowed` tasks of a lane; return how many priority ones those were."""
        request = self._request
        sql = "SELECT held_until, in_flight FROM lanes WHERE queue = ?"
        held, own_limit = first(self._db.execute(sql, (queue,)))
        if held is not None and held > request.now:
            look(self._db, queue, request.now)
            return 0
        in_flight = self._in_flight.get(queue)
        if in_flight is None:
            sql = """SELECT count(*) FROM tasks WHERE queue = ? AND state = 'delivering'
                AND expires_at > ?"""
            in_flight = int(first(self._db.execute(sql, (queue, request.now)))[0])
        limit = request.lane_limit if own_limit is None else own_limit
        room = min(self._left, limit - in_flight, self._threshold(in_flight))
        want = max(0, min(allowed, room))
        taken, urgent = 0, 0
        for row, is_priority in self._candidates(queue, want, priority, only):
            taken += self._lease(row)
            urgent += is_priority
            if self._full_bodies:
                break
        self._left -= taken
        self._free -= taken
        self._in_flight[queue] = in_flight + taken
        self._taken[queue] = self._taken.get(queue, 0) + taken
        is_full = in_flight + taken >= limit
        waits = None
        if not self._threshold(in_flight + taken):
            waits = needed(in_flight + taken, request.slots)
        self._db.execute(
            "UPDATE lanes SET is_full = ?, waits = ?, held_until = NULL WHERE queue = ?",
            (is_full, waits, queue),
        )
        at = look(self._db, queue, request.now, floor=True)
        self.blocked = self.blocked or is_full or waits is not None
        self.more = self.more or (at is not None and at <= request.now and not only)
        return urgent

    def _threshold(self, in_flight: int) -> int:
        """Slots that a lane may still get before it holds its share of them."""
        return max(0, min(self._free, most(self._free, in_flight, self._request.slots) - in_flight))

    def _candidates(
        self, queue: str, want: int, priority: int, only: bool
    ) -> Iterator[tuple[Row, bool]]:
        """Rows to lease: expired leases first, then priority tasks, then the others."""
        now = self._request.now
        if not only and want > 0:
            for row in self._db.execute(_EXPIRED, (queue, now, want)).fetchall():
                if not self._pushed_back(row):
                    want -= 1
                    yield row, False
        urgent: list[Row] = []
        if want > 0:
            urgent = self._db.execute(_DUE, (queue, 1, now, want)).fetchall()
            for row in urgent[: max(0, priority)]:
                want -= 1
                yield row, True
        if not only and want > 0 and len(urgent) <= max(0, priority):
            for row in self._db.execute(_DUE, (queue, 0, now, want)).fetchall():
                yield row, False

    def _pushed_back(self, row: Row) -> bool:
        """Part a task that lost several leases from its neighbours, for 2^lost seconds."""
        seq, leased_at, lost = row[0], row[5], losses(row[6])
        count = len(lost) + 1
        if count == 1 or count >= MAX_LOST:
            return False
        chance = (self._request.random + self._pushed * GOLDEN) % 1
        self._pushed += 1
        due = self._request.now + 2**count * (0.5 + chance)
        self._db.execute(
            """UPDATE tasks SET state = 'scheduled', due_at = ?, lost = ?, token = NULL,
                leased_at = NULL, expires_at = NULL WHERE seq = ?""",
            (due, joined(lost, leased_at), seq),
        )
        return True

    def _lease(self, row: Row) -> int:
        request = self._request
        seq, id_, body, progress, created_at, leased_at, lost, queue = row
        size = len(body or b"") + len(progress or b"")
        if self.rows and self._bytes + size > MAX_BODIES:
            self._bytes = MAX_BODIES
            return 0
        self._bytes += size
        if leased_at is not None:
            lost = joined(losses(lost), leased_at)
        self._db.execute(
            """UPDATE tasks SET state = 'delivering', token = ?, leased_at = ?, expires_at = ?,
                lost = ? WHERE seq = ?""",
            (request.token, request.now, request.now + request.lease, lost, seq),
        )
        self.rows.append((seq, id_, body, progress, created_at, request.now, lost, queue))
        return 1
