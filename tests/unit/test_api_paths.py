"""Paths, methods, listing, other sites, health and descriptions: section 6, in process."""

from __future__ import annotations

import re
from urllib.parse import quote

import pytest

from rebound.adapters.api.app import Api
from rebound.engine import Engine
from tests.conftest import Clock
from tests.support import claimed, succeed
from tests.unit.asgi import VALID, call, document, make_api

# -- paths and methods -------------------------------------------------------------------------


@pytest.mark.parametrize(
    "id_", ["a", "a/b", "%", "a%2Fb", "?#", "batch", "/", "//", "'\"\\", "~" * 255]
)
async def test_any_id_can_be_reached_percent_encoded(api: Api, id_: str) -> None:
    path = f"/tasks/{quote(id_, safe='')}"
    assert (await call(api, "GET", path)).code == "NOT_FOUND"
    assert (await call(api, "POST", "/tasks", {**VALID, "id": id_})).status == 201
    assert (await call(api, "GET", path)).json["id"] == id_
    assert (await call(api, "HEAD", path)).status == 200
    assert (await call(api, "POST", f"{path}/cancel")).status == 200
    assert (await call(api, "DELETE", path)).status == 204


@pytest.mark.parametrize(
    "path",
    [
        "/", "", "/nothing", "/tasks/", "/health/", "//tasks", "/Tasks", "/tasks/a/", "/tasks//",
        "/tasks/a/replay/", "/tasks/a/nothing", "/tasks/a/b", "/tasks/%", "/tasks/%2", "/tasks/%zz",
        "/tasks/%20", "/tasks/%C3%A9", "/tasks/%00", "/tasks/" + "x" * 256, "/docs/",
        "/v1/tasks", "/tasks/batch/", "/openapi.yaml", "/tasks//replay",
    ],
)  # fmt: skip
async def test_any_other_path_is_404(api: Api, path: str) -> None:
    for method in ("GET", "POST", "OPTIONS"):
        reply = await call(api, method, path)
        assert (reply.status, reply.code) == (404, "NOT_FOUND")


@pytest.mark.parametrize(
    ("path", "allow"),
    [
        ("/tasks", "GET, HEAD, POST"),
        ("/tasks/batch", "DELETE, GET, HEAD, POST"),
        ("/tasks/a", "DELETE, GET, HEAD"),
        ("/tasks/a/replay", "POST"),
        ("/tasks/a/cancel", "POST"),
        ("/health", "GET, HEAD"),
        ("/livez", "GET, HEAD"),
        ("/readyz", "GET, HEAD"),
        ("/openapi.json", "GET, HEAD"),
        ("/docs", "GET, HEAD"),
    ],
)
async def test_any_other_method_is_405_with_allow(api: Api, path: str, allow: str) -> None:
    every = {"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "PROPFIND"}
    for method in every - set(allow.split(", ")):
        reply = await call(api, method, path)
        assert (reply.status, reply.headers["allow"]) == (405, allow)
        assert method == "HEAD" or reply.code == "METHOD_NOT_ALLOWED"


async def test_head_answers_like_get_without_a_body(api: Api) -> None:
    await call(api, "POST", "/tasks", {**VALID, "id": "a"})
    for path in (
        "/tasks", "/tasks/a", "/tasks/b", "/tasks?x=1", "/health", "/livez", "/readyz", "/docs",
        "/openapi.json", "/nothing",
    ):  # fmt: skip
        get, head = await call(api, "GET", path), await call(api, "HEAD", path)
        assert (head.status, head.headers, head.body) == (get.status, get.headers, b"")


# -- other sites -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("headers", "passes"),
    [
        ({"Sec-Fetch-Site": "same-origin"}, True),
        ({"Sec-Fetch-Site": "none"}, True),
        ({"Sec-Fetch-Site": "same-site"}, False),
        ({"Sec-Fetch-Site": "cross-site"}, False),
        ({"Sec-Fetch-Site": "anything"}, False),
        ({"Origin": "http://here:8080", "Host": "here:8080"}, True),
        ({"Origin": "https://HERE", "Host": "here"}, True),
        ({"Origin": "https://here", "Host": "here:443"}, True),
        ({"Origin": "http://here", "Host": "here:443"}, False),
        ({"Origin": "http://here", "Host": "here:8080"}, False),
        ({"Origin": "http://there", "Host": "here"}, False),
        ({"Origin": "http://here.evil", "Host": "here"}, False),
        ({"Origin": "null", "Host": "here"}, False),
        ({"Origin": "", "Host": ""}, False),
        ({"Origin": "http://here"}, False),
        ({"Origin": "http://here", "Host": "here", "Sec-Fetch-Site": "cross-site"}, False),
        ({"Host": "anything"}, True),
    ],
)
async def test_requests_for_another_site_are_403(
    api: Api, headers: dict[str, str], passes: bool
) -> None:
    for method, path in (("POST", "/tasks"), ("GET", "/tasks"), ("GET", "/health")):
        reply = await call(api, method, path, VALID, headers)
        if passes:
            assert reply.status in (200, 201)
        else:
            assert (reply.status, reply.code) == (403, "FORBIDDEN")


# -- listing -----------------------------------------------------------------------------------


async def test_tasks_are_listed_newest_first_page_by_page(api: Api) -> None:
    for n in range(5):
        await call(api, "POST", "/tasks", {**VALID, "id": f"t{n}"})
    seen, cursor = [], ""
    while cursor is not None:
        page = (await call(api, "GET", f"/tasks?limit=2&cursor={quote(cursor)}")).json
        assert len(page["tasks"]) <= 2
        seen += [t["id"] for t in page["tasks"]]
        cursor = page["next_cursor"]
    assert seen == ["t4", "t3", "t2", "t1", "t0"]


async def test_a_listed_task_has_everything_but_its_message_and_attempts(api: Api) -> None:
    await call(api, "POST", "/tasks", {**VALID, "id": "a", "message_data": {"x": 1}})
    (listed,) = (await call(api, "GET", "/tasks")).json["tasks"]
    whole = (await call(api, "GET", "/tasks/a")).json
    del whole["message_data"], whole["attempts"]
    assert listed == whole


async def test_a_listing_can_be_filtered(api: Api, engine: Engine, clock: Clock) -> None:
    for id_, client in (("a", ""), ("b", "x y"), ("c", "x y")):
        body = {**VALID, "id": id_, "client_id": client, "source": f"s-{id_}", "delay": 0}
        await call(api, "POST", "/tasks", body)
    (one, *_) = await claimed(engine.store, 1)
    await engine.store.settle([succeed(one, clock())])
    for query, found in (
        ("", "cba"), ("state=&leg=&source=&client_id=&limit=&cursor=", "cba"),
        ("client_id=x%20y", "cb"), ("client_id=x+y&source=s-b", "b"), ("source=s-", ""),
        ("state=succeeded", "a"), ("state=scheduled&leg=main", "cb"), ("leg=dead", ""),
    ):  # fmt: skip
        reply = await call(api, "GET", f"/tasks?{query}")
        assert "".join(t["id"] for t in reply.json["tasks"]) == found, query


@pytest.mark.parametrize(
    ("query", "names"),
    [
        ("stat=dead", "stat"),
        ("state=gone", "state"),
        ("state=Dead", "state"),
        ("leg=other", "leg"),
        ("limit=0", "limit"),
        ("limit=1001", "limit"),
        ("limit=-1", "limit"),
        ("limit=1.5", "limit"),
        ("limit=x", "limit"),
        ("limit=+5", "limit"),
        ("limit=%D9%A1", "limit"),
        ("limit=1&limit=1", "limit"),
        ("source=a&source=b", "source"),
        ("cursor=nonsense", "cursor"),
        ("source=%FF", "query"),
        ("=x", "parameter"),
    ],
)
async def test_a_wrong_parameter_is_400_and_named(api: Api, query: str, names: str) -> None:
    reply = await call(api, "GET", f"/tasks?{query}")
    assert (reply.status, reply.code) == (400, "VALIDATION_ERROR")
    assert names in reply.error


# -- health ------------------------------------------------------------------------------------


async def test_health_says_whether_the_store_answers(api: Api, lost_api: Api) -> None:
    reply = await call(api, "GET", "/health")
    assert (reply.status, reply.json) == (
        200, {"status": "healthy", "checks": {"sqlite": "connected"}}
    )  # fmt: skip
    reply = await call(lost_api, "GET", "/health")
    assert (reply.status, reply.json) == (
        503, {"status": "unhealthy", "error": "sqlite connection failed"}
    )  # fmt: skip


async def test_alive_does_not_ask_the_store(lost_api: Api) -> None:
    reply = await call(lost_api, "GET", "/livez")
    assert (reply.status, reply.json) == (200, {"status": "alive"})


async def test_ready_asks_the_store_and_the_service(
    api: Api, lost_api: Api, engine: Engine
) -> None:
    reply = await call(api, "GET", "/readyz")
    assert (reply.status, reply.json) == (200, {"status": "ready"})
    reply = await call(lost_api, "GET", "/readyz")
    assert (reply.status, reply.json) == (
        503, {"status": "not ready", "error": "sqlite connection failed"}
    )  # fmt: skip
    reply = await call(make_api(engine, not_ready="shutting down"), "GET", "/readyz")
    assert (reply.status, reply.json) == (503, {"status": "not ready", "error": "shutting down"})


# -- descriptions ------------------------------------------------------------------------------


async def test_the_description_is_served_as_json_and_as_a_page_without_outside_parts(
    api: Api,
) -> None:
    assert (await call(api, "GET", "/openapi.json")).json == document()
    reply = await call(api, "GET", "/docs")
    page = reply.body.decode()
    assert reply.headers["content-type"] == "text/html; charset=utf-8"
    assert not re.search(r"<script|<link|<img|src=|https?://[^<` ]*[\"']|url\(", page)
    for path in document()["paths"]:
        assert path in page
    for schema in document()["components"]["schemas"]:
        assert f'id="{schema}"' in page


async def test_a_server_may_announce_its_start_and_end(api: Api) -> None:
    asked = iter(["lifespan.startup", "lifespan.shutdown"])
    said: list[str] = []

    async def receive() -> dict[str, str]:
        return {"type": next(asked)}

    async def send(message: dict[str, str]) -> None:
        said.append(message["type"])

    await api({"type": "lifespan"}, receive, send)  # type: ignore[arg-type]
    assert said == ["lifespan.startup.complete", "lifespan.shutdown.complete"]
    said.clear()
    await api({"type": "websocket"}, receive, send)  # type: ignore[arg-type]
    assert said == ["websocket.close"]
