"""What a dead letter tells of the task it was, the same to every kind of destination."""

from __future__ import annotations

import string
from collections.abc import Iterator
from typing import Final
from urllib.parse import quote_from_bytes

from rebound.domain.task import Task

MAX_ERROR: Final = 256
"""Characters of the last error that a dead letter tells."""
VISIBLE: Final = string.ascii_letters + string.digits + string.punctuation


def dead_letter(task: Task) -> Iterator[tuple[str, str]]:
    """Names, without their prefix, and values of the headers that a dead letter has in addition."""
    yield "Dead-Reason", task.dead_reason or ""
    yield "Attempts", str(task.attempt)
    error = task.main_error or ""
    shown = error[:MAX_ERROR]
    while len(printable(shown)) > MAX_ERROR:
        shown = shown[:-1]
    yield "Last-Error", printable(shown)
    yield "Source", printable(task.source)
    yield "Original-Destination", printable(task.destination.place.origin)


def printable(text: str) -> str:
    """What lies outside 0x20-0x7E is percent-encoded UTF-8."""
    if text.isascii() and text.isprintable():
        return text
    return quote_from_bytes(text.encode(errors="surrogatepass"), safe=" " + VISIBLE)
