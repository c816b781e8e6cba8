"""How far the records of one assigned partition are: their order, and what may be committed."""

from __future__ import annotations

from collections import deque
from typing import Final

from rebound.domain.record import Record

ROOM: Final = 1000
"""Records of one partition that may wait or be under way before it is paused."""
ROOM_BYTES: Final = 16 * 1024 * 1024
WINDOW: Final = 10_000
"""Records behind one that does not end: as many may be repeated after a crash."""

Turn = tuple[int, Record]
"""A record, and when it came: earlier ones begin first."""


class Partition:
    """One partition for as long as it is assigned.

    Two threads share it without a lock: the poller writes what is marked as its own, the loop
    everything else, and each field has one writer.
    """

    __slots__ = (
        "_ended", "_ended_bytes", "_finished", "_keys", "_open", "_passed", "_taken",
        "_taken_bytes", "begun", "closing", "committed", "dropped", "number", "paused",
        "position", "topic",
    )  # fmt: skip

    def __init__(self, topic: str, number: int) -> None:
        self.topic = topic
        self.number = number
        self.paused = False
        """The poller's."""
        self.committed: int | None = None
        """The poller's: the last position that it committed."""
        self.position: int | None = None
        """Every record before this offset is done with; None while none is."""
        self.begun = -1
        """The highest offset of what has begun."""
        self.closing = False
        """It is taken away: only what closes a gap still begins."""
        self.dropped = False
        """It was taken away: nothing begins any more."""
        self._taken = self._taken_bytes = 0  # the poller's
        self._ended = self._ended_bytes = self._passed = 0
        self._open: deque[int] = deque()
        self._finished: set[int] = set()
        self._keys: dict[bytes, deque[Turn] | None] = {}

    # -- the poller's ------------------------------------------------------------------------

    def count(self, record: Record) -> None:
        """The record is handed to the loop."""
        self._taken += 1
        self._taken_bytes += record.size

    def filled(self, share: float = 1.0) -> bool:
        """True where `share` of what may be under way is."""
        return (
            self._taken - self._ended >= ROOM * share
            or self._taken_bytes - self._ended_bytes >= ROOM_BYTES * share
            or self._taken - self._passed >= WINDOW * share
        )

    # -- the loop's --------------------------------------------------------------------------

    @property
    def has_gaps(self) -> bool:
        """True while something before the highest that has begun is not done with."""
        return self.begun >= (0 if self.position is None else self.position)

    def take(self, turn: Turn) -> bool:
        """Note the record; True where it may begin, False where one of its key comes first."""
        record = turn[1]
        self._open.append(record.offset)
        key = record.key
        if key is None:
            return True
        if key not in self._keys:
            self._keys[key] = None
            return True
        waiting = self._keys[key]
        if waiting is None:
            waiting = self._keys[key] = deque()
        waiting.append(turn)
        return False

    def begin(self, record: Record) -> bool:
        """True where the record may begin now, and False where it never will."""
        if self.dropped or (self.closing and record.offset > self.begun):
            return False
        self.begun = max(self.begun, record.offset)
        return True

    def finish(self, record: Record) -> Turn | None:
        """The record is done with; the next one of its key, which may begin now."""
        self._ended += 1
        self._ended_bytes += record.size
        self._pass(record.offset)
        key = record.key
        if key is None:
            return None
        waiting = self._keys[key]
        if waiting:
            return waiting.popleft()
        del self._keys[key]
        return None

    def _pass(self, offset: int) -> None:
        if offset != self._open[0]:
            self._finished.add(offset)
            return
        last = self._open.popleft()
        self._passed += 1
        while self._open and self._open[0] in self._finished:
            last = self._open.popleft()
            self._finished.discard(last)
            self._passed += 1
        self.position = last + 1
