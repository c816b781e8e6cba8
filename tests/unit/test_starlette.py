"""Rebound inside FastAPI and Starlette: opened and closed with the program, at hand in requests."""

from __future__ import annotations

import importlib
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated, Any

import anyio.from_thread
import httpx2
import pytest
from fastapi import APIRouter, Depends, FastAPI, WebSocket
from fastapi.testclient import TestClient
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Mount, Route

from rebound import Config, Destination, Rebound, ReboundError, StoreUnusable, Task
from rebound.frameworks.starlette import get_rebound, lifespan
from rebound.testing import Kit

HOOK = "https://api.partner.com/hook"
MEMORY = Config(store_url="sqlite://:memory:")
Given = Annotated[Rebound, Depends(get_rebound)]


def order(number: int, **fields: Any) -> Task:
    return Task(
        id=f"order-{number}", source="shop", destination=Destination(url=HOOK), **fields
    )  # fmt: skip


def shop(**options: Any) -> FastAPI:
    """A program that submits in a request, in a thread and in a web socket."""
    app = FastAPI(**options)

    @app.post("/orders/{number}", status_code=202)
    async def place(number: int, rebound: Given) -> dict[str, str]:
        return {"task": (await rebound.create_task(order(number, delay=10))).id}

    @app.post("/threads/{number}", status_code=202)
    def place_in_a_thread(number: int, rebound: Given) -> dict[str, str]:
        task = anyio.from_thread.run(rebound.create_task, order(number, delay=10))
        return {"task": task.id}

    @app.websocket("/orders")
    async def place_many(socket: WebSocket, rebound: Given) -> None:
        await socket.accept()
        task = await rebound.create_task(order(await socket.receive_json(), delay=10))
        await socket.send_text(task.id)
        await socket.close()

    return app


def test_requests_threads_and_web_sockets_get_the_rebound_of_the_program() -> None:
    rebound = Rebound(MEMORY)
    with TestClient(shop(lifespan=lifespan(rebound))) as client:
        assert client.post("/orders/1").json() == {"task": "order-1"}
        assert client.post("/threads/2").json() == {"task": "order-2"}
        with client.websocket_connect("/orders") as socket:
            socket.send_json(3)
            assert socket.receive_text() == "order-3"
        assert client.portal is not None
        found = client.portal.call(rebound.find)
        assert {task.id for task in found.tasks} == {"order-1", "order-2", "order-3"}
    assert rebound.engine.closed


def test_a_config_makes_a_new_rebound_at_each_start() -> None:
    app = shop(lifespan=lifespan(MEMORY))
    for _ in range(2):
        with TestClient(app) as client:
            assert client.post("/orders/1").status_code == 202


def test_a_bare_starlette_and_what_is_mounted_in_it_get_it_too() -> None:
    async def place(request: Request) -> JSONResponse:
        rebound = await get_rebound(request)
        assert rebound is request.state.rebound
        return JSONResponse((await rebound.create_task(order(1))).id)

    routes = [Route("/", place), Mount("/inner", Starlette(routes=[Route("/", place)]))]
    with TestClient(Starlette(routes=routes, lifespan=lifespan(MEMORY))) as client:
        assert client.get("/").json() == client.get("/inner/").json() == "order-1"


def test_the_programs_own_lifespans_run_inside_and_keep_their_state() -> None:
    told: list[str] = []
    rebound = Rebound(MEMORY)

    def says(name: str) -> Any:
        @asynccontextmanager
        async def own(app: FastAPI) -> AsyncIterator[dict[str, str]]:
            told.append(f"{name} starts, rebound is {rebound.ready_error() or 'ready'}")
            yield {name: "kept"}
            told.append(f"{name} ends, rebound is {rebound.ready_error() or 'ready'}")

        return own

    app = shop(lifespan=lifespan(rebound, says("inner")))
    router = APIRouter(lifespan=says("router"))

    @router.get("/state")
    async def state(request: Request, rebound: Given) -> list[str]:
        return [request.state.inner, request.state.router]

    app.include_router(router)
    with TestClient(app) as client:
        assert client.get("/state").json() == ["kept", "kept"]
    assert sorted(told) == [
        "inner ends, rebound is ready",
        "inner starts, rebound is ready",
        "router ends, rebound is ready",
        "router starts, rebound is ready",
    ]


def test_an_own_lifespan_that_fails_closes_rebound() -> None:
    rebound = Rebound(MEMORY)

    @asynccontextmanager
    async def fails(app: FastAPI) -> AsyncIterator[None]:
        raise LookupError("no database")
        yield

    with pytest.raises(LookupError), TestClient(shop(lifespan=lifespan(rebound, fails))):
        pass
    assert rebound.engine.closed


async def test_without_the_lifespan_one_error_says_what_to_do() -> None:
    transport = httpx2.ASGITransport(shop(lifespan=lifespan(MEMORY)))
    async with httpx2.AsyncClient(transport=transport, base_url="http://shop") as client:
        with pytest.raises(ReboundError, match="no Rebound in this app: give it lifespan="):
            await client.post("/orders/1")


def test_a_store_that_cannot_be_used_stops_the_start(tmp_path: Path) -> None:
    (tmp_path / "rebound.db").write_bytes(b"this is no database" * 100)
    app = shop(lifespan=lifespan(Config(store_url=f"sqlite:///{tmp_path}/rebound.db")))
    with pytest.raises(StoreUnusable, match=r"rebound\.db"), TestClient(app):
        pass


def test_the_kit_drives_a_program_through_three_days(rebound_kit: Kit) -> None:
    rebound_kit.script(HOOK, 500, 500, 200)
    with TestClient(shop(lifespan=lifespan(rebound_kit.rebound))) as client:
        assert client.post("/orders/1").status_code == 202
        assert client.portal is not None
        client.portal.call(rebound_kit.fast_forward, "3d")
    assert rebound_kit.timeline("order-1") == [(10, 500), (30, 500), (70, 200)]


async def test_where_a_test_brings_its_own_rebound_no_other_is_opened(
    rebound_kit: Kit, tmp_path: Path
) -> None:
    app = shop(lifespan=lifespan(Config(store_url=f"sqlite:///{tmp_path}/real.db")))
    app.dependency_overrides[get_rebound] = lambda: rebound_kit.rebound
    with TestClient(app) as client:
        assert client.post("/orders/1").status_code == 202
    await rebound_kit.fast_forward("1h")
    assert rebound_kit.timeline("order-1") == [(10, 200)]
    assert not (tmp_path / "real.db").exists()


def test_a_missing_framework_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, missing, advice in [
        ("starlette", "starlette.requests", "pip install starlette"),
        ("django", "django.apps", "pip install django"),
    ]:
        with monkeypatch.context() as patch:
            patch.setitem(sys.modules, missing, None)
            patch.delitem(sys.modules, f"rebound.frameworks.{name}", raising=False)
            with pytest.raises(ImportError, match=advice):
                importlib.import_module(f"rebound.frameworks.{name}")


def test_rebound_itself_imports_no_framework() -> None:
    look = "import rebound.cli.main, rebound.service, sys; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", look], capture_output=True, check=True).stdout
    assert not {b"starlette", b"fastapi", b"django", b"dishka"} & {*loaded.split()}
