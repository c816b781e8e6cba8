"""A record of a Kafka topic, as a handler gets it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from msgspec import Struct

Header = tuple[str, bytes | None]

PREFIX: Final = "rebound-"
FAILURES: Final = "rebound-failures"
"""How often handlers have failed on the record."""
GROUP: Final = "rebound-group"
"""The consumer group whose failure brought the record back."""
EXPIRES: Final = "rebound-expires"
"""When the policy's `ttl` is over, in milliseconds since the epoch."""
TIMESTAMP: Final = "rebound-timestamp"
"""Of a dead letter: when its record was written, in milliseconds since the epoch."""
ERROR: Final = "rebound-error"
"""Of a dead letter: what its handler raised the last time."""


class Record(Struct, frozen=True):
    """One record. A redelivered one has the key, value, headers and timestamp of the first time."""

    topic: str
    partition: int
    offset: int
    key: bytes | None
    value: bytes | None
    """None is a tombstone."""
    headers: tuple[Header, ...] = ()
    """In order; names may repeat. Of a redelivered record without those that Rebound added."""
    timestamp: int | None = None
    """When it was written, in milliseconds since the epoch."""
    failures: int = 0
    """How often the handler has failed on it before."""
    group: str | None = None
    """Whose failure brought it back; None: nobody's."""
    expires: int | None = None
    """When the policy's `ttl` is over, in milliseconds since the epoch; None before a failure."""

    @property
    def size(self) -> int:
        """Bytes of key and value."""
        return len(self.key or b"") + len(self.value or b"")

    @property
    def own_headers(self) -> tuple[Header, ...]:
        """The headers without any that Rebound sets."""
        return tuple(pair for pair in self.headers if not _ours(pair))


def record(
    topic: str,
    partition: int,
    offset: int,
    key: bytes | None,
    value: bytes | None,
    headers: Iterable[Header] | None,
    timestamp: int | None,
) -> Record:
    """The Record of what was read, with Rebound's headers understood."""
    if not headers:
        return Record(topic, partition, offset, key, value, (), timestamp)
    given = tuple(headers)
    ours = {name.lower(): value for name, value in given if name.lower().startswith(PREFIX)}
    if FAILURES not in ours and GROUP not in ours:
        return Record(topic, partition, offset, key, value, given, timestamp)
    group = ours.get(GROUP)
    return Record(
        topic,
        partition,
        offset,
        key,
        value,
        tuple(pair for pair in given if not _ours(pair)),
        timestamp,
        _number(ours.get(FAILURES)) or 0,
        None if group is None else group.decode(errors="replace"),
        _number(ours.get(EXPIRES)),
    )


def _ours(pair: Header) -> bool:
    return pair[0].lower().startswith(PREFIX)


def _number(text: bytes | None) -> int | None:
    """None for what is no count: only a stranger can have written that."""
    return int(text) if text is not None and text.isdigit() and len(text) <= 16 else None
