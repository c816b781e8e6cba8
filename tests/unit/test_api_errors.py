"""The order of errors, and those that are not the caller's: section 6, in process."""

from __future__ import annotations

import logging
from typing import Any

import pytest

from rebound.adapters.api.app import Api
from rebound.domain.errors import StoreFull
from rebound.engine import Engine
from tests.unit.asgi import VALID, Settings, call, make_api, make_engine


async def test_errors_are_decided_in_order(engine: Engine, lost_engine: Engine) -> None:
    settings = Settings(max_payload_bytes=10)
    app = make_api(make_engine(engine.store, settings), settings)
    await call(app, "POST", "/tasks", {**VALID, "id": "a"})
    long = b"x" * 70_000
    wrong = {"Content-Type": "text/plain"}
    foreign = {"Sec-Fetch-Site": "cross-site", **wrong}
    table: list[tuple[str, str, Any, dict[str, str], int]] = [
        ("PUT", "/nothing", long, foreign, 404),
        ("PUT", "/tasks", long, foreign, 405),
        ("POST", "/tasks", long, foreign, 403),
        ("POST", "/tasks", long, wrong, 413),
        ("POST", "/tasks", b"{", wrong, 415),
        ("POST", "/tasks", b"{", {}, 400),
        ("POST", "/tasks", {**VALID, "id": "a", "ttl": 5, "delay": -1}, {}, 400),
        ("POST", "/tasks", {**VALID, "id": "a", "ttl": 5, "message_data": "x" * 11}, {}, 413),
        ("POST", "/tasks", {**VALID, "id": "a", "ttl": 5}, {}, 409),
    ]
    for method, path, body, headers, status in table:
        assert (await call(app, method, path, body, headers)).status == status, (path, status)
    lost = make_api(lost_engine)
    assert (await call(lost, "POST", "/tasks", {**VALID, "ttl": -1})).status == 400
    assert (await call(lost, "POST", "/tasks", VALID)).status == 503


async def test_a_lost_store_is_503_with_retry_after_and_no_details(lost_api: Api) -> None:
    calls: list[tuple[str, str, Any]] = [
        ("POST", "/tasks", VALID),
        ("POST", "/tasks/batch", {"tasks": [VALID]}),
        ("GET", "/tasks", b""),
        ("GET", "/tasks/a", b""),
        ("DELETE", "/tasks/a", b""),
        ("POST", "/tasks/a/replay", b""),
        ("POST", "/tasks/a/cancel", b""),
    ]
    for method, path, body in calls:
        reply = await call(lost_api, method, path, body)
        assert (reply.status, reply.code) == (503, "STORE_UNAVAILABLE")
        assert reply.headers["retry-after"] == "1"
        assert "/dev/null" not in reply.error


async def test_a_full_store_says_so(
    api: Api, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def full(*_: Any) -> Any:
        raise StoreFull("Redis at 10.0.0.1 has reached its maxmemory")

    monkeypatch.setattr(engine.store, "add", full)
    reply = await call(api, "POST", "/tasks", VALID)
    assert (reply.status, reply.error) == (503, str(StoreFull()))


async def test_a_closed_engine_is_503_as_well(api: Api, engine: Engine) -> None:
    engine.closed = True
    reply = await call(api, "POST", "/tasks", VALID)
    assert (reply.status, reply.code) == (503, "STORE_UNAVAILABLE")


async def test_a_bug_is_500_and_only_the_log_has_the_details(
    engine: Engine, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def broken(_: str) -> None:
        raise ZeroDivisionError("the details")

    monkeypatch.setattr(engine.store, "get", broken)
    with caplog.at_level(logging.ERROR, logger="rebound"):
        reply = await call(make_api(engine), "GET", "/tasks/a")
    assert (reply.status, reply.code) == (500, "INTERNAL")
    assert b"ZeroDivision" not in reply.body
    assert "ZeroDivisionError: the details" in caplog.text


async def test_a_connection_that_is_gone_when_the_answer_comes_is_no_bug(api: Api) -> None:
    scope = {
        "type": "http", "method": "GET", "raw_path": b"/livez", "query_string": b"", "headers": [],
    }  # fmt: skip

    async def receive() -> dict[str, Any]:
        return {"type": "http.request"}

    async def send(message: Any) -> None:
        raise RuntimeError("the handler is closed")

    await api(scope, receive, send)
