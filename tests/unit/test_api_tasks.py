"""Batches, and tasks as they are answered, listed and changed: section 6, in process."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest

from rebound.adapters.api import view
from rebound.adapters.api.app import Api
from rebound.domain.task import Task
from rebound.engine import Engine
from tests.conftest import Clock
from tests.support import claimed, fail, succeed
from tests.unit.asgi import VALID, Settings, call, make_api

FIELDS = {
    "id", "source", "destination", "dead_destination", "destination_type", "max_retries",
    "base_delay", "delay", "backoff", "ttl", "failures", "client_id", "is_priority",
    "message_data", "message_encoding", "message_key", "lane", "attempt", "state", "leg",
    "created_at", "updated_at", "finished_at", "next_attempt_at", "dead_reason", "dead_letter",
    "last_error", "attempts",
}  # fmt: skip


async def shown(api: Api, body: Any) -> dict[str, Any]:
    """The task as answered after it was created from `body`."""
    created = await call(api, "POST", "/tasks", body)
    assert created.status == 201, created.error
    task: dict[str, Any] = (await call(api, "GET", f"/tasks/{created.json['id']}")).json
    return task


# -- batches -----------------------------------------------------------------------------------


async def test_a_batch_answers_each_task_in_order(engine: Engine) -> None:
    api = make_api(engine, Settings(max_payload_bytes=1000))
    await call(api, "POST", "/tasks", {**VALID, "id": "known"})
    tasks = [
        {**VALID, "id": "new"}, {**VALID, "id": "known"}, {**VALID, "id": "known", "ttl": 1},
        {**VALID, "id": "bad", "ttl": "1"}, {**VALID, "id": 5}, None, [], {**VALID, "id": "new"},
        {**VALID, "id": "call", "destination": {"url": "call://x"}}, VALID,
    ]  # fmt: skip
    reply = await call(api, "POST", "/tasks/batch", {"tasks": tasks})
    assert reply.status == 200
    results = reply.json["results"]
    assert [r["status"] for r in results] == [201, 200, 409, 400, 400, 400, 400, 200, 400, 201]
    assert [r["id"] for r in results[:-1]] == [
        "new", "known", "known", "bad", None, None, None, "new", "call"
    ]  # fmt: skip
    assert set(results[0]) == {"id", "status"}
    assert results[2]["code"] == "DUPLICATE_TASK"
    assert results[3]["code"] == "VALIDATION_ERROR"
    assert "ttl" in results[3]["error"]
    assert (await call(api, "GET", f"/tasks/{results[-1]['id']}")).status == 200


@pytest.mark.parametrize(
    "body",
    [
        {}, {"tasks": []}, {"tasks": None}, {"tasks": {}}, {"tasks": "x"}, [], None,
        {"tasks": [VALID], "extra": 1}, {"tasks": [VALID] * 1001}, {"tasks": [None] * 100_000},
    ],
)  # fmt: skip
async def test_what_is_no_batch_is_400_and_names_the_member(api: Api, body: Any) -> None:
    reply = await call(api, "POST", "/tasks/batch", body)
    assert (reply.status, reply.code) == (400, "VALIDATION_ERROR")
    assert ("extra" if body and "extra" in body else "tasks") in reply.error
    assert (await call(api, "GET", "/tasks")).json["tasks"] == []


async def test_a_lone_surrogate_in_a_batch_stops_only_its_task(api: Api) -> None:
    good = {**VALID, "message_data": "\U0001f600 \\ud800"}
    bad = {**VALID, "message_data": "\ud800"}
    body = json.dumps({"tasks": [good, bad, {**VALID, "source": "\udfffx"}, good]})
    results = (await call(api, "POST", "/tasks/batch", body.encode())).json["results"]
    assert [r["status"] for r in results] == [201, 400, 400, 201]
    assert {r["code"] for r in results[1:3]} == {"INVALID_BODY"}
    assert all("lone surrogate" in r["error"] for r in results[1:3])
    stored = (await call(api, "GET", f"/tasks/{results[0]['id']}")).json
    assert stored["message_data"] == good["message_data"]


async def test_a_batch_of_more_than_a_thousand_says_so(api: Api) -> None:
    reply = await call(api, "POST", "/tasks/batch", {"tasks": [VALID] * 1001})
    assert reply.error == "tasks: holds more than 1000 tasks"


async def test_a_batch_may_hold_a_thousand_tasks(api: Api) -> None:
    tasks = [{**VALID, "id": f"t{n}"} for n in range(1000)]
    results = (await call(api, "POST", "/tasks/batch", {"tasks": tasks})).json["results"]
    assert [r["id"] for r in results] == [f"t{n}" for n in range(1000)]
    assert {r["status"] for r in results} == {201}


async def test_a_batch_is_limited_by_its_own_setting(engine: Engine) -> None:
    app = make_api(engine, Settings(max_payload_bytes=1, max_batch_bytes=100_000))
    body = msgspec.json.encode({"tasks": [VALID]})
    fits = body + b" " * (100_000 - len(body))
    assert (await call(app, "POST", "/tasks/batch", fits)).status == 200
    assert (await call(app, "POST", "/tasks/batch", fits + b" ")).code == "PAYLOAD_TOO_LARGE"


# -- a task as answered ------------------------------------------------------------------------


async def test_every_field_is_there_with_what_counts_where_it_was_not_given(api: Api) -> None:
    task = await shown(api, {**VALID, "id": "a"})
    assert set(task) == FIELDS
    assert task == {
        **dict.fromkeys(FIELDS),
        "id": "a", "source": "tests", "destination": VALID["destination"],
        "destination_type": "http", "max_retries": 5, "base_delay": 10,
        "backoff": {"strategy": "exponential"}, "failures": 0, "client_id": "",
        "is_priority": False, "message_data": "", "message_encoding": "text", "message_key": "a",
        "lane": "http://one.test", "state": "scheduled", "leg": "main", "attempt": 0,
        "created_at": "2027-01-15T08:00:00.000Z", "updated_at": "2027-01-15T08:00:00.000Z",
        "next_attempt_at": "2027-01-15T08:00:10.000Z", "attempts": [],
    }  # fmt: skip


async def test_what_was_set_comes_back_as_it_was_set(api: Api) -> None:
    given = {
        "id": "a/b?c", "source": "ö", "dead_destination": {"host": "h", "port": 9092, "topic": "t"},
        "destination": {
            "url": "https://x.test/é", "method": "PUT", "headers": {"A": "b"}, "timeout": 5,
            "fatal_statuses": [404, "5xx"],
        },
        "destination_type": "http", "max_retries": 7, "base_delay": 0.5, "delay": 3, "ttl": 60,
        "backoff": {"strategy": "schedule", "schedule": [1, 2.5], "jitter": 0.5}, "failures": 2,
        "client_id": "me", "is_priority": True, "message_encoding": "base64",
        "message_data": "eA==", "message_key": {"base64": "eA=="}, "lane": "mine",
    }  # fmt: skip
    created = await call(api, "POST", "/tasks", given)
    assert created.status == 201, created.error
    reply = await call(api, "GET", "/tasks/a%2Fb%3Fc")
    assert {k: reply.json[k] for k in given} == given
    assert b'"timeout":5,' in reply.body
    assert b'"delay":3,' in reply.body


@pytest.mark.parametrize(
    "text", ['{ "a" : [1.0, 1e2, "\\u00e9"] }', "null", "[ ]", '"\\u00e9"', "0.10", "true"]
)
async def test_message_data_is_the_json_value_that_was_received(api: Api, text: str) -> None:
    body = b'{"id":"a","source":"s","destination":{"url":"http://a.b"},"message_data":%s}'
    await call(api, "POST", "/tasks", body % text.encode())
    reply = await call(api, "GET", "/tasks/a")
    expected = text if text[0] != '"' else '"é"'
    assert b'"message_data":%s,' % expected.encode() in reply.body


async def test_a_null_key_stays_null_and_a_given_lane_counts_on_the_main_leg(api: Api) -> None:
    kafka = {"url": "kafka://h:1/t", "headers": [["a", "b"], ["api_key", "c"], ["n", None]]}
    task = await shown(api, {**VALID, "destination": kafka, "message_key": None})
    assert task["message_key"] is None
    assert (task["destination_type"], task["lane"]) == ("kafka", "kafka://h:1/t")
    assert task["destination"]["headers"] == [["a", "b"], ["api_key", "***"], ["n", None]]


async def test_secrets_are_never_shown(api: Api) -> None:
    where = {
        "url": "https://user:hush@x.test/p",
        "headers": {"Authorization": "hush", "X-My-Token": "hush", "Accept": "text/plain"},
    }
    await call(api, "POST", "/tasks", {**VALID, "destination": where, "dead_destination": where})
    (listed,) = (await call(api, "GET", "/tasks")).json["tasks"]
    for task in (listed, (await call(api, "GET", f"/tasks/{listed['id']}")).json):
        for leg in ("destination", "dead_destination"):
            assert task[leg]["url"] == "https://***@x.test/p"
            assert task[leg]["headers"] == {
                "Authorization": "***", "X-My-Token": "***", "Accept": "text/plain"
            }  # fmt: skip


async def test_attempts_are_counted_and_shown_while_a_task_goes_on_its_way(
    api: Api, engine: Engine, clock: Clock
) -> None:
    body = {
        **VALID,
        "id": "a",
        "delay": 0,
        "max_retries": 2,
        "dead_destination": {"url": "http://d.e"},
    }
    await call(api, "POST", "/tasks", body)
    (leased,) = await claimed(engine.store)
    task = (await call(api, "GET", "/tasks/a")).json
    assert (task["state"], task["attempt"], task["next_attempt_at"]) == ("delivering", 1, None)

    await engine.store.settle([fail(leased, clock())])
    task = (await call(api, "GET", "/tasks/a")).json
    assert (task["state"], task["attempt"]) == ("scheduled", 1)
    assert task["next_attempt_at"] == "2027-01-15T08:00:20.000Z"
    (attempt,) = task["attempts"]
    assert attempt == {
        "leg": "main", "number": 1, "started_at": "2027-01-15T08:00:00.000Z", "duration_ms": 10.0,
        "outcome": "failed", "status": 500, "error": "HTTP 500", "response": None,
    }  # fmt: skip
    assert task["last_error"] == "HTTP 500"

    clock.advance(20)
    (leased,) = await claimed(engine.store)
    await engine.store.settle([fail(leased, clock())])
    (leased,) = await claimed(engine.store)
    task = (await call(api, "GET", "/tasks/a")).json
    assert (task["state"], task["leg"], task["attempt"]) == ("delivering", "dead", 2)
    assert (task["dead_reason"], task["lane"]) == ("exhausted", "http://one.test")
    await engine.store.settle([succeed(leased, clock())])
    task = (await call(api, "GET", "/tasks/a")).json
    assert (task["state"], task["dead_letter"], task["finished_at"]) == (
        "dead", "delivered", "2027-01-15T08:00:20.000Z"
    )  # fmt: skip
    assert [a["leg"] for a in task["attempts"]] == ["main", "main", "dead"]


async def test_of_a_stub_only_id_state_and_times_are_known(
    api: Api, engine: Engine, clock: Clock
) -> None:
    await call(api, "POST", "/tasks", {**VALID, "id": "a", "delay": 0})
    (leased,) = await claimed(engine.store)
    await engine.store.settle([succeed(leased, clock())])
    clock.advance(3601)
    await call(api, "POST", "/tasks", {**VALID, "id": "b", "delay": 0})
    await claimed(engine.store)
    reply = await call(api, "GET", "/tasks/a")
    at = "2027-01-15T08:00:00.000Z"
    times = {"created_at": at, "updated_at": at, "finished_at": at}
    assert reply.json == {**dict.fromkeys(FIELDS), "id": "a", "state": "succeeded", **times}
    again = await call(api, "POST", "/tasks", {**VALID, "id": "a", "delay": 0})
    assert (again.status, again.json["state"]) == (200, "succeeded")


def test_of_what_cannot_be_read_no_secret_is_shown() -> None:
    from rebound.adapters.stores.records import unreadable

    task = unreadable("a", b'{"Authorization": "hush"}', created_at=1.0, now=2.0)
    shown = msgspec.to_builtins(view.whole(task))
    assert (shown["state"], shown["dead_reason"]) == ("dead", "unreadable")
    assert shown["source"] is shown["destination"] is shown["message_data"] is None
    assert b"hush" not in view.encode(shown)


# -- changes -----------------------------------------------------------------------------------


async def settled(engine: Engine, clock: Clock, change: Any) -> Task:
    (leased,) = await claimed(engine.store)
    await engine.store.settle([change(leased, clock())])
    return leased


async def test_a_scheduled_task_can_be_cancelled_and_a_cancelled_one_replayed(api: Api) -> None:
    await call(api, "POST", "/tasks", {**VALID, "id": "a/b"})
    reply = await call(api, "POST", "/tasks/a%2Fb/cancel", b"ignored", {"Content-Type": "x/y"})
    assert (reply.status, reply.code) == (415, "UNSUPPORTED_MEDIA_TYPE")
    reply = await call(api, "POST", "/tasks/a%2Fb/cancel", b"", {"Content-Type": "x/y"})
    assert (reply.status, reply.json["state"], set(reply.json)) == (200, "cancelled", FIELDS)
    assert (await call(api, "POST", "/tasks/a%2Fb/cancel")).code == "WRONG_STATE"
    reply = await call(api, "POST", "/tasks/a%2fb/replay", b"{")
    assert (reply.status, reply.json["state"], reply.json["attempt"]) == (200, "scheduled", 0)
    assert reply.json["next_attempt_at"] == "2027-01-15T08:00:00.000Z"
    assert (await call(api, "POST", "/tasks/a%2Fb/replay")).code == "WRONG_STATE"


async def test_a_task_under_way_is_busy(api: Api, engine: Engine) -> None:
    await call(api, "POST", "/tasks", {**VALID, "id": "a", "delay": 0})
    await claimed(engine.store)
    reply = await call(api, "POST", "/tasks/a/cancel")
    assert (reply.status, reply.code) == (409, "TASK_BUSY")
    for method, path in (("POST", "/tasks/a/replay"), ("DELETE", "/tasks/a")):
        reply = await call(api, method, path)
        assert (reply.status, reply.code) == (409, "WRONG_STATE")


async def test_a_finished_task_can_be_deleted(api: Api, engine: Engine, clock: Clock) -> None:
    await call(api, "POST", "/tasks", {**VALID, "id": "a", "delay": 0})
    assert (await call(api, "DELETE", "/tasks/a")).code == "WRONG_STATE"
    await settled(engine, clock, succeed)
    reply = await call(api, "DELETE", "/tasks/a")
    assert (reply.status, reply.body, reply.headers) == (204, b"", {})
    assert (await call(api, "DELETE", "/tasks/a")).code == "NOT_FOUND"


async def test_an_unknown_task_is_404(api: Api) -> None:
    for method, path in (
        ("GET", "/tasks/a"), ("DELETE", "/tasks/a"), ("POST", "/tasks/a/replay"),
        ("POST", "/tasks/a/cancel"),
    ):  # fmt: skip
        reply = await call(api, method, path)
        assert (reply.status, reply.code) == (404, "NOT_FOUND")
