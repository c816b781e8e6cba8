"""A task goes all the way, through real processes, on both stores."""

from __future__ import annotations

import asyncio
import time
from email.utils import formatdate

import pytest
from aiohttp import web

from tests.conftest import free_port
from tests.e2e.conftest import Answer, Got, Receiver, Service
from tests.support import until

LATE = 0.1
"""Seconds after its due time by which an attempt must have started (spec 11)."""
SLACK = 0.4
"""What a loaded test machine may add to that."""


def fails(times: int, status: int = 503, headers: dict[str, str] | None = None) -> Answer:
    def answer(got: Got) -> web.Response:
        if got.attempt <= times:
            return web.Response(status=status, headers=headers)
        return web.Response(text="taken")

    return answer


async def test_a_webhook_that_fails_twice_arrives_on_the_third_attempt_at_the_promised_time(
    service: Service, receiver: Receiver
) -> None:
    await service.serve()
    receiver.answers["/hook"] = fails(2)
    await service.create(
        id="order-1", destination={"url": receiver.url("/hook")}, delay=None,
        base_delay=0.5, message_data={"order": 1},
    )  # fmt: skip
    task = await service.ended("order-1")
    assert (task["state"], task["attempt"]) == ("succeeded", 3)
    assert [a["outcome"] for a in task["attempts"]] == ["failed", "failed", "succeeded"]
    starts = [g.at for g in receiver.got]
    created = starts[0] - 0.5
    for start, due in zip(starts, (0.5, 1.5, 3.5), strict=True):
        assert due - 0.005 <= start - created <= due + 2 * LATE + SLACK
    assert {g.body for g in receiver.got} == {b'{"order": 1}'}
    assert {g.headers["X-Message-Key"] for g in receiver.got} == {"order-1"}
    assert [g.attempt for g in receiver.got] == [1, 2, 3]


async def test_attempts_follow_the_timeline_and_then_the_dead_leg_starts_at_once(
    service: Service, receiver: Receiver
) -> None:
    await service.serve()
    receiver.answers["/hook"] = lambda got: web.Response(status=500, text="broken é")
    began = time.time()
    await service.create(
        id="t", destination={"url": receiver.url("/hook?secret=1")}, delay=None,
        dead_destination={"url": receiver.url("/dlq"), "headers": {"X-Team": "ops"}},
        max_retries=4, base_delay=0.2, message_data="payload", client_id="c",
    )  # fmt: skip
    task = await service.ended("t")
    assert (task["state"], task["leg"], task["dead_letter"]) == ("dead", "dead", "delivered")
    assert (task["dead_reason"], task["attempt"]) == ("exhausted", 4)
    main = [g.at - began for g in receiver.got if g.path == "/hook"]
    for start, due in zip(main, (0.2, 0.6, 1.4, 3.0), strict=True):
        assert due <= start + 0.005 <= due + 4 * LATE + SLACK
    (dead,) = [g for g in receiver.got if g.path == "/dlq"]
    assert dead.at - began - main[-1] < LATE + SLACK
    assert dead.body == b"payload"
    wanted = {
        "X-Message-Key": "t", "X-Rebound-Task-Id": "t", "X-Rebound-Attempt": "1",
        "X-Rebound-Dead-Reason": "exhausted", "X-Rebound-Attempts": "4",
        "X-Rebound-Source": "e2e", "X-Team": "ops",
        "X-Rebound-Original-Destination": receiver.url("/hook"),
    }  # fmt: skip
    assert wanted.items() <= dead.headers.items()
    assert dead.headers["X-Rebound-Last-Error"].startswith("HTTP 500")


async def test_a_receiver_that_is_down_gets_the_message_when_it_is_back(service: Service) -> None:
    await service.serve()
    receiver = Receiver(free_port())
    await service.create(
        id="t", destination={"url": receiver.url("/")}, base_delay=0.2, max_retries=20,
        backoff={"strategy": "fixed"},
    )  # fmt: skip
    async with asyncio.timeout(10):
        while (await service.task("t"))["attempt"] < 2:
            await asyncio.sleep(0.02)
    await receiver.start()
    task = await service.ended("t")
    await receiver.stop()
    assert task["state"] == "succeeded"
    assert "refused" in task["attempts"][0]["error"]


async def test_a_slow_receiver_is_a_timeout(service: Service, receiver: Receiver) -> None:
    async def hang(got: Got) -> web.Response:
        await asyncio.sleep(5 if got.attempt == 1 else 0)
        return web.Response()

    await service.serve()
    receiver.answers["/slow"] = hang
    await service.create(
        id="t", destination={"url": receiver.url("/slow"), "timeout": 0.2}, base_delay=0.1
    )
    task = await service.ended("t")
    assert [a["outcome"] for a in task["attempts"]] == ["timeout", "succeeded"]
    assert task["attempts"][0]["duration_ms"] == pytest.approx(200, abs=150)


async def test_a_redirect_is_a_failure_and_not_followed(
    service: Service, receiver: Receiver
) -> None:
    await service.serve()
    receiver.answers["/moved"] = lambda got: web.Response(
        status=302, headers={"Location": receiver.url("/elsewhere")}
    )
    await service.create(id="t", destination={"url": receiver.url("/moved")}, max_retries=1)
    task = await service.ended("t")
    assert (task["state"], task["attempts"][0]["status"]) == ("dead", 302)
    assert [g.path for g in receiver.got] == ["/moved"]


@pytest.mark.parametrize("form", ["seconds", "date"])
async def test_retry_after_moves_the_next_attempt_later(
    service: Service, receiver: Receiver, form: str
) -> None:
    def busy(got: Got) -> web.Response:
        if got.attempt > 1:
            return web.Response()
        now = time.time()
        after = "2" if form == "seconds" else formatdate(int(now) + 2, usegmt=True)
        headers = {"Retry-After": after, "Date": formatdate(int(now), usegmt=True)}
        return web.Response(status=429, headers=headers)

    await service.serve()
    receiver.answers["/busy"] = busy
    await service.create(id="t", destination={"url": receiver.url("/busy")}, base_delay=0.05)
    await service.ended("t")
    first, second = (g.at for g in receiver.got)
    assert 2 <= second - first + 0.005 < 2 + LATE + SLACK


async def test_the_same_id_twice_is_one_task_or_a_conflict(
    service: Service, receiver: Receiver
) -> None:
    await service.serve()
    task = {"source": "s", "id": "t", "destination": {"url": receiver.url("/")}, "delay": 0}
    assert (await service.call("POST", "/tasks", task))[0] == 201
    status, body = await service.call("POST", "/tasks", {**task, "max_retries": 5})
    assert (status, body["created"], body["id"]) == (200, False, "t")
    status, body = await service.call("POST", "/tasks", {**task, "max_retries": 6})
    assert (status, body["code"]) == (409, "DUPLICATE_TASK")
    await service.ended("t")
    assert (await service.call("POST", "/tasks", task))[0] == 200
    assert len(receiver.of("t")) == 1


@pytest.mark.parametrize("order", ["in turn", "one after the other"])
async def test_twenty_hanging_destinations_do_not_delay_a_healthy_one(
    service: Service, receiver: Receiver, order: str
) -> None:
    connections: list[asyncio.StreamWriter] = []

    async def hang(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connections.append(writer)
        await reader.read()

    servers = [await asyncio.start_server(hang, "127.0.0.1", 0) for _ in range(20)]
    hosts = [f"http://127.0.0.1:{s.sockets[0].getsockname()[1]}/" for s in servers]
    try:
        await service.serve()
        tasks = [{"id": f"h{n}", "destination": {"url": hosts[n % 20]}} for n in range(4000)]
        if order == "in turn":
            await service.create_many(tasks)
        else:
            for host in range(20):
                await service.create_many(tasks[host::20])
        late = []
        for n in range(50):
            sent = time.time()
            await service.create(id=f"ok{n}", destination={"url": receiver.url("/")})
            await until(lambda n=n: receiver.of(f"ok{n}"), 10)
            late.append(receiver.of(f"ok{n}")[0].at - sent)
        assert sorted(late)[-2] < LATE + SLACK
    finally:
        await service.close()
        for closing in (*servers, *connections):
            closing.close()
            await closing.wait_closed()


async def test_the_store_is_waited_for_and_the_health_calls_tell(service: Service) -> None:
    await service.serve()
    name = "redis" if "redis" in service.settings["STORE_URL"] else "sqlite"
    assert await service.call("GET", "/health") == (
        200, {"status": "healthy", "checks": {name: "connected"}},
    )  # fmt: skip
    assert await service.call("GET", "/livez") == (200, {"status": "alive"})
