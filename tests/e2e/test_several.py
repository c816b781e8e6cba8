"""`--processes N`: replaced where one dies, one port, one end."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web

from rebound.supervisor import pause_after
from tests.conftest import RedisServer
from tests.e2e.conftest import Got, Process, Receiver, Service
from tests.proxy import Proxy
from tests.support import until

on_sqlite = pytest.mark.parametrize("store", ["sqlite"], indirect=True)


def children(process: Process) -> list[int]:
    pid = process.pid
    return [int(one) for one in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def alive(pids: list[int]) -> list[int]:
    return [pid for pid in pids if Path(f"/proc/{pid}").exists()]


async def started(process: Process, count: int = 2) -> list[int]:
    """The processes, when each has said that its worker started."""
    await until(lambda: process.logged().count("worker started") == count, 20)
    return children(process)


class Slow:
    """Answers when it is told to."""

    def __init__(self, receiver: Receiver) -> None:
        self.asked, self.go = 0, asyncio.Event()
        receiver.answers["/slow"] = self

    async def __call__(self, got: Got) -> web.StreamResponse:
        self.asked += 1
        await self.go.wait()
        return web.Response(text="ok")


async def delivering(service: Service, receiver: Receiver) -> tuple[Process, list[int], Slow]:
    """Two processes, one of which waits for the answer to a delivery."""
    slow = Slow(receiver)
    process = await service.serve("serve --processes 2")
    pids = await started(process)
    await service.create(id="slow", destination={"url": receiver.url("/slow")})
    await until(lambda: slow.asked)
    return process, pids, slow


async def test_one_that_is_killed_is_replaced_while_the_others_serve(service: Service) -> None:
    process = await service.serve("serve --processes 2")
    first, second = await started(process)
    os.kill(first, signal.SIGKILL)
    while len(pids := children(process)) < 2 or first in pids:
        async with aiohttp.request("GET", f"{service.url}/livez") as answer:
            assert answer.status == 200
    await started(process, 3)
    assert second in children(process)
    assert f"process {first} ended with signal 9; starting another in 0 s" in process.logged()
    assert await process.terminate() == 0


async def test_a_signal_drains_all_of_them(service: Service, receiver: Receiver) -> None:
    slow = Slow(receiver)
    await service.serve("serve --no-worker")
    for n in range(40):
        to = {"url": receiver.url("/slow")}
        await service.create(id=f"slow-{n}", destination=to, lane=f"lane-{n}")
    worker = service.run("work --processes 2", CONCURRENCY="20")
    pids = await started(worker)
    await until(lambda: slow.asked > 20, 20)  # more than one of them can have under way
    os.kill(worker.pid, signal.SIGTERM)
    slow.go.set()
    await until(lambda: not worker.alive, 20)
    assert worker.process.returncode == 0
    assert alive(pids) == []
    assert set(receiver.counts().values()) == {1}
    assert len(await service.find("state=succeeded")) == slow.asked


@on_sqlite
async def test_a_signal_to_the_whole_group_is_one(service: Service, receiver: Receiver) -> None:
    process, pids, slow = await delivering(service, receiver)
    os.kill(process.pid, signal.SIGTERM)
    while (await service.call("GET", "/readyz"))[0] == 200:  # until the pipe has been noticed
        await asyncio.sleep(0.01)
    for pid in pids:  # as systemd does, and a terminal on Ctrl-C
        os.kill(pid, signal.SIGTERM)
    while alive(pids) == pids:  # one had nothing to do; the other one has to be left to finish
        await asyncio.sleep(0.01)
    slow.go.set()
    await until(lambda: not process.alive, 20)
    assert process.process.returncode == 0
    assert "task delivered" in process.logged()
    assert receiver.counts() == {"slow": 1}


@on_sqlite
async def test_a_second_signal_ends_all_at_once_with_1(
    service: Service, receiver: Receiver
) -> None:
    process, pids, _ = await delivering(service, receiver)
    os.kill(process.pid, signal.SIGTERM)
    os.kill(process.pid, signal.SIGINT)
    await until(lambda: not process.alive, 10)  # the grace would be 25 s
    assert process.process.returncode == 1
    assert alive(pids) == []


@on_sqlite
async def test_none_is_left_where_the_supervisor_is_killed(service: Service) -> None:
    process = await service.serve("serve --processes 2")
    pids = await started(process)
    process.kill()
    await until(lambda: not alive(pids), 20)


@on_sqlite
async def test_the_first_finds_out_alone_that_the_login_is_refused(
    service: Service, own_redis: Callable[..., RedisServer]
) -> None:
    redis = own_redis("--requirepass", "right")
    async with Proxy(redis.port) as proxy:
        proxy.latency = 1.0  # others would be there before the answer is
        url = f"redis://:wrong@127.0.0.1:{proxy.port}"
        process = service.run("work --processes 4", STORE_URL=url)
        most = 0
        while process.alive:
            with contextlib.suppress(OSError):
                most = max(most, len(children(process)))
            await asyncio.sleep(0.01)
    assert (process.process.returncode, most) == (1, 1)
    assert process.logged().count("\n") == 1


async def test_all_run_what_the_supervisor_runs_whatever_lies_in_the_folder(
    tmp_path: Path,
) -> None:
    (tmp_path / "msgspec.py").write_text("raise SystemExit('not ours')")
    program = Path(sys.executable).with_name("rebound")
    log = tmp_path / "log"
    with log.open("w") as stderr:
        process = subprocess.Popen(
            [program, "work", "--processes", "2"], cwd=tmp_path, stderr=stderr,
            stdout=subprocess.DEVNULL,
        )  # fmt: skip
    try:
        await until(lambda: log.read_text().count("worker started") == 2)
        process.terminate()
        assert process.wait(10) == 0
    finally:
        process.kill()
        process.wait()


@on_sqlite
async def test_a_store_in_memory_is_refused_for_several(service: Service) -> None:
    process = service.run("work --processes 2", STORE_URL="sqlite:///:memory:")
    await until(lambda: not process.alive, 20)
    assert process.process.returncode == 2
    assert process.logged().startswith("rebound: PROCESSES: is 2, but each would have a store")


@pytest.mark.parametrize(
    ("failures", "pause"), [(0, 0), (1, 0), (2, 1), (3, 2), (6, 16), (7, 30), (5000, 30)]
)
def test_the_first_start_again_is_at_once_and_the_pauses_grow(failures: int, pause: float) -> None:
    assert pause_after(failures) == pause


@on_sqlite
async def test_what_is_wrong_is_said_once_and_is_the_end(service: Service) -> None:
    process = service.run("work --processes 4", STORE_URL="sqlite:////nowhere/rebound.db")
    await until(lambda: not process.alive, 20)
    assert process.process.returncode == 1
    assert process.logged() == "rebound: /nowhere/rebound.db cannot be opened for writing\n"
