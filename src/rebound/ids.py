"""Ids for tasks that come without one."""

from __future__ import annotations

import os
import time
from functools import lru_cache
from random import Random
from typing import Final

_CHANCE: Final = Random()
"""Not the one that a program may seed, again and again, to have the same chances."""
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_CHANCE.seed)


def uuid7() -> str:
    """A new UUID version 7 (RFC 9562 section 5.7): sorts by time, 72 bits are chance."""
    chance = _CHANCE.getrandbits(72).to_bytes(9, "big").hex()
    return f"{_moment(time.time_ns() // 1_000_000)}{chance[:3]}-8{chance[3:6]}-{chance[6:]}"


@lru_cache(maxsize=2)
def _moment(milliseconds: int) -> str:
    text = f"{milliseconds:012x}"
    return f"{text[:8]}-{text[8:]}-7"
