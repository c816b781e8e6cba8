"""Tasks as JSON, on their way through the one door."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import pytest
from msgspec.structs import replace

from rebound.domain import validation
from rebound.domain.errors import ValidationError
from rebound.domain.task import Task

VALID: Mapping[str, Any] = {"source": "tests", "destination": {"url": "http://a.test/hook"}}
LIMIT = 1_048_576


def parse(**fields: Any) -> Task:
    return validation.parse(json.dumps({**VALID, **fields}).encode())


def parse_text(member: str) -> Task:
    """With one more member, written as JSON text."""
    return validation.parse(b"%s, %s}" % (json.dumps(VALID).encode()[:-1], member.encode()))


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
    return validation.digest(replace(checked(**fields), id="t"))
