"""What a running service answers, as the types and errors of the package."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final

import msgspec
from msgspec import UNSET

from rebound.domain.attempt import Attempt, DeadLetter, DeadReason, Leg, Outcome, State
from rebound.domain.backoff import Backoff
from rebound.domain.destination import Base64, Destination, place
from rebound.domain.errors import (
    DuplicateTask,
    InvalidBody,
    NotFound,
    PayloadTooLarge,
    ReboundError,
    StoreUnavailable,
    TaskBusy,
    ValidationError,
    WrongState,
)
from rebound.domain.task import Task

ERRORS: Final[Mapping[str, type[ReboundError]]] = {
    "NOT_FOUND": NotFound,
    "PAYLOAD_TOO_LARGE": PayloadTooLarge,
    "INVALID_BODY": InvalidBody,
    "VALIDATION_ERROR": ValidationError,
    "DUPLICATE_TASK": DuplicateTask,
    "TASK_BUSY": TaskBusy,
    "WRONG_STATE": WrongState,
    "STORE_UNAVAILABLE": StoreUnavailable,
}
_TIMES: Final = ("created_at", "updated_at", "finished_at")
_TYPES: Final[Mapping[str, Any]] = {
    "destination": Destination, "dead_destination": Destination, "backoff": Backoff,
    "message_key": str | Base64, "state": State, "leg": Leg, "dead_reason": DeadReason,
    "dead_letter": DeadLetter,
}  # fmt: skip


def base(url: str) -> str:
    """The URL of a service, without a slash at its end. Raises ValidationError."""
    try:
        known = place(url).kind == "http"
    except ValidationError:
        known = False
    if not known:
        raise ValidationError("url: must be http://host:port or https://host", field="url")
    return url.rstrip("/")


def error(status: int, answer: bytes | Mapping[str, Any]) -> ReboundError:
    """The error that an answer tells."""
    try:
        said = msgspec.json.decode(answer) if isinstance(answer, bytes) else answer
        return ERRORS.get(said["code"], ReboundError)(said["error"])
    except (msgspec.MsgspecError, UnicodeDecodeError, KeyError, TypeError):
        return ReboundError(f"the answer is HTTP {status}, and not one of Rebound")


def task(view: Mapping[str, Any]) -> Task:
    """The task that an answer shows; its secrets are `***`."""
    fields: dict[str, Any] = {}
    for name, value in view.items():
        if name == "message_data":
            fields[name] = value
        elif value is None or name in ("next_attempt_at", "attempts"):
            continue
        else:
            fields[name] = msgspec.convert(value, _TYPES[name]) if name in _TYPES else value
    for name in _TIMES:
        if name in fields:
            fields[name] = seconds_of(fields[name])
    if view.get("next_attempt_at"):
        fields["due_at"] = seconds_of(view["next_attempt_at"])
    fields["attempts"] = tuple(map(_attempt, view.get("attempts") or ()))
    fields.setdefault("source", "")  # of a stub
    fields.setdefault("destination", Destination())
    fields.setdefault("message_key", UNSET)
    return Task(**fields)


def seconds_of(time: str) -> float:
    """RFC 3339 as seconds since the epoch."""
    return datetime.fromisoformat(time).timestamp()


def _attempt(view: Mapping[str, Any]) -> Attempt:
    return Attempt(
        **{
            **view,
            "leg": Leg(view["leg"]),
            "outcome": Outcome(view["outcome"]),
            "started_at": seconds_of(view["started_at"]),
        }
    )
