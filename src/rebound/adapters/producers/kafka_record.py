"""The record that a task becomes."""

from __future__ import annotations

import base64
from typing import NamedTuple

from msgspec import UNSET

from rebound.adapters.producers.provenance import dead_letter, printable
from rebound.domain.attempt import Leg
from rebound.domain.destination import Base64
from rebound.domain.errors import ValidationError
from rebound.domain.record import FAILURES
from rebound.domain.task import Task
from rebound.domain.validation import message

ANY_PARTITION = -1
"""The key decides, as Java's clients have it; without a key, chance."""
NOW = 0

Header = tuple[str, str | bytes | None]  # confluent-kafka wants the str


class Record(NamedTuple):
    """As it goes to `confluent_kafka.Producer.produce`."""

    value: bytes | None
    """None is a tombstone."""
    key: bytes | None
    partition: int
    timestamp: int
    """Milliseconds since the epoch, or 0 for now."""
    headers: list[Header]


def record(task: Task) -> Record:
    """What goes to the topic of the task's current leg. Raises ValidationError."""
    target = task.target
    return Record(
        _value(task),
        _key(task),
        ANY_PARTITION if target.partition is None else target.partition,
        target.timestamp or NOW,
        _headers(task),
    )


def _value(task: Task) -> bytes | None:
    value = message(task)
    # The text "null" is no JSON null.
    return None if value == b"null" and not isinstance(task.message_data, str) else value


def _key(task: Task) -> bytes | None:
    key = task.message_key
    if key is UNSET:
        return task.id.encode()
    if isinstance(key, Base64):
        return base64.b64decode(key.base64)
    return key.encode() if isinstance(key, str) else None


def _headers(task: Task) -> list[Header]:
    given = task.target.headers or ()
    pairs = given.items() if isinstance(given, dict) else given
    headers: list[Header] = [(_name(name), _bytes(value)) for name, value in pairs]
    headers.append(("rebound-task-id", task.id.encode()))
    headers.append(("rebound-attempt", b"%d" % task.number))
    if task.leg == Leg.DEAD:
        told = dead_letter(task)
        headers += [(f"rebound-{name.lower()}", value.encode()) for name, value in told]
        return headers
    headers.append(("rebound-source", printable(task.source).encode()))
    counted = task.failures > 0 and task.replayed_at is None
    if counted and all(name.lower() != FAILURES for name, _ in headers):
        headers.append((FAILURES, b"%d" % task.failures))
    return headers


def _name(name: str) -> str:
    name.encode()  # confluent-kafka dies of a lone surrogate
    if "\0" in name:  # and would end the name there
        raise ValidationError("headers: a name with a NUL cannot be sent", field="headers")
    return name


def _bytes(value: str | Base64 | None) -> bytes | None:
    # Bytes, because confluent-kafka ends a text at its first NUL.
    if isinstance(value, Base64):
        return base64.b64decode(value.base64)
    return None if value is None else value.encode()
