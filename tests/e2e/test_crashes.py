"""What is killed, stopped or restarted loses nothing: real processes, on both stores."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web

from tests.conftest import RedisServer
from tests.e2e.conftest import Got, Process, Receiver, Service
from tests.support import until


def slow(seconds: float, under_way: set[str]) -> Callable[[Got], object]:
    async def answer(got: Got) -> web.Response:
        under_way.add(got.id)
        await asyncio.sleep(seconds)
        under_way.discard(got.id)
        return web.Response()

    return answer


async def test_a_worker_killed_in_the_middle_loses_nothing_and_repeats_only_what_was_in_flight(
    service: Service, receiver: Receiver
) -> None:
    under_way: set[str] = set()
    receiver.answers["/"] = slow(0.1, under_way)  # type: ignore[assignment]
    await service.serve("serve --no-worker")
    settings = {"LEASE": "1s", "LANE_CONCURRENCY": "20"}
    worker = service.run("work", **settings)
    names = [f"t{n}" for n in range(200)]
    await service.create_many([{"id": n, "destination": {"url": receiver.url("/")}} for n in names])
    await until(lambda: len(receiver.got) > 80)
    worker.kill()
    in_flight = {t["id"] for t in await service.find("state=delivering")}
    service.run("work", **settings)
    for name in names:
        assert (await service.ended(name))["state"] == "succeeded"
    counts = receiver.counts()
    assert set(counts) == set(names)
    twice = {name for name, count in counts.items() if count > 1}
    assert twice <= in_flight
    assert 0 < len(in_flight) <= 20
    for name in twice:
        outcomes = [a["outcome"] for a in (await service.task(name))["attempts"]]
        assert outcomes == ["lost", "succeeded"]


async def test_sigterm_cuts_slow_deliveries_short_without_counting_them(
    service: Service, receiver: Receiver
) -> None:
    under_way: set[str] = set()
    receiver.answers["/"] = slow(30, under_way)  # type: ignore[assignment]
    await service.serve("serve --no-worker")
    worker = service.run("work", SHUTDOWN_GRACE="1s")
    names = [f"t{n}" for n in range(5)]
    await service.create_many(
        [{"id": n, "max_retries": 1, "destination": {"url": receiver.url("/")}} for n in names]
    )
    await until(lambda: len(under_way) == 5)
    began = time.monotonic()
    assert await worker.terminate() == 0
    assert time.monotonic() - began < 1 + 2
    for name in names:
        task = await service.task(name)
        assert (task["state"], task["attempt"]) == ("scheduled", 0)
        assert [a["outcome"] for a in task["attempts"]] == ["cut_short"]
    del receiver.answers["/"]
    service.run("work")
    for name in names:
        task = await service.ended(name)
        assert (task["state"], task["attempt"]) == ("succeeded", 1)


async def test_serve_ends_cleanly_while_it_delivers(service: Service, receiver: Receiver) -> None:
    under_way: set[str] = set()
    receiver.answers["/"] = slow(0.5, under_way)  # type: ignore[assignment]
    process = await service.serve()
    await service.create(id="t", destination={"url": receiver.url("/")})
    await until(lambda: under_way)
    assert await process.terminate() == 0
    await service.serve()
    assert (await service.task("t"))["state"] == "succeeded"
    assert len(receiver.got) == 1


async def test_a_second_signal_ends_at_once(service: Service, receiver: Receiver) -> None:
    under_way: set[str] = set()
    receiver.answers["/"] = slow(30, under_way)  # type: ignore[assignment]
    process = await service.serve()
    await service.create(id="t", destination={"url": receiver.url("/")})
    await until(lambda: under_way)
    process.process.send_signal(signal.SIGINT)
    async with asyncio.timeout(10):
        while (await service.call("GET", "/readyz"))[0] != 503:
            await asyncio.sleep(0.01)
    process.process.send_signal(signal.SIGINT)
    await until(lambda: not process.alive, 3)
    assert process.process.returncode == 1


@pytest.mark.parametrize("store", ["sqlite"], indirect=True)  # 40 s; on Redis in `make chaos`
async def test_a_message_that_kills_its_worker_ends_as_crashed_and_its_neighbours_arrive(
    service: Service, receiver: Receiver
) -> None:
    workers: list[Process] = []
    settings = {"LEASE": "1s"}

    def shoot(got: Got) -> web.Response:
        with contextlib.suppress(ProcessLookupError):
            os.kill(workers[-1].pid, signal.SIGKILL)
        return web.Response()

    receiver.answers["/poison"] = shoot
    await service.serve("serve --no-worker")
    poison = {"destination": {"url": receiver.url("/poison")}}
    fine = {"destination": {"url": receiver.url("/ok")}}
    await service.create_many(
        [
            {"id": "poison1", "max_retries": 1, **poison},
            {"id": "poison5", "dead_destination": {"url": receiver.url("/dlq")}, **poison},
            *({"id": f"fine{n}", "lane": "shared", **fine} for n in range(20)),
        ]
    )
    workers.append(service.run("work", **settings))
    async with asyncio.timeout(100):
        while True:
            if not workers[-1].alive:
                workers.append(service.run("work", **settings))
            ends = [(await service.task(n))["state"] for n in ("poison1", "poison5")]
            if ends == ["dead", "dead"]:
                break
            await asyncio.sleep(0.05)
    for name in ("poison1", "poison5"):
        task = await service.task(name)
        assert (task["dead_reason"], task["attempt"]) == ("crashed", 0)
        assert [a["outcome"] for a in task["attempts"][:5]] == ["lost"] * 5
    assert (await service.task("poison5"))["dead_letter"] == "delivered"
    for n in range(20):
        assert (await service.ended(f"fine{n}"))["state"] == "succeeded"


# -- Redis only --------------------------------------------------------------------------------


@pytest.fixture
def redis_store(redis_server: RedisServer, tmp_path: Path) -> dict[str, str]:
    return {"STORE_URL": redis_server.url, "NAMESPACE": tmp_path.name}


async def test_four_workers_on_one_redis_deliver_everything_once(
    redis_store: dict[str, str], receiver: Receiver, tmp_path: Path
) -> None:
    service = Service(redis_store, tmp_path)
    try:
        await service.serve("serve --no-worker")
        for _ in range(4):
            service.run("work")
        await service.create_many(
            [
                {"id": f"t{n}", "destination": {"url": receiver.url("/")}, "lane": f"lane{n % 7}"}
                for n in range(5000)
            ]
        )
        await until(lambda: len(receiver.got) >= 5000, 60)
        await service.ended("t4999")
        assert set(receiver.counts().values()) == {1}
        assert len(receiver.counts()) == 5000
    finally:
        await service.close()


async def test_redis_restarted_under_load_is_recovered_from_without_help(
    own_redis: Callable[..., RedisServer], receiver: Receiver, tmp_path: Path
) -> None:
    server = own_redis("--save", "", "--appendonly", "yes", "--appendfsync", "always")
    service = Service({"STORE_URL": server.url}, tmp_path)
    accepted: list[str] = []
    answers: set[int] = set()
    stop = asyncio.Event()

    async def load() -> None:
        number = 0
        while not stop.is_set():
            number += 1
            task = {"id": f"t{number}", "source": "e2e", "delay": 0, "base_delay": 0.5}
            task |= {"destination": {"url": receiver.url("/")}}  # type: ignore[dict-item]
            began = time.monotonic()
            with contextlib.suppress(aiohttp.ClientError):
                status, _ = await service.call("POST", "/tasks", task)
                answers.add(status)
                assert time.monotonic() - began < 5
                if status in (200, 201):
                    accepted.append(f"t{number}")
            await asyncio.sleep(0.005)

    try:
        process = await service.serve()
        loading = asyncio.create_task(load())
        await until(lambda: len(receiver.got) > 100)
        server.stop()
        await until(lambda: 503 in answers)
        assert (await service.call("GET", "/health"))[0] == 503
        assert (await service.call("GET", "/health"))[1] == {
            "status": "unhealthy", "error": "redis connection failed",
        }  # fmt: skip
        server.start()
        before = len(accepted)
        await until(lambda: len(accepted) > before + 50, 10)
        stop.set()
        await loading
        assert answers == {201, 503}
        await until(lambda: set(accepted) <= set(receiver.counts()), 15)
        assert (await service.call("GET", "/health"))[0] == 200
        log = process.logged()
        assert '"store unavailable"' in log
        assert '"store back"' in log
    finally:
        stop.set()
        await service.close()
