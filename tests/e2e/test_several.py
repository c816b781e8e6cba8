"""`--processes N`: replaced where one dies, one port, one end."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web

from tests.e2e.conftest import Got, Process, Receiver, Service
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
    ending = asyncio.create_task(worker.terminate())
    slow.go.set()
    assert await ending == 0
    assert alive(pids) == []
    assert set(receiver.counts().values()) == {1}
    assert len(await service.find("state=succeeded")) == slow.asked


@on_sqlite
async def test_a_signal_to_the_whole_group_is_one(service: Service, receiver: Receiver) -> None:
    slow = Slow(receiver)
    process = await service.serve("serve --processes 2")
    pids = await started(process)
    await service.create(id="slow", destination={"url": receiver.url("/slow")})
    await until(lambda: slow.asked)
    for pid in (process.pid, *pids):  # as systemd does, and a terminal on Ctrl-C
        os.kill(pid, signal.SIGTERM)
    slow.go.set()
    await until(lambda: not process.alive, 20)
    assert process.process.returncode == 0
    assert receiver.counts() == {"slow": 1}


@on_sqlite
async def test_a_second_signal_ends_all_at_once_with_1(
    service: Service, receiver: Receiver
) -> None:
    slow = Slow(receiver)
    process = await service.serve("serve --processes 2")
    pids = await started(process)
    await service.create(id="slow", destination={"url": receiver.url("/slow")})
    await until(lambda: slow.asked)
    os.kill(process.pid, signal.SIGTERM)
    await until(lambda: "worker" in process.logged())
    os.kill(process.pid, signal.SIGINT)
    assert await process.terminate() == 1
    assert alive(pids) == []


@on_sqlite
async def test_none_is_left_where_the_supervisor_is_killed(service: Service) -> None:
    process = await service.serve("serve --processes 2")
    pids = await started(process)
    process.kill()
    await until(lambda: not alive(pids), 20)


@on_sqlite
async def test_what_is_wrong_is_said_once_and_is_the_end(service: Service) -> None:
    process = service.run("work --processes 4", STORE_URL="sqlite:////nowhere/rebound.db")
    await until(lambda: not process.alive, 20)
    assert process.process.returncode == 1
    assert process.logged() == "rebound: /nowhere/rebound.db cannot be opened for writing\n"
