"""What callers write into tasks forges no header, takes the place of none, and tells no secret."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import pytest

from rebound import Config, Destination, Rebound, Task
from rebound.adapters.api.app import Api
from rebound.domain.errors import ValidationError
from tests.conftest import free_port
from tests.receiver import receiving
from tests.unit import asgi
from tests.unit.asgi import call

SECRET = "hunter2"
EVIL = ["\r\nX-Evil: 1", "\n", "\r", "\0", "\x0b", "\x7f", "\x1b[2J"]


@pytest.mark.parametrize("evil", EVIL, ids=ascii)
@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("id", lambda evil: f"a{evil}"),
        ("source", lambda evil: f"a{evil}"),
        ("lane", lambda evil: f"a{evil}"),
        ("destination", lambda evil: {"url": f"http://a.test/{evil}"}),
        ("destination", lambda evil: {"url": f"http://a.test{evil}/"}),
        ("destination", lambda evil: {"url": f"http://u{evil}@a.test/"}),
        ("destination", lambda evil: {"url": asgi.URL, "headers": {f"X-A{evil}": "b"}}),
        ("destination", lambda evil: {"url": asgi.URL, "headers": {"X-A": f"b{evil}"}}),
        ("destination", lambda evil: {"url": asgi.URL, "method": f"POST{evil}"}),
        ("destination", lambda evil: {"host": f"a{evil}", "port": "1", "topic": "t"}),
        ("destination", lambda evil: {"host": "a", "port": f"1{evil}", "topic": "t"}),
        ("destination", lambda evil: {"host": "a", "port": "1", "topic": f"t{evil}"}),
        ("dead_destination", lambda evil: {"url": f"http://a.test/{evil}"}),
    ],
)
async def test_line_ends_and_control_characters_are_refused(
    field: str, value: Any, evil: str, api: Api
) -> None:
    reply = await call(api, "POST", "/tasks", {**asgi.VALID, field: value(evil)})
    assert (reply.status, reply.code) == (400, "VALIDATION_ERROR")
    assert reply.error.startswith(field)
    assert evil not in reply.error


@pytest.mark.parametrize("evil", EVIL, ids=ascii)
async def test_a_key_may_have_them_and_is_sent_percent_encoded(evil: str) -> None:
    async with receiving() as receiver, Rebound(Config(store_url="sqlite://:memory:")) as rebound:
        to = Destination(url=receiver.url())
        one = Task(source="t", destination=to, delay=0, message_key=f"a{evil}", message_data="")
        await rebound.create_task(one)
        async with asyncio.timeout(20):
            while not receiver.requests:
                await asyncio.sleep(0.005)
    (request,) = receiver.requests
    assert "X-Evil" not in request.headers
    assert request.headers["X-Message-Key"].startswith("a%")


@pytest.mark.parametrize(
    "name",
    [
        "Host", "Content-Length", "content_length", "Transfer-Encoding", "TRANSFER_ENCODING", "TE",
        "Connection", "Proxy-Connection", "Keep-Alive", "Trailer", "Upgrade", "Expect",
        "X-Message-Key", "X_Message_Key", "x-rebound-attempt", "X_Rebound-Task_Id",
    ],
)  # fmt: skip
def test_no_header_of_a_caller_takes_the_place_of_ours_even_where_cgi_reads_them(name: str) -> None:
    with pytest.raises(ValidationError, match="is set by Rebound"):
        Destination(url=asgi.URL, headers={name: "1"}).check("destination")


async def test_userinfo_is_sent_as_a_login_and_shown_nowhere(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.DEBUG)
    shown: list[object] = []
    async with (
        receiving() as receiver,
        Rebound(
            Config(store_url="sqlite://:memory:", poll_interval="10ms", on_event=shown.append)
        ) as rebound,
    ):
        url = f"http://me:{SECRET}@127.0.0.1:{free_port()}/a?b"
        dead = receiver.url().replace("://", f"://me:{SECRET}@")
        body = {
            "id": "one", "source": "tests", "delay": 0, "max_retries": 1,
            "destination": {"url": url}, "dead_destination": {"url": dead},
        }  # fmt: skip
        api = asgi.make_api(rebound.engine)
        shown.append((await call(api, "POST", "/tasks", body)).body)
        async with asyncio.timeout(20):
            while not (one := await rebound.get_task("one")) or one.state != "dead":
                await asyncio.sleep(0.005)
        for method, target, sent in (
            ("GET", "/tasks/one", b""),
            ("GET", "/tasks", b""),
            ("POST", "/tasks", {**body, "source": "other"}),
            ("POST", "/tasks", {**body, "destination": {"url": url + " "}}),
            (
                "POST",
                "/tasks/batch",
                {"tasks": [body, {**body, "destination": {"url": url + "|"}}]},
            ),
            ("POST", "/tasks/one/replay", b""),
        ):
            shown.append((await call(api, method, target, sent)).body)
    assert "connection refused" in str(one.attempts)
    shown += [one, one.destination, one.attempts, one.last_error, one.main_error, caplog.records]
    (request, *_) = receiver.requests
    assert request.headers["Authorization"] == "Basic bWU6aHVudGVyMg=="
    without = {k: v for k, v in request.headers.items() if k != "Authorization"}
    assert without["X-Rebound-Original-Destination"] == url.replace(f"me:{SECRET}@", "")[:-2]
    for text in (*map(repr, shown), caplog.text, str(without), request.line):
        assert SECRET not in text
