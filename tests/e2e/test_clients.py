"""Programs beside the service: clients, and a pre-forked web server that embeds Rebound."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web

from rebound import (
    Closed,
    Destination,
    DuplicateTask,
    ReboundError,
    State,
    StoreUnavailable,
    Task,
    ValidationError,
    WrongState,
)
from rebound.client import AsyncClient, Client
from tests.conftest import free_port
from tests.e2e.conftest import Receiver, Service
from tests.support import until

HOOK = Destination(url="http://127.0.0.1:9/hook")


def one(id_: str = "", **fields: object) -> Task:
    return Task(**{"id": id_, "source": "shop", "destination": HOOK, "delay": 60, **fields})  # type: ignore[arg-type]


@pytest.fixture
def store(tmp_path: Path) -> dict[str, str]:
    """One store: the API in between is the same for all."""
    return {"STORE_URL": f"sqlite:///{tmp_path}/rebound.db"}


async def test_a_client_does_what_the_embedded_package_does(service: Service) -> None:
    await service.serve()
    async with AsyncClient(service.url) as client:
        stored = await client.create_task(one("a/1", message_data={"n": 1}, message_key="k"))
        assert (stored.id, stored.state, stored.message_data) == ("a/1", "scheduled", {"n": 1})
        known = await client.get_task("a/1")
        assert known is not None
        assert (known.destination, known.message_data, known.message_key) == (HOOK, {"n": 1}, "k")
        assert known.due_at == pytest.approx(stored.due_at)
        assert known.due_at == pytest.approx((known.created_at or 0) + 60, abs=0.002)
        with pytest.raises(DuplicateTask, match="a/1"):
            await client.create_task(one("a/1", message_data={"n": 2}))
        assert (await client.cancel("a/1")).state == State.CANCELLED
        with pytest.raises(WrongState):
            await client.cancel("a/1")
        assert (await client.replay("a/1")).state in (State.SCHEDULED, State.DELIVERING)
        assert await client.get_task("nobody") is None
        found = await client.find(source="shop", limit=1)
        assert [t.id for t in found.tasks] == ["a/1"]
        with pytest.raises(ValidationError, match="limit"):
            await client.find(limit=0)


async def test_a_client_hands_over_many_in_order_and_the_valid_ones_beside_a_bad_one(
    service: Service,
) -> None:
    await service.serve("serve --no-worker")
    async with AsyncClient(service.url) as client:
        stored = await client.create_tasks(one(message_data=n) for n in range(2500))
        assert [t.message_data for t in stored] == list(range(2500))
        assert len({t.id for t in stored}) == 2500
        assert all(t.id for t in stored)
        with pytest.raises(ValidationError, match="max_retries"):
            await client.create_tasks([one("x"), one("y", max_retries=101), one("z")])
        assert [await client.get_task(i) is not None for i in "xyz"] == [True, False, True]


async def test_attempts_and_errors_come_back_as_the_packages_types(
    service: Service, receiver: Receiver
) -> None:
    receiver.answers["/hook"] = lambda _: web.Response(status=500, text="no")
    await service.serve()
    async with AsyncClient(service.url) as client:
        to = Destination(url=receiver.url("/hook"))
        await client.create_task(one("a", destination=to, delay=0, max_retries=1))
        await service.ended("a")
        dead = await client.get_task("a")
    assert dead is not None
    assert (dead.state, dead.dead_reason, dead.dead_letter) == ("dead", "exhausted", "none")
    (attempt,) = dead.attempts
    assert (attempt.outcome, attempt.status, attempt.response) == ("failed", 500, "no")
    assert attempt.started_at >= (dead.created_at or 0) - 0.002


def a_program(url: str) -> None:
    """What a program without an event loop does, and its forked children after it."""
    with Client(url, timeout=5, retries=0) as client:
        assert client.create_task(one("parent")).id == "parent"
        idle = os.fork()
        if idle == 0:
            sys.exit()  # which drops everything, the parent's connections too
        os.waitpid(idle, 0)
        child = os.fork()
        if child == 0:
            code = 1
            with contextlib.suppress(BaseException):
                code = 0 if client.create_task(one("child")).id == "child" else 1
            os._exit(code)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        assert {t.id for t in client.find(source="shop").tasks} == {"parent", "child"}
    try:
        client.get_task("parent")
    except Closed:
        sys.stdout.write("done\n")


async def test_a_client_without_an_event_loop_outlives_a_fork(service: Service) -> None:
    await service.serve()
    with pytest.raises(ReboundError, match="there use AsyncClient"):
        Client(service.url).get_task("a")
    program = "import sys; from tests.e2e import test_clients as t; t.a_program(sys.argv[1])"
    made = await asyncio.create_subprocess_exec(
        sys.executable, "-c", program, service.url, stdout=subprocess.PIPE
    )
    out, _ = await made.communicate()
    assert (made.returncode, out) == (0, b"done\n")


@asynccontextmanager
async def losing_answers(of: Service, lost: int) -> AsyncIterator[str]:
    """The URL of a way to the service on which the first answers get lost."""
    port, seen = int(of.url.rpartition(":")[2]), 0

    async def carry(source: asyncio.StreamReader, to: asyncio.StreamWriter | None) -> None:
        while data := await source.read(65536):
            if to is not None:
                to.write(data)

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal seen
        seen += 1
        ahead, behind = await asyncio.open_connection("127.0.0.1", port)
        up = asyncio.create_task(carry(reader, behind))
        if seen <= lost:
            await ahead.read(1)  # the service has answered
        else:
            await carry(ahead, writer)
        up.cancel()
        behind.close()
        writer.close()

    server = await asyncio.start_server(connected, "127.0.0.1", 0)
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"


async def test_a_task_whose_answer_was_lost_is_sent_again_and_stored_once(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rebound.client.asynchronous.PAUSE", 0.01)
    await service.serve()
    async with losing_answers(service, 2) as url, AsyncClient(url) as client:
        stored = await client.create_task(one())
        assert [t["id"] for t in await service.find("")] == [stored.id]


async def test_a_service_that_is_away_is_one_error_that_names_it(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rebound.client.asynchronous.PAUSE", 0.01)
    port = free_port()
    async with AsyncClient(f"http://ada:secret@127.0.0.1:{port}", retries=2) as client:
        with pytest.raises(StoreUnavailable, match=f"127.0.0.1:{port}") as caught:
            await client.create_task(one())
    assert "secret" not in str(caught.value)
    with pytest.raises(Closed):
        await client.get_task("a")
    with pytest.raises(ValidationError, match="url: must be http://host:port"):
        AsyncClient("localhost:8080")


APP = """
import os

from rebound import Config, Destination, SyncRebound, Task

rebound = SyncRebound(Config(store_url={store!r}))
rebound.start()

def app(environ, start_response):
    path = environ["PATH_INFO"]
    if path == "/start":
        rebound.start()
    try:
        task = rebound.create_task(
            Task(source="web", delay=0, destination=Destination(url={hook!r}))
        )
        status, body = "200 OK", f"{{task.id}} {{os.getpid()}}"
    except Exception as error:
        status, body = "500 Oh", str(error)
    start_response(status, [("Content-Type", "text/plain")])
    return [body.encode()]
"""


async def test_under_a_preforking_server_each_process_starts_its_own(
    tmp_path: Path, receiver: Receiver
) -> None:
    """gunicorn --preload: the program starts before the fork, on one SQLite file."""
    (tmp_path / "web.py").write_text(
        APP.format(store=f"sqlite:///{tmp_path}/rebound.db", hook=receiver.url("/hook"))
    )
    port = free_port()
    server = subprocess.Popen(
        [
            sys.executable, "-m", "gunicorn", "--preload", "--workers", "2", "--no-control-socket",
            "--bind", f"127.0.0.1:{port}", "--log-level", "error", "web:app",
        ],
        cwd=tmp_path,
    )  # fmt: skip
    url = f"http://127.0.0.1:{port}"
    try:
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(force_close=True)) as web:

            async def asked(path: str) -> str | None:
                with contextlib.suppress(aiohttp.ClientError):
                    async with web.get(url + path) as answer:
                        return await answer.text()
                return None

            said: set[str | None] = set()
            async with asyncio.timeout(20):
                while not any(said):
                    said.add(await asked("/create"))
                    await asyncio.sleep(0.02)
            (error,) = said - {None}
            assert "call start() in each process, with gunicorn in post_fork" in (error or "")
            made: dict[str, str] = {}
            async with asyncio.timeout(20):
                while len(set(made.values())) < 2 or len(made) < 20:
                    if answer := await asked("/start"):
                        id_, process = answer.split()
                        made[id_] = process
            await until(lambda: {g.id for g in receiver.got} >= made.keys(), 20)
    finally:
        server.send_signal(signal.SIGTERM)
        assert server.wait(30) == 0
