"""What the API answers: a task and everything else, as the types that are encoded and described."""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal, TypeVar

import msgspec
from msgspec import UNSET, Meta, Struct, UnsetType
from msgspec.structs import replace

from rebound.domain.attempt import Attempt, DeadLetter, DeadReason, Leg, Outcome, State
from rebound.domain.backoff import Backoff
from rebound.domain.destination import Base64, Destination, DestinationType
from rebound.domain.fields import Json
from rebound.domain.task import Task
from rebound.domain.times import rfc3339
from rebound.engine import Submitted

Time = Annotated[str, Meta(extra_json_schema={"format": "date-time"})]
Code = Literal[
    "NOT_FOUND", "METHOD_NOT_ALLOWED", "FORBIDDEN", "PAYLOAD_TOO_LARGE", "UNSUPPORTED_MEDIA_TYPE",
    "INVALID_BODY", "VALIDATION_ERROR", "DUPLICATE_TASK", "TASK_BUSY", "WRONG_STATE",
    "STORE_UNAVAILABLE", "INTERNAL", "UNAUTHORIZED", "RATE_LIMITED",
    "BAD_REQUEST", "REQUEST_TIMEOUT", "HEADERS_TOO_LARGE", "TOO_MANY_CONNECTIONS",
]  # fmt: skip
Part = TypeVar("Part", Destination, Backoff)
SCHEDULED: Final = State.SCHEDULED
encode = msgspec.json.Encoder().encode
_EXPONENTIAL = Backoff(strategy="exponential")


class AttemptView(Struct, forbid_unknown_fields=True):
    """One try to deliver the task."""

    leg: Leg
    number: int
    """From 1, within its leg."""
    started_at: Time
    duration_ms: float | None
    outcome: Outcome
    status: int | None
    """HTTP status, where the receiver answered."""
    error: str | None
    response: str | None
    """At most 1 KiB of what the receiver answered."""


class TaskView(Struct, kw_only=True, forbid_unknown_fields=True):
    """A task as it stands. What is absent is null, never missing."""

    id: str
    source: str | None
    destination: Destination | None
    """In the form sent; secrets are shown as `***`."""
    dead_destination: Destination | None
    destination_type: DestinationType | None
    max_retries: int | None
    base_delay: float | None
    delay: float | None
    backoff: Backoff | None
    ttl: float | None
    failures: int | None
    client_id: str | None
    is_priority: bool | None
    message_data: Json | UnsetType = UNSET
    message_encoding: str | None
    message_key: str | Base64 | None
    lane: str | None
    state: State
    leg: Leg | None
    attempt: int | None
    """Main-leg attempts made, the one under way included; 0 before the first."""
    created_at: Time | None
    updated_at: Time | None
    finished_at: Time | None
    next_attempt_at: Time | None
    """Null unless the task is scheduled."""
    dead_reason: DeadReason | None
    dead_letter: DeadLetter | None
    last_error: str | None
    attempts: list[AttemptView] | UnsetType | None = UNSET
    """The newest 25 of both legs, oldest first."""


class Scheduled(Struct, forbid_unknown_fields=True):
    """The task is in the store."""

    message: str
    id: str
    state: State
    next_attempt_at: Time | None
    created: bool
    """False where the same content was stored under this id before."""


class BatchResult(Struct, kw_only=True, forbid_unknown_fields=True):
    """What became of one task of a batch."""

    id: str | None
    status: Literal[200, 201, 400, 409, 413]
    error: str | UnsetType = UNSET
    code: Code | UnsetType = UNSET


class BatchResults(Struct, forbid_unknown_fields=True):
    """One result for each task, in order."""

    results: list[BatchResult]


class Page(Struct, forbid_unknown_fields=True):
    """Tasks without `message_data` and `attempts`, newest first."""

    tasks: list[TaskView]
    next_cursor: str | None
    """The `cursor` of the next page; null at the end. A page that has one may hold fewer than
    `limit` tasks, or none: only so much is searched at once."""


class Error(Struct, forbid_unknown_fields=True):
    """What is wrong."""

    error: str
    code: Code


class Healthy(Struct, forbid_unknown_fields=True):
    """The store answers."""

    status: Literal["healthy"]
    checks: dict[Literal["redis", "sqlite"], Literal["connected"]]


class Unhealthy(Struct, forbid_unknown_fields=True):
    """The store does not answer."""

    status: Literal["unhealthy"]
    error: str


class Alive(Struct, forbid_unknown_fields=True):
    """The process answers."""

    status: Literal["alive"]


class Ready(Struct, forbid_unknown_fields=True):
    """Requests are welcome."""

    status: Literal["ready"]


class NotReady(Struct, forbid_unknown_fields=True):
    """The store is away, or the service is shutting down."""

    status: Literal["not ready"]
    error: str


def scheduled(submitted: Submitted) -> Scheduled:
    """The answer to a task that is in the store."""
    task = submitted.task
    return Scheduled(
        message=f"Task {task.id} scheduled successfully",
        id=task.id,
        state=task.state or SCHEDULED,
        next_attempt_at=_next_attempt_at(task),
        created=submitted.created,
    )


def summary(task: Task) -> TaskView:
    """The task without its message and its attempts."""
    if not task.source:
        return _remains(task)
    place = task.destination.place
    dead = task.dead_destination
    under_way = task.state == State.DELIVERING and task.leg != Leg.DEAD
    return TaskView(
        id=task.id,
        source=task.source,
        destination=_as_sent(task.destination.redacted()),
        dead_destination=dead and _as_sent(dead.redacted()),
        destination_type=DestinationType(place.kind),
        max_retries=task.max_retries,
        base_delay=_whole(task.base_delay),
        delay=_whole(task.delay),
        backoff=_EXPONENTIAL if task.backoff is None else _as_sent(task.backoff),
        ttl=_whole(task.ttl),
        failures=task.failures,
        client_id=task.client_id,
        is_priority=task.is_priority,
        message_encoding=task.message_encoding,
        message_key=task.id if isinstance(task.message_key, UnsetType) else task.message_key,
        lane=task.lane or place.lane,
        state=task.state or State.SCHEDULED,
        leg=task.leg,
        attempt=task.attempt + under_way,
        created_at=_time(task.created_at),
        updated_at=_time(task.updated_at),
        finished_at=_time(task.finished_at),
        next_attempt_at=_next_attempt_at(task),
        dead_reason=task.dead_reason,
        dead_letter=task.dead_letter,
        last_error=task.last_error,
    )


def whole(task: Task) -> TaskView:
    """The task with everything that is known of it.

    Of a record that cannot be read the message is not shown: it may hold the destination's secrets.
    """
    view = summary(task)
    known = bool(task.source)
    view.message_data = task.message_data if known else None
    view.attempts = [_attempt(a) for a in task.attempts] if known else None
    return view


def _time(at: float | None) -> str | None:
    return None if at is None else rfc3339(at)


def _next_attempt_at(task: Task) -> str | None:
    return _time(task.due_at) if task.state == SCHEDULED else None


def _attempt(attempt: Attempt) -> AttemptView:
    return AttemptView(
        leg=attempt.leg,
        number=attempt.number,
        started_at=rfc3339(attempt.started_at),
        duration_ms=attempt.duration_ms,
        outcome=attempt.outcome,
        status=attempt.status,
        error=attempt.error,
        response=attempt.response,
    )


def _remains(task: Task) -> TaskView:
    """A stub, or a record that cannot be read: only what Rebound itself knows."""
    nothing: dict[str, Any] = dict.fromkeys(TaskView.__struct_fields__)
    return TaskView(
        **nothing
        | {
            "id": task.id,
            "state": task.state,
            "leg": task.leg,
            "created_at": _time(task.created_at),
            "updated_at": _time(task.updated_at),
            "finished_at": _time(task.finished_at),
            "dead_reason": task.dead_reason,
            "dead_letter": task.dead_letter,
            "last_error": task.last_error,
            "message_data": UNSET,
            "attempts": UNSET,
        }
    )


def _whole(number: float | None) -> float | None:
    """5.0 as 5: which of the two was sent is not kept, and people send 5."""
    return int(number) if isinstance(number, float) and number.is_integer() else number


def _as_sent(part: Part) -> Part:
    """The same with whole numbers written as such."""
    numbers: dict[str, Any] = {}
    for field in part.__struct_fields__:
        value = getattr(part, field)
        if isinstance(value, float):
            numbers[field] = _whole(value)
        elif field == "schedule" and value is not None:
            numbers[field] = [_whole(entry) for entry in value]
    return replace(part, **numbers) if numbers else part
