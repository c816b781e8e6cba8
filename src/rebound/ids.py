"""Ids for tasks that come without one."""

from __future__ import annotations

import time
from random import getrandbits


def uuid7() -> str:
    """A new UUID version 7 (RFC 9562 section 5.7): ids that sort by time."""
    value = (time.time_ns() // 1_000_000) << 80 | getrandbits(80)
    value = value & ~(0xF << 76) | 0x7 << 76
    value = value & ~(0x3 << 62) | 0x2 << 62
    text = f"{value:032x}"
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"
