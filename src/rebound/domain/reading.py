"""A task from its JSON: the one place where it is read, for callers and for stores."""

from __future__ import annotations

from typing import Any

import msgspec
from msgspec.structs import force_setattr

from rebound.domain.task import Task

_decoder = msgspec.json.Decoder(Task)


def from_json(text: bytes) -> Task:
    """The task of a JSON text; its message is a string, or JSON as it stands there.

    Raises msgspec.MsgspecError or ValueError.
    """
    task = _decoder.decode(text)
    force_setattr(task, "message_data", text_of(task.message_data))
    return task


def text_of(data: Any) -> Any:
    """A string that is still JSON as what it says; anything else as it is."""
    if type(data) is msgspec.Raw and bytes(data).startswith(b'"'):
        return msgspec.json.decode(data)
    return data
