"""Tasks as the Go original writes them into Redis, and what they are here."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
from msgspec import Meta, Struct

from rebound.domain import validation
from rebound.domain.errors import InvalidBody
from rebound.domain.explaining import explain
from rebound.domain.task import Task

MOST = 100
"""Retries and attempts at most, there and here."""


class To(Struct, frozen=True, forbid_unknown_fields=True):
    """A destination; what is empty was not given."""

    host: str = ""
    port: str | int = ""
    topic: str = ""
    url: str = ""

    def fields(self) -> dict[str, Any]:
        """Those that the original goes by: where there is a URL, nothing else."""
        if self.url:
            return {"url": self.url}
        if self.topic and not self.host:  # its service takes the brokers of its settings
            return {"url": f"kafka:///{self.topic}"}
        return {"host": self.host, "port": self.port, "topic": self.topic}


class Waiting(Struct, frozen=True, forbid_unknown_fields=True):
    """A member of the set."""

    id: Annotated[str, Meta(min_length=1)]
    source: str
    destination: To
    max_retries: int
    base_delay: int
    destination_type: str
    attempt: Annotated[int, Meta(ge=0)] = 0
    """Deliveries that have failed."""
    dead_destination: To = To()
    client_id: str = ""
    is_priority: bool = False
    message_data: str = ""


class _Named(Struct):
    id: str = ""


_decoder = msgspec.json.Decoder(Waiting)


def task_of(member: bytes) -> Task:
    """The task of a member of the set. Raises InvalidBody or ValidationError."""
    try:
        found = _decoder.decode(member)
    except msgspec.ValidationError as error:
        raise explain(error) from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidBody(f"is not JSON: {error}") from None
    # N retries are N + 1 deliveries there, and N attempts here. One is always left: there, a
    # task without any does not wait.
    attempts = found.max_retries + 1 if 0 <= found.max_retries < MOST else found.max_retries
    kind = found.destination_type
    if kind in ("http", "kafka"):  # whichever it says, the original goes by the URL
        kind = "http" if found.destination.url else "kafka"
    fields = {
        "id": found.id, "source": found.source, "destination": found.destination.fields(),
        "dead_destination": found.dead_destination.fields(), "destination_type": kind,
        "max_retries": attempts, "failures": max(0, min(found.attempt, attempts - 1)),
        "base_delay": found.base_delay, "client_id": found.client_id,
        "is_priority": found.is_priority, "message_data": found.message_data,
    }  # fmt: skip
    return validation.parse(msgspec.json.encode(fields))


def name_of(member: bytes, due: float) -> str:
    """What to call a member that is no task: its id, else what finds it. Never its content."""
    try:
        named = msgspec.json.decode(member, type=_Named).id
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        named = ""
    if named and named.isprintable():
        return named[:MOST]
    return f"a member of {len(member)} bytes with the score {due:.17g}"
