"""What is wrong with a task, in words that name the field first and the nearest known one."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping

import msgspec

from rebound.domain.backoff import Backoff
from rebound.domain.destination import Base64, Destination
from rebound.domain.errors import ValidationError
from rebound.domain.task import Task

ENGINE_FIELDS = Task.__struct_fields__[Task.__struct_fields__.index("attempt") + 1 :]
"""What Rebound itself writes; a caller that sends one of these sends an unknown field."""

PARTS: Mapping[str, type[msgspec.Struct]] = {
    "destination": Destination,
    "dead_destination": Destination,
    "backoff": Backoff,
    "message_key": Base64,
}


def explain(error: msgspec.ValidationError) -> ValidationError:
    """msgspec's message, rewritten to name the field first and the nearest known one."""
    text, path = str(error), ""
    if located := re.fullmatch(r"(.*) - at `\$\.?(.*)`", text, re.S):
        text, path = located[1], located[2]
    root = re.split(r"[.\[]", path)[0]
    if root in ENGINE_FIELDS:
        return unknown_field(root, Task, root)
    field = path or None
    unknown = re.match(r"Object contains unknown field `(.*)`", text, re.S)
    missing = re.match(r"Object missing required field `(.*)`", text)
    if unknown or missing:
        name = (unknown or missing)[1]  # type: ignore[index]
        field = f"{field}.{name}" if field else name
    if missing:
        return ValidationError(f"{field}: is required", field=field)
    if unknown:
        return unknown_field(unknown[1], PARTS.get(root, Task), field or "")
    text = _plain_words(text, path.rpartition(".")[2])
    return ValidationError(f"{field}: {text}" if field else text, field=field)


_RULES = {
    "id": "must be 1 to 255 visible ASCII characters, without spaces",
    "lane": "must be 1 to 255 visible ASCII characters, without spaces",
    "source": "must not have control characters",
    "method": "must be POST, PUT, PATCH, DELETE or GET",
    "destination_type": "must be http, kafka or call",
    "message_encoding": "must be text or base64",
}
"""What the patterns of the fields mean, in words."""


def _plain_words(text: str, field: str) -> str:
    if "matching regex" in text:
        return _RULES.get(field, text[:300])
    if field in ("destination", "dead_destination") and text.endswith("got `str`"):
        return 'expected an object, such as {"url": "https://host/path"}'
    return text[:300].replace(" | null`", "`")


def unknown_field(name: str, owner: type[msgspec.Struct], path: str) -> ValidationError:
    known = known_fields(owner)
    near = difflib.get_close_matches(name, known, 1)
    hint = f"; did you mean {near[0]!r}?" if near else f"; known are {', '.join(known)}"
    return ValidationError(f"{path[:300]}: unknown field{hint}", field=path[:300])


def known_fields(owner: type[msgspec.Struct]) -> list[str]:
    """The fields that a caller may set."""
    return [f for f in owner.__struct_fields__ if f not in ENGINE_FIELDS]
