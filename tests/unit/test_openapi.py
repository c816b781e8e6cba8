"""The OpenAPI document: valid, current, and about exactly the calls and types there are."""

from __future__ import annotations

import contextlib
import io
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from openapi_spec_validator import OpenAPIV31SpecValidator, validate

from rebound.adapters.api import docs, openapi
from rebound.adapters.api.app import Api
from rebound.domain.destination import Destination
from rebound.domain.errors import ValidationError
from rebound.domain.explaining import ENGINE_FIELDS
from rebound.domain.task import Task
from tests.unit.asgi import VALID, call, document, validator

SNAPSHOT = Path(__file__).parents[2] / "openapi.yaml"


def schemas() -> dict[str, Any]:
    found: dict[str, Any] = document()["components"]["schemas"]
    return found


def test_the_document_is_valid_openapi_3_1() -> None:
    validate(document(), cls=OpenAPIV31SpecValidator)


def test_the_snapshot_is_current() -> None:
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        openapi.main()
    assert SNAPSHOT.read_text() == printed.getvalue(), (
        "run: python -m rebound.adapters.api.openapi > openapi.yaml"
    )
    assert yaml.safe_load(printed.getvalue()) == document()


async def test_exactly_the_calls_that_exist_are_described(api: Api) -> None:
    for path, operations in document()["paths"].items():
        reply = await call(api, "TRACE", path.replace("{id}", "a"))
        allowed = set(reply.headers["allow"].lower().split(", ")) - {"head"}
        assert allowed == set(operations)


def test_every_operation_has_a_name_of_its_own_and_says_what_it_answers() -> None:
    operations = [o for path in document()["paths"].values() for o in path.values()]
    assert len({o["operationId"] for o in operations}) == len(operations) == 14
    for operation in operations:
        assert {"403", "500"} < set(operation["responses"])


def test_callers_may_send_exactly_their_own_fields() -> None:
    own = [f for f in Task.__struct_fields__ if f not in ENGINE_FIELDS]
    assert list(schemas()["Task"]["properties"]) == own
    assert set(schemas()["Task"]["required"]) == {"source", "destination"}


def objects(part: Any) -> Iterator[dict[str, Any]]:
    if isinstance(part, dict):
        if "properties" in part and part.get("type") == "object":
            yield part
        part = list(part.values())
    if isinstance(part, list):
        for inner in part:
            yield from objects(inner)


def test_no_object_takes_further_members_and_answers_have_all_of_theirs() -> None:
    for schema in objects(schemas()):
        assert schema["additionalProperties"] is False
    for name in ("TaskView", "TaskSummary", "Page", "Scheduled", "AttemptView", "Error"):
        assert set(schemas()[name]["required"]) == set(schemas()[name]["properties"])
    left_out = set(schemas()["TaskView"]["properties"]) - set(
        schemas()["TaskSummary"]["properties"]
    )
    assert left_out == {"message_data", "attempts"}


@pytest.mark.parametrize(
    ("change", "valid"),
    [
        ({}, True),
        ({name: None for name in schemas()["Task"]["properties"] if name not in VALID}, True),
        ({"destination": {"url": "http://a.b", "method": None, "port": None}}, True),
        ({"backoff": {"strategy": None, "jitter": 0.5}}, True),
        ({"id": "a b"}, False),
        ({"id": ""}, False),
        ({"source": None}, False),
        ({"source": "a\nb"}, False),
        ({"destination": None}, False),
        ({"destination": {"url": "http://a.b", "method": "HEAD"}}, False),
        ({"destination_type": "amqp"}, False),
        ({"message_encoding": "hex"}, False),
        ({"max_retries": 101}, False),
        ({"max_retries": "5"}, False),
        ({"unknown": 1}, False),
        ({"state": "dead"}, False),
        ({"backoff": {"unknown": 1}}, False),
        ({"message_key": 5}, False),
        ({"destination": {}}, False),
        ({"destination": {"url": "http://a.b", "topic": "t"}}, False),
        ({"destination": {"url": "http://a.b", "partition": 1}}, False),
        ({"destination": {"url": "http://a.b", "headers": {"A\nB": "c"}}}, False),
        ({"destination": {"url": "ftp://a.b"}}, False),
        ({"destination": {"url": "call://name"}}, False),
        ({"destination": {"url": "kafka://h:1,[::1]:65535/t", "partition": 1}}, True),
        ({"destination": {"url": "kafka://h:65536/t"}}, False),
        ({"destination": {"url": "kafka://h/.."}}, False),
        ({"destination": {"host": "h", "port": "9092", "topic": "t"}}, True),
        ({"destination": {"host": "h", "port": "1,i:2", "topic": "t"}}, False),
        ({"destination": {"host": "h", "topic": "t", "timeout": 1}}, False),
        ({"destination_type": "kafka"}, False),
        ({"destination_type": "kafka", "destination": {"url": "kafka:///t"}}, True),
        ({"dead_destination": {"url": "", "host": None}}, True),
        ({"dead_destination": {"method": "PUT"}}, False),
        ({"backoff": {"strategy": "schedule"}}, False),
        ({"backoff": {"schedule": [1]}}, False),
        ({"backoff": {"strategy": "schedule", "schedule": [1]}}, True),
        ({"backoff": {"strategy": "own"}}, False),
        ({"message_encoding": "base64", "message_data": "AAA"}, False),
        ({"message_encoding": "base64", "message_data": 5}, False),
        ({"message_key": {"base64": "AAAA="}}, False),
    ],
)
async def test_the_described_types_are_those_that_validate(
    api: Api, change: dict[str, Any], valid: bool
) -> None:
    body = {**VALID, **change}
    assert validator("Task").is_valid(body) is valid
    assert ((await call(api, "POST", "/tasks", body)).status == 201) is valid


@pytest.mark.parametrize(
    "url",
    ["https://0", "HTTP://127.1/a", "http://u:p@017.1", "http://a.b.0x7f:80/", "http://1.2.3?q",
     "http://h/0", "http://0.a/", "http://127.0.0.1:80/1", "http://u@10.0.0.1", "http://[::1]/7"],
)  # fmt: skip
def test_the_described_urls_are_those_that_validate(url: str) -> None:
    pattern = schemas()["HttpDestination"]["properties"]["url"]["pattern"]
    try:
        Destination(url=url).check("destination")
        valid = True
    except ValidationError:
        valid = False
    assert bool(re.search(pattern, url)) is valid


def test_the_page_escapes_what_it_shows() -> None:
    hostile = {
        **document(),
        "info": {**document()["info"], "title": "<script>", "description": '`<b>` & "x"'},
    }
    page = docs.render(hostile)
    assert "<script>" not in page
    assert "<code>&lt;b&gt;</code> &amp; &quot;x&quot;" in page
