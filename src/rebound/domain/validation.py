"""The one door: what comes in is a valid Task, or one error that names the field."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import msgspec
from msgspec.structs import astuple, replace

from rebound.domain import surrogates
from rebound.domain.backoff import STRATEGIES, Strategy
from rebound.domain.destination import Base64
from rebound.domain.errors import InvalidBody, PayloadTooLarge, ValidationError
from rebound.domain.explaining import ENGINE_FIELDS, PARTS, explain, known_fields, unknown_field
from rebound.domain.fields import unbase64
from rebound.domain.plain import require_json
from rebound.domain.reading import from_json
from rebound.domain.task import Task

MAX_KEY = 1024
_NULL_HAS_MEANING = {"message_data", "message_key"}
_encoder = msgspec.json.Encoder()


def parse(data: bytes) -> Task:
    """A Task from JSON text. Raises InvalidBody (no JSON) or ValidationError (no valid task)."""
    require_utf8(data)
    try:
        return _without_engine_fields(from_json(data), data)
    except msgspec.ValidationError as error:
        explained = explain(error)
        try:
            stripped = _without_nulls(data)
        except RecursionError:
            raise InvalidBody("the JSON is nested too deeply") from None
        except (msgspec.DecodeError, UnicodeDecodeError) as broken:
            raise not_json(data, broken) from None
        if stripped is None:
            raise explained from None
    except RecursionError:
        raise InvalidBody("the JSON is nested too deeply") from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise not_json(data, error) from None
    try:
        return _without_engine_fields(from_json(stripped), data)
    except msgspec.ValidationError as error:
        raise explain(error) from None


def not_json(data: bytes, error: Exception) -> InvalidBody:
    """What to raise for `data` that msgspec cannot decode because of `error`."""
    if surrogates.has_lone(data):
        return InvalidBody("the body has a lone surrogate such as \\ud800, which is no text")
    return InvalidBody(f"the body is not JSON: {error}")


def require_utf8(data: bytes) -> None:
    """Raise InvalidBody unless `data` is UTF-8: msgspec does not look into raw values."""
    if not data.isascii():
        try:
            data.decode()
        except UnicodeDecodeError as error:
            raise InvalidBody(f"the body is not UTF-8: {error}") from None


def from_python(task: Task) -> Task:
    """The same task, checked like JSON: the constructor of a Struct does not check types.

    Raises ValidationError.
    """
    if not isinstance(task, Task):
        raise ValidationError(f"expected a Task, got {type(task).__name__}")
    if task.state is not None:  # one that Rebound returned
        task = replace(task, **_DEFAULTS)
    try:
        text = _encoder.encode(task)
        require_json(task)
        return parse(text)
    except UnicodeEncodeError as error:
        require_json(task)  # names the field
        raise ValidationError(f"the task cannot be written as UTF-8: {error}") from None
    except RecursionError:
        raise ValidationError("message_data: is nested too deeply", field="message_data") from None
    except (TypeError, ValueError, msgspec.MsgspecError, InvalidBody) as error:
        require_json(task)  # may know the field
        raise ValidationError(f"the task cannot be written as JSON: {error}") from None


def check(task: Task, *, max_payload: int, strategies: Mapping[str, Strategy] = STRATEGIES) -> Task:
    """`task` itself, or with empty `dead_destination` as absent. Raises ValidationError."""
    kind = task.destination.check("destination").kind
    if task.dead_destination is not None:
        if task.dead_destination.given:
            task.dead_destination.check("dead_destination")
        else:
            task = replace(task, dead_destination=None)
    if task.destination_type is not None and task.destination_type != kind:
        raise ValidationError(
            f"destination_type: is {task.destination_type!r}, but the destination is {kind!r}",
            field="destination_type",
        )
    _check_backoff(task, strategies)
    _check_key(task.message_key)
    if task.message_encoding == "base64" and not isinstance(task.message_data, str):
        raise ValidationError(
            "message_data: must be a string when message_encoding is base64", field="message_data"
        )
    size = len(message(task))
    if size > max_payload:
        raise PayloadTooLarge(
            f"message_data: has {size} bytes, more than MAX_PAYLOAD_BYTES = {max_payload}",
            field="message_data",
        )
    return task


def message(task: Task) -> bytes:
    """The bytes to send. Raises ValidationError where base64 is malformed."""
    data: Any = task.message_data
    if not isinstance(data, str):
        return bytes(data) if isinstance(data, msgspec.Raw) else _encoder.encode(data)
    if task.message_encoding == "text":
        try:
            return data.encode()
        except UnicodeEncodeError:
            raise ValidationError(
                "message_data: has a lone surrogate", field="message_data"
            ) from None
    return _decoded(data, "message_data")


def with_values(task: Task) -> Task:
    """The task with its message as Python values, as the caller gave it.

    A number that Python cannot hold, such as 1e999, leaves the message as the text it came in.
    """
    data: Any = task.message_data
    if type(data) is not msgspec.Raw:
        return task
    try:
        return replace(task, message_data=msgspec.json.decode(data))
    except (msgspec.MsgspecError, RecursionError, ValueError):
        return task


_DEFAULTS = {
    f: d
    for f, d in zip(
        reversed(Task.__struct_fields__), reversed(Task.__struct_defaults__), strict=False
    )
    if f in ENGINE_FIELDS or f == "attempt"
}


_FIRST_OURS = len(Task.__struct_fields__) - len(ENGINE_FIELDS)
_UNTOUCHED = tuple(_DEFAULTS[name] for name in ENGINE_FIELDS)
_OURS = re.compile(f'"({"|".join(ENGINE_FIELDS)})"|\\\\u'.encode())
"""What a text has where it may have a field of Rebound's own, spelled out or with escapes."""


def untouched(task: Task) -> bool:
    """True where no field of Rebound's own says anything."""
    return astuple(task)[_FIRST_OURS:] == _UNTOUCHED


def _without_engine_fields(task: Task, data: bytes) -> Task:
    """`task`, read from `data`. Raises ValidationError where that has a field of Rebound's own."""
    if not untouched(task) or _OURS.search(data):
        for name in _members(data):  # the search also finds what is inside the message
            if name in ENGINE_FIELDS:
                raise unknown_field(name, Task, name)
    return task


def _without_nulls(data: bytes) -> bytes | None:
    """`data` less the members that are null and thereby not given; None where there is none."""
    try:
        members = _members(data)
    except msgspec.ValidationError:
        msgspec.json.decode(data, type=msgspec.Raw)
        return None
    kept: dict[str, Any] = _given(members, Task)
    found = len(kept) < len(members)
    for name, owner in PARTS.items():
        if name in kept and bytes(kept[name])[:1] == b"{":
            inner = _members(kept[name])
            kept[name] = _given(inner, owner)
            found = found or len(kept[name]) < len(inner)
    return _encoder.encode(kept) if found else None


def _given(
    members: Mapping[str, msgspec.Raw], owner: type[msgspec.Struct]
) -> dict[str, msgspec.Raw]:
    """The members but those that are null and could be left out."""
    optional = set(known_fields(owner)) - _NULL_HAS_MEANING
    return {k: v for k, v in members.items() if bytes(v) != b"null" or k not in optional}


def _members(data: bytes | msgspec.Raw) -> dict[str, msgspec.Raw]:
    return msgspec.json.decode(data, type=dict[str, msgspec.Raw])


def _check_backoff(task: Task, strategies: Mapping[str, Strategy]) -> None:
    backoff = task.backoff
    if backoff is None:
        return
    name = backoff.strategy or "exponential"
    if name not in strategies:
        raise ValidationError(
            f"backoff.strategy: unknown strategy {name!r}; known are {', '.join(strategies)}",
            field="backoff.strategy",
        )
    if (name == "schedule") != (backoff.schedule is not None):
        raise ValidationError(
            "backoff.schedule: belongs to the strategy 'schedule', and that needs it",
            field="backoff.schedule",
        )


def _check_key(key: object) -> None:
    if isinstance(key, Base64):
        size = len(_decoded(key.base64, "message_key"))
    elif isinstance(key, str):
        size = len(key.encode())
    else:
        return
    if size > MAX_KEY:
        raise ValidationError(f"message_key: is longer than {MAX_KEY} bytes", field="message_key")


def _decoded(text: str, field: str) -> bytes:
    try:
        return unbase64(text)
    except ValueError:
        raise ValidationError(f"{field}: is not base64", field=field) from None
