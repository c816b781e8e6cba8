"""Tasks on their way in, in two parts: their terms, and what is each one's own.

Tasks of one caller differ in id, key and message, and in little else. So the rest, the *terms*, is
looked at once and then known again by its text, which halves what accepting a task costs before the
store is asked (docs/adr/0021).
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, Final, TypeVar

import msgspec
from msgspec import UNSET, Raw, Struct, UnsetType, defstruct
from msgspec.structs import fields, replace

from rebound.domain import validation
from rebound.domain.destination import Base64
from rebound.domain.errors import ReboundError
from rebound.domain.explaining import ENGINE_FIELDS
from rebound.domain.reading import from_json
from rebound.domain.task import Task

ROOM: Final = 8 * 1024 * 1024
"""Bytes that are remembered of terms, each with OVERHEAD: 10,000 destinations and more."""
OVERHEAD: Final = 300
LONGEST: Final = 1024
"""Bytes of terms that are worth remembering."""

Known = TypeVar("Known")
_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder().decode
_ID = re.compile(r"[!-~]{1,255}")

# What a caller may say: whatever can be read as this has no field of Rebound's own.
_Said = defstruct(
    "_Said",
    [(f.name, f.type, f.default) if not f.required else (f.name, f.type)
     for f in fields(Task) if f.name not in ENGINE_FIELDS],
    kw_only=True, omit_defaults=True, forbid_unknown_fields=True,
)  # fmt: skip
_said = msgspec.json.Decoder(_Said)


class Draft(Struct, frozen=True, gc=False):  # what is in it is JSON, and that has no cycles
    """A task whose fields have the right types; whether they go together is not known yet."""

    terms: bytes
    """All but id, key and message, as a JSON object."""
    id: str
    """Empty where Rebound is to give one."""
    key: str | Base64 | UnsetType | None
    message: bytes
    """Its JSON: a string in one spelling, any other value as it was written."""
    data: str | Raw
    """The same as a task has it."""
    value: Any = UNSET
    """The same as Python values, where it has been read: nobody else's, so nobody changes it."""

    def task(self) -> Task:
        """The whole."""
        return replace(common(self.terms), id=self.id, message_key=self.key, message_data=self.data)


def by_terms(find: Callable[[bytes], Known]) -> Callable[[bytes], Known]:
    """`find`, which remembers what it returned for terms: nobody may change that."""
    known: dict[bytes, Known] = {}
    taken = 0

    def found(terms: bytes) -> Known:
        nonlocal taken
        one = known.get(terms)
        if one is None:
            one = find(terms)
            if len(terms) <= LONGEST:
                if taken >= ROOM:
                    known.clear()  # what is used often is soon there again
                    taken = 0
                known[terms] = one
                taken += OVERHEAD + 3 * len(terms)  # they stand in what follows from them too
        return one

    return found


def _read(terms: bytes) -> Task:
    task = from_json(terms)
    return task if validation.untouched(task) else validation.parse(terms)


common = by_terms(_read)
"""The task without id, key and message. Raises ValidationError for fields of Rebound's own."""


def of_task(task: Task) -> Draft:
    """Of one that `validation` returned."""
    data: Any = task.message_data
    message = bytes(data) if type(data) is Raw else _encode(data)
    return Draft(_encode(_bare(task)), task.id, task.message_key, message, data)


def of_json(text: bytes) -> Draft:
    """Of a task as JSON. Raises InvalidBody (no JSON) or ValidationError (no valid task)."""
    validation.require_utf8(text)
    try:
        said: Any = _said.decode(text)
        id_, key, data = said.id, said.message_key, said.message_data
        message = bytes(data) if type(data) is Raw else _encode(data)
        if message.startswith(b'"'):
            data = _decode(message)
            message = _encode(data)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return of_task(validation.parse(text))  # says what is wrong, and bears with null
    said.id, said.message_key, said.message_data = "", UNSET, ""
    return Draft(_encode(said), id_, key, message, data)


def of_python(task: Task) -> Draft:
    """Of a task that a program made, checked like JSON. Raises ValidationError."""
    return _come_back(task) or of_task(validation.from_python(task))


def _come_back(task: Task) -> Draft | None:
    """The draft, if what is read from the task's JSON is what was written: a quick yes."""
    if type(task) is not Task or task.state is not None:  # one that Rebound returned says more
        return None
    id_, key, data, bare = task.id, task.message_key, task.message_data, _bare(task)
    try:
        terms, message = _encode(bare), _encode(data)
        value = data if type(data) is str else _decode(message)
        same = value == data and common(terms) == bare
    except (TypeError, ValueError, RecursionError, msgspec.MsgspecError, ReboundError):
        return None
    if not same or not (id_ == "" or (type(id_) is str and _ID.fullmatch(id_))):
        return None
    if not (key is UNSET or key is None or (type(key) is str and key.isascii())):
        return None
    # A member of a StrEnum is a string from here on.
    return Draft(terms, id_, key, message, value if type(value) is str else Raw(message), value)


def _bare(task: Task) -> Task:
    return replace(task, id="", message_key=UNSET, message_data="")
