"""What a task means: equal for two that say the same in other words (docs/adr/0010)."""

from __future__ import annotations

import hashlib

import msgspec
from msgspec import UNSET, Struct

from rebound.domain.destination import Base64
from rebound.domain.task import Task

_encode = msgspec.json.Encoder().encode


class Meaning(Struct, frozen=True):
    """What a task means after folding and defaults, as JSON around its message and its key."""

    start: bytes
    middle: bytes
    end: bytes

    def digest(self, message: bytes, key: str | Base64 | None) -> bytes:
        """Sixteen bytes; `message` as JSON, a string in one spelling, `key` the id by default."""
        is_text = b"true" if message[:1] == b'"' else b"false"
        parts = (self.start, is_text, message, self.middle, _encode(key), self.end)
        return hashlib.blake2b(b",".join(parts), digest_size=16).digest()


def of(task: Task) -> Meaning:
    """That of the task."""
    dead = task.dead_destination
    start = (
        task.source, task.destination.identity(), dead and dead.identity(), task.max_retries,
        float(task.base_delay), task.delay, _backoff_identity(task), task.ttl, task.failures,
        task.client_id, task.is_priority,
    )  # fmt: skip
    lane = task.lane or task.destination.place.lane
    return Meaning(
        _encode(start)[:-1], b'"%b"' % task.message_encoding.encode(),
        _encode(lane) + b"]",
    )  # fmt: skip


def digest(task: Task) -> bytes:
    """Sixteen bytes, equal for tasks that mean the same after folding and defaults."""
    key = task.id if task.message_key is UNSET else task.message_key
    return of(task).digest(_encode(task.message_data), key)


def _backoff_identity(task: Task) -> tuple[object, ...]:
    backoff = task.backoff
    if backoff is None:
        return ("exponential", 2.0, None, None, None)
    return (
        backoff.strategy or "exponential",
        2.0 if backoff.factor is None else backoff.factor,
        None if backoff.max_delay == 604_800 else backoff.max_delay,
        None if backoff.jitter in ("none", 0) else backoff.jitter,
        backoff.schedule,
    )
