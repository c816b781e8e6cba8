"""POST /tasks: section 6, in process."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from rebound.adapters.api.app import Api
from rebound.engine import Engine
from tests.support import claimed
from tests.unit.asgi import URL, VALID, Settings, call, make_api, make_engine

DEEP = b"[" * 100_000 + b"]" * 100_000


# -- creating ----------------------------------------------------------------------------------


async def test_a_created_task_is_answered_with_its_id_and_state(api: Api) -> None:
    reply = await call(api, "POST", "/tasks", {**VALID, "id": "order-1"})
    assert reply.status == 201
    assert reply.headers["content-type"] == "application/json"
    answer = reply.json
    assert answer.pop("next_attempt_at", "missing") != "missing"
    assert answer == {
        "message": "Task order-1 scheduled successfully",
        "id": "order-1",
        "state": "scheduled",
        "created": True,
    }


async def test_a_created_task_gets_a_uuid7_where_it_has_no_id(api: Api) -> None:
    for body in (VALID, {**VALID, "id": None}):
        answer = (await call(api, "POST", "/tasks", body)).json
        assert answer["id"][14] == "7"
        assert (await call(api, "GET", f"/tasks/{answer['id']}")).status == 200


async def test_the_creation_answers_the_next_attempt_that_the_store_knows(api: Api) -> None:
    created = (await call(api, "POST", "/tasks", {**VALID, "id": "a", "delay": 90})).json
    known = (await call(api, "GET", "/tasks/a")).json
    assert known["next_attempt_at"] == "2027-01-15T08:01:30.000Z"
    assert created["next_attempt_at"] == known["next_attempt_at"]


async def test_the_same_content_again_answers_200_with_the_stored_values(
    api: Api, engine: Engine
) -> None:
    await call(api, "POST", "/tasks", {**VALID, "id": "a", "delay": 0})
    known = (await call(api, "GET", "/tasks/a")).json
    same = {**VALID, "id": "a", "delay": 0.0, "attempt": 3, "max_retries": 5, "ttl": None}
    reply = await call(api, "POST", "/tasks", same)
    assert (reply.status, reply.json["created"]) == (200, False)
    assert reply.json["next_attempt_at"] == known["next_attempt_at"]
    await claimed(engine.store)
    reply = await call(api, "POST", "/tasks", same)
    assert (reply.status, reply.json["state"]) == (200, "delivering")
    assert reply.json["next_attempt_at"] is None


async def test_other_content_under_a_known_id_is_409(api: Api) -> None:
    await call(api, "POST", "/tasks", {**VALID, "id": "a"})
    for change in ({"message_data": " "}, {"max_retries": 4}, {"source": "other"}):
        reply = await call(api, "POST", "/tasks", {**VALID, "id": "a", **change})
        assert (reply.status, reply.code) == (409, "DUPLICATE_TASK")
    await call(api, "POST", "/tasks", b'{"id":"b","source":"s","destination":{"url":"http://a.b"},'
               b'"message_data":{"a": 1}}')  # fmt: skip
    reply = await call(api, "POST", "/tasks", b'{"id":"b","source":"s",'
                       b'"destination":{"url":"http://a.b"},"message_data":{"a":1}}')  # fmt: skip
    assert reply.status == 409, "the text of message_data counts"


async def test_a_task_without_attempts_left_starts_dead(api: Api) -> None:
    reply = await call(api, "POST", "/tasks", {**VALID, "failures": 5, "max_retries": 5})
    assert (reply.status, reply.json["state"]) == (201, "dead")
    assert reply.json["next_attempt_at"] is None


# -- Idempotency-Key ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("header", "id_"),
    [
        ("abc", "abc"),
        ('"abc"', "abc"),
        (' "a b"', None),
        (r'"a\"b\\c"', 'a"b\\c'),
        ('"abc";p=1', "abc"),
        ("a;b,c", "a;b,c"),
        ('"abc', None),
        (r'"a\bc"', None),
        ('""', None),
        ("", None),
        ("a b", None),
        ("é", None),
        ("x" * 255, "x" * 255),
        ("x" * 256, None),
    ],
)
async def test_an_idempotency_key_becomes_the_id(api: Api, header: str, id_: str | None) -> None:
    reply = await call(api, "POST", "/tasks", VALID, {"Idempotency-Key": header})
    if id_ is None:
        assert (reply.status, reply.code) == (400, "VALIDATION_ERROR")
        assert "Idempotency-Key" in reply.error
    else:
        assert (reply.status, reply.json["id"]) == (201, id_)


async def test_a_repeat_with_the_same_idempotency_key_creates_nothing(api: Api) -> None:
    first = await call(api, "POST", "/tasks", VALID, {"Idempotency-Key": "k"})
    again = await call(api, "POST", "/tasks", VALID, {"Idempotency-Key": '"k"'})
    other = await call(api, "POST", "/tasks", {**VALID, "source": "x"}, {"Idempotency-Key": "k"})
    assert (first.status, again.status, other.status) == (201, 200, 409)


async def test_an_id_in_the_body_wins_over_the_idempotency_key(api: Api) -> None:
    for header in ("other", "not valid"):
        reply = await call(api, "POST", "/tasks", {**VALID, "id": "a"}, {"Idempotency-Key": header})
        assert reply.json["id"] == "a"


# -- bodies ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "kind",
    [
        "application/json", "Application/JSON; charset=utf-8", "application/json;charset=latin-1",
        "application/cloudevents+json", "application/vnd.api+JSON ; v=1", "",
        "application/x-www-form-urlencoded",
    ],
)  # fmt: skip
async def test_json_is_accepted_by_these_content_types(api: Api, kind: str) -> None:
    assert (await call(api, "POST", "/tasks", VALID, {"Content-Type": kind})).status == 201


@pytest.mark.parametrize(
    "kind",
    [
        "text/plain", "application/jsonp", "text/json", "application/xml", "multipart/form-data",
        "application/+json", "application/json, text/plain", "x application/json", "application",
    ],
)  # fmt: skip
async def test_any_other_content_type_is_415(api: Api, kind: str) -> None:
    for path in ("/tasks", "/tasks/batch"):
        reply = await call(api, "POST", path, VALID, {"Content-Type": kind})
        assert (reply.status, reply.code) == (415, "UNSUPPORTED_MEDIA_TYPE")
        assert "Content-Type" in reply.error


@pytest.mark.parametrize(
    "body",
    [
        b"", b" ", b"{", b"nonsense", b"{'source': 1}", b'{"source": "a",}', b"\xff\xfe", b"{} {}",
        b'{"source": "\xff", "destination": {"url": "http://a.b"}}', b'{"ttl": NaN}', DEEP,
        b'{"source": "s", "destination": {"url": "http://a.b"}, "message_data": ' + DEEP + b"}",
        b'{"source": "s", "destination": {"url": "http://a.b"}, "message_data": "\xed\xa0\x80"}',
    ],
)  # fmt: skip
async def test_what_is_not_json_in_utf8_is_400_invalid_body(api: Api, body: bytes) -> None:
    for path in ("/tasks", "/tasks/batch"):
        reply = await call(api, "POST", path, body)
        assert (reply.status, reply.code) == (400, "INVALID_BODY")


@pytest.mark.parametrize(
    ("change", "names"),
    [
        ({"source": 5}, "source"),
        ({"destination": None}, "destination"),
        ({"max_retries": "5"}, "max_retries"),
        ({"max_retries": 5.0}, "max_retries"),
        ({"is_priority": 1}, "is_priority"),
        ({"base_delay": True}, "base_delay"),
        ({"base_dealy": 1}, "base_delay"),
        ({"state": "dead"}, "state"),
        ({"id": "a b"}, "id"),
        ({"destination": {"url": "gopher://x"}}, "destination.url"),
        ({"dead_destination": {"url": "x"}}, "dead_destination.url"),
        ({"destination_type": "kafka"}, "destination_type"),
        ({"message_encoding": "base64", "message_data": "%"}, "message_data"),
    ],
)
async def test_an_invalid_task_is_400_and_names_the_field(
    api: Api, change: dict[str, Any], names: str
) -> None:
    reply = await call(api, "POST", "/tasks", {**VALID, **change})
    assert (reply.status, reply.code) == (400, "VALIDATION_ERROR")
    assert names in reply.error


@pytest.mark.parametrize("body", [b"null", b"[]", b"5", b'"text"'])
async def test_json_that_is_no_object_is_400_validation_error(api: Api, body: bytes) -> None:
    assert (await call(api, "POST", "/tasks", body)).code == "VALIDATION_ERROR"


async def test_call_destinations_need_a_setting(engine: Engine) -> None:
    for member in ("destination", "dead_destination"):
        body = {**VALID, member: {"url": "CALL://handler"}}
        reply = await call(make_api(engine), "POST", "/tasks", body)
        assert (reply.status, reply.code) == (400, "VALIDATION_ERROR")
        assert f"{member}.url" in reply.error
        assert "CALL_OVER_HTTP" in reply.error
        on = make_api(engine, Settings(call_over_http=True))
        assert (await call(on, "POST", "/tasks", body)).status == 201


@pytest.mark.parametrize(
    ("message", "status"),
    [
        ({"message_data": "x" * 100}, 201),
        ({"message_data": "x" * 101}, 413),
        ({"message_data": "é" * 50}, 201),
        ({"message_data": "é" * 51}, 413),
        ({"message_data": "eHh4" * 33, "message_encoding": "base64"}, 201),
        ({"message_data": "eHh4" * 34, "message_encoding": "base64"}, 413),
        ({"message_data": ["x" * 96]}, 201),
        ({"message_data": ["x" * 97]}, 413),
        ({"message_data": "x" * 101, "max_retries": "5"}, 413),
        ({"message_data": "x" * 101, "destination": {"url": "nowhere"}}, 413),
        ({"message_data": "x" * 100, "client_id": 5}, 400),
        ({"source": "x" * 200, "message_data": "%", "message_encoding": "base64"}, 400),
        ({"source": "x" * 200, "message_data": 5, "max_retries": "5"}, 400),
    ],
)
async def test_each_decoded_message_is_limited_before_anything_else_is_looked_at(
    engine: Engine, message: dict[str, Any], status: int
) -> None:
    settings = Settings(max_payload_bytes=100)
    app = make_api(make_engine(engine.store, settings), settings)
    assert (await call(app, "POST", "/tasks", {**VALID, **message})).status == status
    batch = await call(app, "POST", "/tasks/batch", {"tasks": [{**VALID, **message}]})
    assert batch.json["results"][0]["status"] == status


async def test_bodies_are_limited_to_twice_the_message_and_64_kib_more(engine: Engine) -> None:
    settings = Settings(max_payload_bytes=100)
    app = make_api(make_engine(engine.store, settings), settings)
    body = msgspec.json.encode(VALID)
    fits = body + b" " * (200 + 65_536 - len(body))
    for headers in ({}, {"Content-Length": str(len(fits) + 1)}):
        assert (await call(app, "POST", "/tasks", fits)).status == 201
        reply = await call(app, "POST", "/tasks", fits + b" ", headers)
        assert (reply.status, reply.code) == (413, "PAYLOAD_TOO_LARGE")
        reply = await call(app, "POST", "/tasks/a/replay", fits + b" ", headers)
        assert reply.status == 413


async def test_the_destination_may_be_the_originals_host_port_and_topic(api: Api) -> None:
    body = {**VALID, "id": "k", "destination": {"host": "h", "port": "9092", "topic": "t"}}
    assert (await call(api, "POST", "/tasks", body)).status == 201
    assert URL not in (await call(api, "GET", "/tasks/k")).body.decode()
