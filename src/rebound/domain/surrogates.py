"""Escapes of lone surrogates (`\\ud800`): JSON by its grammar, but no text that UTF-8 can hold.

JavaScript writes them for a broken string; msgspec stops at them with a message about something
else.
"""

from __future__ import annotations

import re

_STAND_IN = rb"\uFfFf"
"""A character that is none, in a spelling that nobody uses."""
_MOST = 10_000
"""Lone surrogates that are hidden; a batch with more stays as it is, and is refused as a whole."""
_LONE = re.compile(
    rb"""((?:[^\\]++|\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}
    |(?:\\[^u])++|\\u(?![dD][89a-fA-F]))*+)\\u[dD][89a-fA-F][0-9a-fA-F]{2}""",
    re.S | re.X,
)


def has_lone(text: bytes) -> bool:
    """True where JSON `text` escapes a lone surrogate."""
    return _LONE.match(text) is not None


def hidden(text: bytes) -> bytes:
    """JSON `text` with stand-ins for lone surrogates, so that its parts can be told apart."""
    parts: list[bytes] = []
    at = 0
    while len(parts) < 2 * _MOST and (found := _LONE.match(text, at)):
        parts += found[1], _STAND_IN
        at = found.end()
    return b"".join((*parts, text[at:]))


def shown(text: bytes) -> bytes:
    """A part of what `hidden` returned, again with lone surrogates where there were some."""
    return text.replace(_STAND_IN, rb"\ud800")
