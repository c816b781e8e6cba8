"""Tasks as JSON, on their way through the one door."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

import pytest
from msgspec.structs import replace

from rebound.domain import drafts, meaning, validation
from rebound.domain.drafts import Draft
from rebound.domain.errors import ReboundError, ValidationError
from rebound.domain.task import Task

VALID: Mapping[str, Any] = {"source": "tests", "destination": {"url": "http://a.test/hook"}}
LIMIT = 1_048_576


def outcome(take: Callable[[Any], Any], given: object) -> Any:
    """What `take` returns, or what is said of the error that it raises."""
    try:
        return take(given)
    except ReboundError as error:
        return type(error), str(error), getattr(error, "field", None)


def read(text: bytes) -> Task:
    """What comes of `text`, which is the same as a whole and as a draft."""
    draft = outcome(drafts.of_json, text)
    if not isinstance(draft, Draft):
        assert draft == outcome(validation.parse, text)
    task = validation.parse(text)
    assert draft == drafts.of_task(task)
    assert draft.task() == task
    return task


def taken(given: Task) -> Task:
    """What comes of a task, which is the same as a whole and as a draft."""
    draft = outcome(drafts.of_python, given)
    if not isinstance(draft, Draft):
        assert draft == outcome(validation.from_python, given)
    task = validation.from_python(given)
    assert draft.task() == task
    return task


def parse(**fields: Any) -> Task:
    return read(json.dumps({**VALID, **fields}).encode())


def parse_text(member: str) -> Task:
    """With one more member, written as JSON text."""
    return read(b"%s, %s}" % (json.dumps(VALID).encode()[:-1], member.encode()))


def checked(**fields: Any) -> Task:
    return validation.check(parse(**fields), max_payload=LIMIT)


def refused(**fields: Any) -> ValidationError:
    """The one error of these fields; it names the field it says it is about."""
    with pytest.raises(ValidationError) as caught:
        checked(**fields)
    error = caught.value
    assert error.field is None or str(error).startswith(f"{error.field}: ")
    return error


def digest(**fields: Any) -> bytes:
    return meaning.digest(replace(checked(**fields), id="t"))
