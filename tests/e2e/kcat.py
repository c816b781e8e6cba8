"""Reads topics with kcat, a client that has nothing in common with Rebound but librdkafka's C."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from typing import NamedTuple

from tests.conftest import need
from tests.services.kafka import KafkaBroker

FRAME = "%p %T %K %S\n%k%s%h\n"
"""Numbers first: keys and values may be any bytes. Length -1 is null."""


class Kept(NamedTuple):
    """One record as it is in the topic."""

    partition: int
    timestamp: int
    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, str], ...]
    """In their order; kcat writes NULL for a header without value."""

    @property
    def task(self) -> str:
        return dict(self.headers)["rebound-task-id"]


def read(broker: KafkaBroker, topic: str) -> list[Kept]:
    """All that is in a topic now, by partition and offset. Header values without commas only."""
    out = subprocess.run(
        [need("kcat"), "-b", broker.bootstrap, "-C", "-t", topic, "-o", "beginning", "-e", "-q",
         "-X", "broker.address.family=v4", "-f", FRAME],
        check=True, capture_output=True, timeout=60,
    ).stdout  # fmt: skip
    kept = []
    while out:
        numbers, _, out = out.partition(b"\n")
        partition, timestamp, key_length, length = map(int, numbers.split())
        key, out = _cut(out, key_length)
        value, out = _cut(out, length)
        headers, _, out = out.partition(b"\n")
        kept.append(Kept(partition, timestamp, key, value, _headers(headers)))
    return sorted(kept, key=lambda record: record.partition)


def of(records: Sequence[Kept], task: str) -> Kept:
    """The one record of a task."""
    (found,) = [record for record in records if record.task == task]
    return found


def _cut(data: bytes, length: int) -> tuple[bytes | None, bytes]:
    return (None, data) if length < 0 else (data[:length], data[length:])


def _headers(line: bytes) -> tuple[tuple[str, str], ...]:
    pairs = (pair.partition("=") for pair in line.decode("latin-1").split(",") if pair)
    return tuple((name, value) for name, _, value in pairs)
