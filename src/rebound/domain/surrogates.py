"""Escapes of lone surrogates (`\\ud800`): JSON by its grammar, but no text that UTF-8 can hold.

JavaScript writes them for a broken string; msgspec stops at them with a message about something
else.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import islice

_STAND_IN = rb"\uFfFf"
"""A character that is none, in a spelling that nobody uses."""
_MOST = 10_000
"""Lone surrogates that are hidden; a batch with more stays as it is, and is refused as a whole."""
_ESCAPE = re.compile(rb"(?:\\\\)+|\\u([dD][89a-fA-F])[0-9a-fA-F]{2}")
"""Backslashes that are escaped themselves, and the escape of one half of a surrogate pair."""


def has_lone(text: bytes) -> bool:
    """True where JSON `text` escapes a lone surrogate."""
    return any(True for _ in _lone(text))


def hidden(text: bytes) -> bytes:
    """JSON `text` with stand-ins for lone surrogates, so that its parts can be told apart."""
    parts: list[bytes] = []
    at = 0
    for found in islice(_lone(text), _MOST):
        parts += text[at : found.start()], _STAND_IN
        at = found.end()
    return b"".join((*parts, text[at:]))


def shown(text: bytes) -> bytes:
    """A part of what `hidden` returned, again with lone surrogates where there were some."""
    return text.replace(_STAND_IN, rb"\ud800")


def _lone(text: bytes) -> Iterator[re.Match[bytes]]:
    high: re.Match[bytes] | None = None
    for found in _ESCAPE.finditer(text):
        if not found[1]:
            continue
        is_low = found[1][1:] in b"cdefCDEF"
        if high is not None and is_low and found.start() == high.end():
            high = None
            continue
        if high is not None:
            yield high
        high = None if is_low else found
        if is_low:
            yield found
    if high is not None:
        yield high
