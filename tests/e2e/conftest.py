"""Real processes: `rebound serve` and `rebound work`, and a receiver that records every request."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import aiohttp
import pytest
from aiohttp import web

from tests.conftest import RedisServer, free_port
from tests.support import until

REBOUND = [sys.executable, "-m", "rebound"]
Answer = Callable[["Got"], web.StreamResponse | Awaitable[web.StreamResponse]]


class Got(NamedTuple):
    """One request that the receiver got."""

    at: float
    method: str
    path: str
    headers: dict[str, str]
    body: bytes

    @property
    def id(self) -> str:
        return self.headers.get("X-Rebound-Task-Id", "")

    @property
    def attempt(self) -> int:
        return int(self.headers.get("X-Rebound-Attempt", "0"))


class Receiver:
    """Records requests; `answers` by path decide what it says, 200 where there is none."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.got: list[Got] = []
        self.answers: dict[str, Answer] = {}
        self._runner: web.AppRunner | None = None

    def url(self, path: str) -> str:
        return f"http://127.0.0.1:{self.port}{path}"

    def of(self, id_: str) -> list[Got]:
        return [g for g in self.got if g.id == id_]

    def counts(self, path: str | None = None) -> Counter[str]:
        return Counter(g.id for g in self.got if path is None or g.path == path)

    async def start(self) -> None:
        app = web.Application(client_max_size=2**30)
        app.router.add_route("*", "/{path:.*}", self._handle)
        self._runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=0.1)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", self.port, reuse_address=True).start()

    async def stop(self) -> None:
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        got = Got(
            time.time(), request.method, request.path, dict(request.headers), await request.read()
        )
        self.got.append(got)
        answer = self.answers.get(request.path)
        if answer is None:
            return web.Response(text="ok")
        response = answer(got)
        return response if isinstance(response, web.StreamResponse) else await response


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    one = Receiver(free_port())
    await one.start()
    yield one
    await one.stop()


class Process:
    """A `rebound` command; stderr goes to a file."""

    def __init__(
        self,
        command: str,
        settings: dict[str, str],
        log: Path,
        beside: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        """`beside` are variables of the environment that are no settings."""
        self.log = log
        self.settings = settings
        environment = {k: v for k, v in os.environ.items() if not k.startswith("REBOUND_")}
        environment |= {f"REBOUND_{k}": v for k, v in settings.items()} | dict(beside)
        with log.open("ab") as stderr:
            self.process = subprocess.Popen(
                [*REBOUND, *command.split()], env=environment, stdout=subprocess.DEVNULL,
                stderr=stderr,
            )  # fmt: skip

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def alive(self) -> bool:
        return self.process.poll() is None

    def logged(self) -> str:
        return self.log.read_text()

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    async def terminate(self) -> int:
        """SIGTERM; return the exit code."""
        self.process.send_signal(signal.SIGTERM)
        await until(lambda: not self.alive, 40)
        return int(self.process.returncode)


class Service:
    """One store, and the processes of a test on it. `api` calls the one that serves."""

    def __init__(self, store: dict[str, str], folder: Path) -> None:
        self.settings = {"LOG_FORMAT": "json", **store}
        self.url = ""
        self.patience = 10.0
        """Seconds for a process to get ready."""
        self._folder = folder
        self._processes: list[Process] = []
        self._session: aiohttp.ClientSession | None = None

    def run(
        self, command: str, beside: Mapping[str, str] = MappingProxyType({}), **settings: str
    ) -> Process:
        log = self._folder / f"{len(self._processes)}.log"
        self._processes.append(Process(command, {**self.settings, **settings}, log, beside))
        return self._processes[-1]

    async def serve(self, command: str = "serve", **settings: str) -> Process:
        port = free_port()
        process = self.run(command, HTTP_PORT=str(port), **settings)
        self.url = f"http://127.0.0.1:{port}"
        await self.ready(process)
        return process

    async def ready(self, process: Process) -> None:
        async with asyncio.timeout(self.patience):
            while True:
                assert process.alive, process.logged()
                with contextlib.suppress(aiohttp.ClientError):
                    if (await self.call("GET", "/readyz"))[0] == 200:
                        return
                await asyncio.sleep(0.02)

    async def call(self, method: str, path: str, json: Any = None) -> tuple[int, Any]:
        if self._session is None:
            self._session = aiohttp.ClientSession()
        async with self._session.request(method, self.url + path, json=json) as answer:
            body = await answer.read()
            return answer.status, (await answer.json() if body else None)

    async def create(self, **task: Any) -> dict[str, Any]:
        status, body = await self.call("POST", "/tasks", {"source": "e2e", "delay": 0, **task})
        assert status == 201, body
        return dict(body)

    async def create_many(self, tasks: list[dict[str, Any]]) -> None:
        for at in range(0, len(tasks), 500):
            part = [{"source": "e2e", "delay": 0, **t} for t in tasks[at : at + 500]]
            status, body = await self.call("POST", "/tasks/batch", {"tasks": part})
            assert status == 200
            assert {r["status"] for r in body["results"]} == {201}, body

    async def task(self, id_: str) -> dict[str, Any]:
        status, body = await self.call("GET", f"/tasks/{id_}")
        assert status == 200, body
        return dict(body)

    async def find(self, query: str) -> list[dict[str, Any]]:
        status, body = await self.call("GET", f"/tasks?limit=1000&{query}")
        assert status == 200, body
        return list(body["tasks"])

    async def ended(self, id_: str, seconds: float = 20.0) -> dict[str, Any]:
        async with asyncio.timeout(seconds):
            while True:
                found = await self.task(id_)
                if found["state"] in ("succeeded", "dead", "cancelled"):
                    return found
                await asyncio.sleep(0.02)

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()
        for process in self._processes:
            if process.alive:
                process.kill()


@pytest.fixture(params=["sqlite", "redis"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> dict[str, str]:
    """Settings of a store that no other test uses."""
    if request.param == "sqlite":
        return {"STORE_URL": f"sqlite:///{tmp_path}/rebound.db"}
    server: RedisServer = request.getfixturevalue("redis_server")
    return {"STORE_URL": server.url, "NAMESPACE": tmp_path.name}


@pytest.fixture
async def service(store: dict[str, str], tmp_path: Path) -> AsyncIterator[Service]:
    one = Service(store, tmp_path)
    yield one
    await one.close()
