"""How a task is written: the caller's fields once, what became of it again at every settle."""

from __future__ import annotations

from typing import Any

import msgspec

from rebound.domain.attempt import DeadLetter, DeadReason, Leg, State
from rebound.domain.destination import Destination
from rebound.domain.errors import ValidationError
from rebound.domain.explaining import ENGINE_FIELDS
from rebound.domain.reading import from_json
from rebound.domain.task import Task

_PROGRESS = (
    "attempt",
    *(f for f in ENGINE_FIELDS if f not in ("created_at", "lost", "lease")),
)
_NOTHING = (None, 0, ())
_encode = msgspec.json.Encoder().encode


class Unreadable(Exception):
    """A stored record cannot be decoded."""


def progress(task: Task) -> bytes:
    """What became of the task, as JSON; the store keeps creation, leases and losses itself."""
    return _encode({f: v for f in _PROGRESS if (v := getattr(task, f)) not in _NOTHING})


def restore(
    id_: str,
    body: bytes,
    progress: bytes | None,
    *,
    created_at: float,
    due_at: float | None = None,
    lease: tuple[str, str] | None = None,
    lost: tuple[float, ...] = (),
    leased_at: float | None = None,
) -> Task:
    """The task as it was stored: `body` and `progress` spliced and decoded once.

    `due_at` replaces what `progress` says, `lease` is (token, queue), `leased_at` when it began.
    Raises Unreadable.
    """
    fixed: dict[str, Any] = {"id": id_, "created_at": created_at, "lost": lost}
    if due_at is not None:
        fixed["due_at"] = due_at
    if lease is not None:
        fixed["lease"], fixed["state"] = lease, State.DELIVERING
        fixed["updated_at"] = leased_at
    elif not progress:
        fixed["updated_at"] = created_at
    if not progress:
        progress = b'{"state":"scheduled","leg":"main"}'
    text = b"".join((body.rstrip()[:-1], b",", progress[1:-1], b",", _encode(fixed)[1:]))
    try:
        task = from_json(text)
        for destination in (task.destination, task.dead_destination):
            if destination is not None:
                destination.place  # noqa: B018  a URL of another release has none here
        return task
    except (ValidationError, msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise Unreadable(f"task {id_} cannot be read: {error}") from error


def unreadable(id_: str, body: bytes, *, created_at: float, now: float) -> Task:
    """What is shown of a record that cannot be decoded: `dead`, with its bytes as the message."""
    return Task(
        id=id_, source="", destination=Destination(), state=State.DEAD, leg=Leg.MAIN,
        dead_reason=DeadReason.UNREADABLE,
        dead_letter=DeadLetter.NONE,
        last_error="the stored record cannot be read",
        message_data=body.decode(errors="backslashreplace"), created_at=created_at,
        updated_at=now, finished_at=now,
    )  # fmt: skip


def stub(id_: str, *, created_at: float, finished_at: float) -> Task:
    """What is left of a succeeded task after its retention: id, state and times."""
    return Task(
        id=id_, source="", destination=Destination(), state=State.SUCCEEDED, leg=None,
        created_at=created_at, updated_at=finished_at, finished_at=finished_at,
    )  # fmt: skip
