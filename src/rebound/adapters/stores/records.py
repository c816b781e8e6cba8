"""How a task is written: the caller's fields once, what became of it again at every settle."""

from __future__ import annotations

from operator import attrgetter
from typing import Any

import msgspec
from msgspec.structs import fields, force_setattr

from rebound.domain.attempt import DeadLetter, DeadReason, Lease, Leg, State
from rebound.domain.destination import Destination
from rebound.domain.errors import ValidationError
from rebound.domain.explaining import ENGINE_FIELDS
from rebound.domain.reading import from_json
from rebound.domain.task import Task

_THE_STORES = ("created_at", "lost", "lease")
_WRITTEN = [
    f
    for f in fields(Task)
    if f.name == "attempt" or (f.name in ENGINE_FIELDS and f.name not in _THE_STORES)
]
_values_of = attrgetter(*(f.name for f in _WRITTEN))
# A Struct is written in half the time of a dict of what is not empty.
_Progress = msgspec.defstruct(
    "_Progress", [(f.name, Any, f.default) for f in _WRITTEN], omit_defaults=True
)
_encode = msgspec.json.Encoder().encode


class Unreadable(Exception):
    """A stored record cannot be decoded."""


def progress(task: Task) -> bytes:
    """What became of the task, as JSON; the store keeps creation, leases and losses itself."""
    return _encode(_Progress(*_values_of(task)))


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
    try:
        text = b"".join((body.rstrip()[:-1], b",", progress[1:])) if progress else body
        task = from_json(text)
        task.destination.place  # noqa: B018  a URL of another release has none here
        if task.dead_destination is not None:
            task.dead_destination.place  # noqa: B018
    except (ValidationError, msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise Unreadable(f"task {id_} cannot be read: {error}") from error
    # Nobody has seen the task yet. What the store knows itself need not become JSON and back.
    force_setattr(task, "id", id_)
    force_setattr(task, "created_at", created_at)
    force_setattr(task, "lost", lost)
    if not progress:
        force_setattr(task, "leg", Leg.MAIN)
        force_setattr(task, "state", State.SCHEDULED)
        force_setattr(task, "updated_at", created_at)
    if due_at is not None:
        force_setattr(task, "due_at", due_at)
    if lease is not None:
        force_setattr(task, "lease", Lease(*lease))
        force_setattr(task, "state", State.DELIVERING)
        force_setattr(task, "updated_at", leased_at)
    return task


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
