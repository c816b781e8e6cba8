"""Times at the edges: RFC 3339, UTC, milliseconds."""

from __future__ import annotations

from datetime import UTC, datetime
from functools import lru_cache


def rfc3339(at: float) -> str:
    """Seconds since the epoch as RFC 3339 in UTC, cut (not rounded) to milliseconds."""
    return _millisecond(int(at * 1000 + 0.01))


@lru_cache(maxsize=1024)  # lines of a log, and tasks of a batch, have it in common
def _millisecond(at: int) -> str:
    seconds, milliseconds = divmod(at, 1000)
    return f"{_second(seconds)}.{milliseconds:03d}Z"


@lru_cache(maxsize=1024)
def _second(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S")
