"""How arguments are read; what is wrong with one is an ArgumentTypeError, in words."""

from __future__ import annotations

import math
from argparse import ArgumentTypeError

from rebound.domain import durations as written
from rebound.settings.readers import whole


def port(text: str) -> int:
    """A port to listen on; 0 is any free one."""
    try:
        return whole(0, 65535)(text)
    except ValueError as error:
        raise ArgumentTypeError(f"{text!r} {error}") from None


def duration(text: str) -> float:
    """Seconds, written `250ms`, `1h30m` or as a number."""
    try:
        return written.seconds(text)
    except ValueError as error:
        raise ArgumentTypeError(str(error)) from None


def durations(text: str) -> list[float]:
    """Several of them, with commas."""
    return [duration(part) for part in text.split(",")]


def number(text: str) -> float:
    """A number that JSON can say, which nan and inf are not."""
    try:
        found = float(text)
    except ValueError:
        found = math.nan
    if not math.isfinite(found):
        raise ArgumentTypeError(f"{text!r} is no number")
    return found


def jitter(text: str) -> str | float:
    """The name of a kind of jitter, or a number."""
    try:
        float(text)
    except ValueError:
        return text
    return number(text)
