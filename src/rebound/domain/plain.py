"""What a Python program hands in, before it is written as JSON."""

from __future__ import annotations

import math
import re

from msgspec import Raw, Struct, UnsetType

from rebound.domain.errors import ValidationError

_SURROGATE = re.compile("[\ud800-\udfff]")
_PLAIN = frozenset({int, bool, type(None), Raw, UnsetType})


def require_json(value: object, field: str = "") -> None:
    """Raise ValidationError, naming `field`, for what JSON has no word for.

    msgspec would write NaN as null, bytes as base64, and numbers as names in an object.
    """
    match value:
        case _ if type(value) in _PLAIN or (type(value) is str and value.isascii()):
            pass
        case Struct():
            for name in value.__struct_fields__:
                require_json(getattr(value, name), f"{field}.{name}" if field else name)
        case list() | tuple():
            for entry in value:
                require_json(entry, field)
        case dict():
            for name, entry in value.items():
                if not isinstance(name, str):
                    raise ValidationError(f"{field}: {name!r} is no name in JSON", field=field)
                require_json(name, field)
                require_json(entry, field)
        case _:
            if reason := _unfit(value):
                raise ValidationError(f"{field}: {reason}", field=field)


def _unfit(value: object) -> str | None:
    match value:
        case str():
            found = not value.isascii() and _SURROGATE.search(value)
            return "has a lone surrogate" if found else None
        case float():
            return None if math.isfinite(value) else f"{value} is no number in JSON"
        case int():
            return None
        case _:
            return f"a value of type {type(value).__name__} is none that JSON has"
