"""Tasks as they come in over HTTP: one, or a batch of which each stands for itself."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import msgspec
from msgspec import UNSET, Raw, Struct, UnsetType, defstruct
from msgspec.structs import astuple

from rebound.adapters.api.answer import explained
from rebound.adapters.api.view import BatchResult
from rebound.domain import drafts, surrogates, validation
from rebound.domain.destination import Destination
from rebound.domain.drafts import Draft
from rebound.domain.errors import (
    InvalidBody,
    PayloadTooLarge,
    ReboundError,
    ValidationError,
)
from rebound.domain.explaining import explain
from rebound.domain.reading import text_of
from rebound.domain.task import Task
from rebound.engine import Submitted

MAX_TASKS: Final = 1000
"""Tasks in one batch."""

# A list would be built to its end, millions of elements long, before its length is looked at.
_Tasks = defstruct(
    "_Tasks",
    [(f"task_{n}", Raw | UnsetType, UNSET) for n in range(MAX_TASKS)],
    array_like=True,
    forbid_unknown_fields=True,
)


class _Batch(Struct, forbid_unknown_fields=True):
    tasks: _Tasks  # type: ignore[valid-type]


class _Message(Struct):
    message_data: Raw = Raw(b'""')
    message_encoding: Any = "text"


class _Named(Struct):
    id: Any = None


_batch = msgspec.json.Decoder(_Batch)
_message = msgspec.json.Decoder(_Message)
_named = msgspec.json.Decoder(_Named)
_syntax = msgspec.json.Decoder(Raw)


def draft(data: bytes, *, calls: bool) -> Draft:
    """A task from JSON text; `calls` says whether it may go to `call://`.

    Raises InvalidBody or ValidationError.
    """
    read = drafts.of_json(data)
    if not calls:
        task = drafts.common(read.terms)
        _refuse_call("destination", task.destination)
        if task.dead_destination is not None:
            _refuse_call("dead_destination", task.dead_destination)
    return read


def batch(data: bytes) -> Sequence[bytes]:
    """The JSON text of each task in `{"tasks": [...]}`. Raises InvalidBody or ValidationError."""
    validation.require_utf8(data)
    try:
        try:
            tasks = _split(data)
        except msgspec.DecodeError:
            if not surrogates.has_lone(data):
                raise
            tasks = [surrogates.shown(text) for text in _split(surrogates.hidden(data))]
    except RecursionError:
        raise InvalidBody("the JSON is nested too deeply") from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise validation.not_json(data, error) from None
    if not tasks:
        raise ValidationError("tasks: must hold 1 to 1000 tasks, not none", field="tasks")
    return tasks


def _split(data: bytes) -> list[bytes]:
    try:
        return [bytes(t) for t in astuple(_batch.decode(data).tasks) if t is not UNSET]
    except msgspec.ValidationError as error:
        _syntax.decode(data)
        raise _not_a_batch(error) from None


def result(data: bytes, outcome: Submitted | ReboundError, *, max_payload: int) -> BatchResult:
    """What became of the task whose JSON text was `data`."""
    if isinstance(outcome, Submitted):
        return BatchResult(id=outcome.task.id, status=201 if outcome.created else 200)
    status, body = explained(too_large(data, outcome, max_payload=max_payload))
    return BatchResult(id=_id(data), status=status, error=body.error, code=body.code)  # type: ignore[arg-type]


def too_large(data: bytes, error: ReboundError, *, max_payload: int) -> ReboundError:
    """PayloadTooLarge in place of `error` where both are true: size is decided first."""
    if len(data) <= max_payload or type(error) is not ValidationError:
        return error
    try:
        found = _message.decode(data)
        size = len(
            validation.message(
                Task(
                    source="-",
                    destination=Destination(),
                    message_data=text_of(found.message_data),
                    message_encoding=found.message_encoding,
                )
            )
        )
    except (msgspec.MsgspecError, ValidationError, RecursionError, UnicodeDecodeError):
        return error
    if size <= max_payload:
        return error
    return PayloadTooLarge(
        f"message_data: has {size} bytes, more than MAX_PAYLOAD_BYTES = {max_payload}",
        field="message_data",
    )


def _refuse_call(field: str, destination: Destination) -> None:
    if destination.url[:7].lower() == "call://":
        raise ValidationError(
            f"{field}.url: call:// is not accepted over HTTP unless CALL_OVER_HTTP=on",
            field=f"{field}.url",
        )


def _not_a_batch(error: msgspec.ValidationError) -> ValidationError:
    explained = explain(error)
    if "at most length" in str(error):  # msgspec names no field here
        return ValidationError(f"tasks: holds more than {MAX_TASKS} tasks", field="tasks")
    if explained.field is None:
        return ValidationError('the body must be an object: {"tasks": [...]}')
    if explained.field == "tasks":
        return explained
    return ValidationError(
        f"{explained.field}: unknown field; the only one is 'tasks'", field=explained.field
    )


def _id(data: bytes) -> str | None:
    """The id that an unacceptable task was sent with, if it has one."""
    try:
        id_ = _named.decode(data).id
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError):
        return None
    return id_ if isinstance(id_, str) and 0 < len(id_) <= 255 else None
