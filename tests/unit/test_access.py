"""API keys: who may call what, and how often."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from rebound.adapters.api.access import Access
from rebound.adapters.api.app import Api
from rebound.client import AsyncClient
from rebound.domain.destination import Destination
from rebound.domain.errors import ReboundError
from rebound.domain.task import Task
from rebound.engine import Engine
from tests.conftest import Clock
from tests.unit.asgi import URL, VALID, call, document, make_api
from tests.unit.wire import serving

FIRST, SECOND, SUBMIT = "first-key-of-many", "second-key-of-two", "a-key-to-submit-1"
CALLS = [
    (method.upper(), path.replace("{id}", "a"), operation)
    for path, operations in document()["paths"].items()
    for method, operation in operations.items()
]
SUBMITS = {"createTask", "createTasks", "getTask", "getTaskNamedBatch"}
ALWAYS_OPEN = {"health", "livez", "readyz"}
BODIES: Mapping[str, Any] = {"createTask": VALID, "createTasks": {"tasks": [VALID]}}


def bearer(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


@pytest.fixture
def locked(engine: Engine) -> Api:
    """An API in production, with two keys, and one that may submit."""
    return make_api(engine, access=Access([FIRST, SECOND], [SUBMIT], describes=False))


@pytest.mark.parametrize(("method", "path", "operation"), CALLS)
async def test_without_a_key_only_health_is_open_in_production(
    locked: Api, method: str, path: str, operation: dict[str, Any]
) -> None:
    name = operation["operationId"]
    reply = await call(locked, method, path, BODIES.get(name, b""))
    if name in ALWAYS_OPEN:
        assert reply.status == 200
        assert operation["security"] == []
    else:
        assert (reply.status, reply.code) == (401, "UNAUTHORIZED")
        assert reply.headers["www-authenticate"] == "Bearer"
        assert "security" not in operation


@pytest.mark.parametrize(("method", "path", "operation"), CALLS)
async def test_a_key_opens_everything_and_one_to_submit_only_creating_and_looking_at_one(
    locked: Api, method: str, path: str, operation: dict[str, Any]
) -> None:
    name = operation["operationId"]
    for key in (FIRST, SECOND):
        reply = await call(locked, method, path, BODIES.get(name, b""), bearer(key))
        assert reply.status not in (401, 403)
    reply = await call(locked, method, path, BODIES.get(name, b""), bearer(SUBMIT))
    if name in SUBMITS | ALWAYS_OPEN:
        assert reply.status in (200, 201, 404)
    else:
        assert (reply.status, reply.code) == (403, "FORBIDDEN")


async def test_outside_production_the_description_is_open_too(engine: Engine) -> None:
    api = make_api(engine, access=Access([FIRST]))
    for path in ("/docs", "/openapi.json"):
        assert (await call(api, "GET", path)).status == 200
        assert (await call(api, "HEAD", path)).status == 200
    assert (await call(api, "HEAD", "/tasks/a")).status == 401


@pytest.mark.parametrize(
    ("headers", "passes"),
    [
        (bearer(FIRST), True),
        ({"Authorization": f"bearer {FIRST}"}, True),
        ({"Authorization": f"BEARER   {FIRST} "}, True),
        ({"X-API-Key": FIRST}, True),
        ({"X-API-Key": SECOND, "Authorization": "Basic dTpw"}, True),
        (bearer(SUBMIT), False),
        ({"Authorization": FIRST}, False),
        ({"Authorization": f"Basic {FIRST}"}, False),
        ({"Authorization": "Bearer"}, False),
        ({"Authorization": "Bearer "}, False),
        (bearer(FIRST[:-1]), False),
        (bearer(FIRST + "x"), False),
        (bearer(FIRST.upper()), False),
        (bearer(f"{FIRST},{SECOND}"), False),
        (bearer("\u00e4" * 16), False),
        ({"X-API-Key": FIRST, **bearer("another-key-than-x")}, False),
        ({"Cookie": f"key={FIRST}"}, False),
    ],
)
async def test_a_key_comes_as_bearer_or_as_a_header_of_its_own(
    locked: Api, headers: dict[str, str], passes: bool
) -> None:
    assert ((await call(locked, "GET", "/tasks", headers=headers)).status == 200) is passes


async def test_the_packages_client_sends_its_key(locked: Api) -> None:
    wanted = Task(id="a", source="s", destination=Destination(url=URL))
    async with serving(locked) as origin:
        async with AsyncClient(origin, api_key=SUBMIT) as client:
            await client.create_tasks([wanted])
            assert (await client.get_task("a")) is not None
            with pytest.raises(ReboundError, match="may only create"):
                await client.cancel("a")
        for_a_proxy = origin.replace("://", "://user:password@")
        async with AsyncClient(for_a_proxy, api_key=FIRST) as client:
            assert (await client.cancel("a")).state == "cancelled"
        async with AsyncClient(origin) as client:
            with pytest.raises(ReboundError, match="needs an API key"):
                await client.create_task(wanted)


async def test_a_key_in_the_query_is_none(locked: Api) -> None:
    assert (await call(locked, "GET", f"/tasks?api_key={FIRST}")).status == 401


async def test_the_place_of_401_403_and_429_in_the_order_of_errors(engine: Engine) -> None:
    access = Access([FIRST], [SUBMIT], rate=1, clock=lambda: 5.0)
    api = make_api(engine, access=access)
    foreign = {"Sec-Fetch-Site": "cross-site"}
    long = b"x" * 3_000_000
    table: list[tuple[str, str, dict[str, str], int]] = [
        ("PUT", "/nothing", {}, 404),
        ("PUT", "/tasks", {}, 405),
        ("POST", "/tasks", foreign, 401),
        ("POST", "/tasks/a/replay", bearer(SUBMIT) | foreign, 403),
        ("POST", "/tasks", bearer(FIRST) | foreign, 403),
        ("POST", "/tasks", bearer(SUBMIT), 413),
        ("POST", "/tasks", bearer(SUBMIT), 429),
    ]
    for method, path, headers, status in table:
        assert (await call(api, method, path, long, headers)).status == status, (path, headers)


async def test_each_key_has_a_rate_of_its_own(engine: Engine, clock: Clock) -> None:
    access = Access([FIRST, SECOND], [SUBMIT], rate=3, clock=clock)
    api = make_api(engine, access=access)
    for key in (FIRST, SECOND, SUBMIT):
        replies = [await call(api, "GET", "/tasks/a", headers=bearer(key)) for _ in range(4)]
        assert [r.status for r in replies] == [404, 404, 404, 429]
        assert (replies[-1].code, replies[-1].headers["retry-after"]) == ("RATE_LIMITED", "1")
        assert (await call(api, "GET", "/livez", headers=bearer(key))).status == 200
    clock.advance(1)
    assert (await call(api, "GET", "/tasks/a", headers=bearer(FIRST))).status == 404


async def test_a_key_is_neither_in_answers_nor_kept_as_it_is(engine: Engine) -> None:
    access = Access([FIRST])
    assert FIRST not in repr(vars(access))
    reply = await call(make_api(engine, access=access), "GET", "/tasks", headers=bearer("wrong-k"))
    assert "wrong-k" not in reply.error
