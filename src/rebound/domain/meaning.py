"""What a task means: equal for two that say the same in other words (docs/adr/0010)."""

from __future__ import annotations

import hashlib

import msgspec
from msgspec import UNSET

from rebound.domain.destination import Base64
from rebound.domain.task import Task

_encode = msgspec.json.Encoder().encode


def digest(task: Task) -> bytes:
    """Sixteen bytes, equal for tasks that mean the same after folding and defaults."""
    key = task.id if task.message_key is UNSET else task.message_key
    return of_whole(of_terms(task), key, _encode(task.message_data))


def of_whole(terms: bytes, key: str | Base64 | None, message: bytes) -> bytes:
    """The digest by that of the terms; `message` as JSON, a string in one spelling."""
    return _hash(b"%b%b,%b" % (terms, _encode(key), message))


def of_terms(task: Task) -> bytes:
    """Sixteen bytes of all but id, key and message."""
    dead = task.dead_destination
    return _hash(
        _encode((
            task.source, task.destination.identity(), dead and dead.identity(), task.max_retries,
            float(task.base_delay), task.delay, _backoff_identity(task), task.ttl, task.failures,
            task.client_id, task.is_priority, task.message_encoding,
            task.lane or task.destination.place.lane,
        ))
    )  # fmt: skip


def _hash(text: bytes) -> bytes:
    return hashlib.blake2b(text, digest_size=16).digest()


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
