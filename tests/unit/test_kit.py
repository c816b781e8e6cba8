"""The test kit, as the tests of other programs use it."""

from __future__ import annotations

import asyncio
import random
import subprocess
import sys
import time
import unittest
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx2
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route
from starlette.testclient import TestClient

from rebound import Backoff, Config, Destination, Event, NotFound, Rebound, Task, ValidationError
from rebound.domain.errors import Closed
from rebound.testing import Answer, Kit
from tests.support import DAY, claim

HOOK = "https://api.partner.com/hook"
DEAD = "https://api.partner.com/dlq"


@pytest.fixture
def kit(rebound_kit: Kit) -> Kit:
    return rebound_kit


def order(id_: str = "order-1", **fields: Any) -> Task:
    fields.setdefault("destination", Destination(url=HOOK))
    return Task(id=id_, source="shop", message_data={"order": 1}, **fields)


async def state(kit: Kit, id_: str = "order-1") -> Any:
    task = await kit.rebound.get_task(id_)
    return task and task.state


# -- time lines ------------------------------------------------------------------------------


async def test_three_days_of_a_webhook_that_fails_fails_is_busy_and_takes_it(kit: Kit) -> None:
    kit.script(HOOK, 500, 500, Answer(429, retry_after=300), 200)
    await kit.rebound.create_task(order())
    assert kit.timeline("order-1") == []
    await kit.fast_forward("3d")
    assert kit.timeline("order-1") == [(10, 500), (30, 500), (70, 429), (370, 200)]


async def test_the_time_of_a_step_is_the_tasks_own_and_now_is_where_the_test_is(kit: Kit) -> None:
    kit.script(HOOK, 503)
    started = kit.clock()
    await kit.fast_forward("1h")
    created = await kit.rebound.create_task(order(max_retries=100))
    assert created.created_at == kit.clock() == started + 3600
    await kit.fast_forward(29.9)
    assert kit.timeline("order-1") == [(10, 503)]
    await kit.fast_forward(0.1)
    assert kit.timeline("order-1") == [(10, 503), (30, 503)]


async def test_two_months_of_retries_take_no_time(kit: Kit) -> None:
    kit.script(HOOK, 500)
    policy = Backoff(strategy="fixed")
    await kit.rebound.create_task(order(max_retries=60, base_delay=DAY, backoff=policy))
    began = time.perf_counter()
    await kit.fast_forward("60d")
    assert time.perf_counter() - began < 5
    assert kit.timeline("order-1") == [
        *((day * DAY, 500) for day in range(1, 61)), (60 * DAY, "exhausted")
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("fields", "script", "steps"),
    [
        ({"max_retries": 1}, [500], [(10, 500), (10, "exhausted"), (10, 200)]),
        ({"ttl": 25}, [500], [(10, 500), (25, "expired"), (25, 200)]),
        ({"destination": Destination(url=HOOK, fatal_statuses=[410])}, [410],
            [(10, 410), (10, "rejected"), (10, 200)]),
        ({}, [TimeoutError(), ConnectionError(), 200],
            [(10, "timeout"), (30, "failed"), (70, 200)]),
        ({"delay": 0}, [Answer(503, retry_after=3600)], [(0, 503), (3600, 503), (7200, 503)]),
    ],
)  # fmt: skip
async def test_whatever_ends_a_leg_is_a_step_and_the_dead_letter_follows(
    kit: Kit, fields: dict[str, Any], script: list[Any], steps: list[Any]
) -> None:
    kit.script(HOOK, *script)
    await kit.rebound.create_task(order(dead_destination=Destination(url=DEAD), **fields))
    await kit.fast_forward("2h")
    assert kit.timeline("order-1") == steps


async def test_a_long_retry_after_is_sent_in_full_and_obeyed_for_a_day(kit: Kit) -> None:
    kit.script(HOOK, Answer(429, retry_after=1_000_000), 200)
    await kit.rebound.create_task(order(delay=0))
    await kit.fast_forward("2d")
    assert kit.timeline("order-1") == [(0, 429), (DAY, 200)]


async def test_a_dead_letter_that_nobody_takes_is_tried_for_seven_days(kit: Kit) -> None:
    kit.script(HOOK, 500)
    kit.script(DEAD, 500)
    await kit.rebound.create_task(order(max_retries=1, dead_destination=Destination(url=DEAD)))
    await kit.fast_forward("8d")
    times = [at for at, _ in kit.timeline("order-1")]
    assert kit.timeline("order-1")[-1].what == "dead letter failed"
    assert times[2:6] == [10, 20, 40, 80]
    assert 7 * DAY - 3600 < times[-1] <= 7 * DAY + 10
    assert await state(kit) == "dead"


async def test_a_replay_goes_on_with_the_same_time_line(kit: Kit) -> None:
    kit.script(HOOK, 500)
    await kit.rebound.create_task(order(max_retries=1))
    await kit.fast_forward("1h")
    kit.script(HOOK, 200)
    await kit.rebound.replay("order-1")
    await kit.fast_forward(0)
    assert kit.timeline("order-1") == [(10, 500), (10, "exhausted"), (3600, 200)]


async def test_with_jitter_only_the_seed_decides(rebound_config: Config) -> None:
    lines = []
    for _ in range(2):
        random.seed(7)
        with Kit(rebound_config) as kit:
            kit.script(HOOK, 500)
            await kit.rebound.create_task(order(backoff=Backoff(jitter="full")))
            await kit.fast_forward("1d")
            lines.append(kit.timeline("order-1"))
    assert lines[0] == lines[1]
    assert len({at % 1 for at, _ in lines[0]}) > 2


async def test_an_unknown_id_is_an_error_that_names_those_that_are_known(kit: Kit) -> None:
    await kit.rebound.create_task(order())
    with pytest.raises(NotFound, match=r"no task order-2 was created; known are: order-1"):
        kit.timeline("order-2")


# -- what follows the clock --------------------------------------------------------------------


async def test_a_lease_that_another_worker_lost_ends_by_the_clock(kit: Kit) -> None:
    await kit.rebound.create_task(order(delay=0))
    (gone,) = (await claim(kit.rebound.engine.store, lease=60.0)).tasks
    await kit.fast_forward(59.9)
    assert kit.timeline("order-1") == []
    await kit.fast_forward(0.1)
    assert kit.timeline("order-1") == [(60, "lease lost"), (60, 200)]
    assert gone.id == "order-1"


async def test_what_was_delivered_is_forgotten_by_the_clock(kit: Kit) -> None:
    for number in range(250):
        await kit.rebound.create_task(order(f"o-{number}", delay=0))
    await kit.fast_forward("59m")
    assert len((await kit.rebound.find(limit=1000)).tasks) == 250
    await kit.fast_forward("61s")
    assert (await kit.rebound.find(limit=1000)).tasks == []
    assert await state(kit, "o-249") == "succeeded"  # a stub, until the dedup window is over
    await kit.fast_forward("1d")
    assert {await state(kit, f"o-{number}") for number in range(250)} == {None}


async def test_more_than_a_worker_can_take_at_once_is_delivered_at_the_same_time() -> None:
    with Kit(Config(concurrency=3, lane_concurrency=2)) as kit:
        for number in range(20):
            await kit.rebound.create_task(order(f"o-{number}"))
        await kit.fast_forward("10s")
        assert {tuple(kit.timeline(f"o-{number}")) for number in range(20)} == {((10.0, 200),)}


# -- destinations ------------------------------------------------------------------------------


async def test_a_destination_without_a_script_takes_everything_and_shows_it(kit: Kit) -> None:
    await kit.rebound.create_task(order(destination=Destination(url=f"{HOOK}?a=1", method="PUT")))
    await kit.fast_forward("1d")
    (sent,) = kit.sent(f"{HOOK}?a=1")
    assert (sent.method, sent.json(), sent.at) == ("PUT", {"order": 1}, kit.clock() - DAY + 10)
    assert sent.headers["X-Message-Key"] == "order-1"
    assert sent.headers["X-Rebound-Attempt"] == "1"
    assert kit.sent(HOOK) == []


async def test_each_message_gets_the_whole_script_and_a_new_script_replaces_the_old(
    kit: Kit,
) -> None:
    kit.script("https://API.partner.com/hook", 500, 200)
    for id_ in ("a", "b"):
        await kit.rebound.create_task(order(id_))
    await kit.fast_forward("1m")
    assert kit.timeline("a") == kit.timeline("b") == [(10, 500), (30, 200)]
    kit.script(HOOK, 418)
    await kit.rebound.create_task(order("c", max_retries=1))
    await kit.fast_forward("1m")
    assert kit.timeline("c") == [(10, 418), (10, "exhausted")]
    assert len(kit.sent(HOOK)) == 5


async def test_what_a_destination_answers_is_kept_with_the_attempt(kit: Kit) -> None:
    kit.script("https://me:secret@api.partner.com/hook", Answer(422, body="no such order"))
    await kit.rebound.create_task(order())
    await kit.fast_forward("10s")
    task = await kit.rebound.get_task("order-1")
    assert task is not None
    assert task.attempts[0].response == "no such order"


async def test_records_for_kafka_are_scripted_too(kit: Kit) -> None:
    url = "kafka://localhost:9092/orders"
    kit.script(url, 500, TimeoutError(), 200)
    await kit.rebound.create_task(order(destination=Destination(url=url)))
    await kit.fast_forward("1d")
    assert kit.timeline("order-1") == [(10, "failed"), (30, "failed"), (70, "succeeded")]
    assert [sent.json() for sent in kit.sent(url)] == [{"order": 1}] * 3


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda kit: kit.script(HOOK), "script: is empty"),
        (lambda kit: kit.script(HOOK, 199), "script: 199 is not an HTTP status from 200 to 599"),
        (lambda kit: kit.script(HOOK, "500"), "script: '500' is not an HTTP status"),
        (lambda kit: kit.script("api.partner.com", 500), "url: 'api.partner.com' is not a URL"),
        (lambda kit: kit.sent("/hook"), "url: '/hook' is not a URL"),
    ],
)
def test_a_wrong_script_is_refused_by_name(kit: Kit, call: Any, message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        call(kit)


@pytest.mark.parametrize("duration", ["soon", "-1", -1, float("nan"), float("inf"), None])
async def test_what_is_no_duration_is_refused(kit: Kit, duration: Any) -> None:
    with pytest.raises(ValidationError, match="fast_forward: "):
        await kit.fast_forward(duration)


# -- programs ----------------------------------------------------------------------------------


def program(rebound: Rebound) -> Starlette:
    """What a user would write: the lifespan opens Rebound, a request creates a task."""

    async def create(request: Request) -> JSONResponse:
        task = await rebound.create_task(order(request.path_params["id"]))
        return JSONResponse({"id": task.id, "state": task.state}, status_code=202)

    @asynccontextmanager
    async def lifespan(_: Starlette) -> Any:
        async with rebound:
            yield

    return Starlette(routes=[Route("/orders/{id}", create, methods=["POST"])], lifespan=lifespan)


async def test_a_task_created_in_a_request_is_delivered_when_the_time_has_come(kit: Kit) -> None:
    kit.script(HOOK, 500, 200)
    transport = httpx2.ASGITransport(program(kit.rebound))
    async with httpx2.AsyncClient(transport=transport, base_url="http://shop.test") as client:
        answer = await client.post("/orders/o-1")
    assert answer.status_code == 202
    await kit.fast_forward("1h")
    assert kit.timeline("o-1") == [(10, 500), (30, 200)]


def test_the_loop_of_a_synchronous_test_client_works_too(kit: Kit) -> None:
    kit.script(HOOK, 500, 200)
    with TestClient(program(kit.rebound)) as client:
        assert client.post("/orders/o-1").status_code == 202
        assert client.portal is not None
        client.portal.call(kit.fast_forward, "1h")
    assert kit.timeline("o-1") == [(10, 500), (30, 200)]


def test_a_synchronous_test_may_use_a_loop_for_each_call(kit: Kit) -> None:
    asyncio.run(kit.rebound.create_task(order()))
    asyncio.run(kit.fast_forward("1h"))
    assert kit.timeline("order-1") == [(10, 200)]


def test_unittest_and_plain_asyncio_need_no_pytest() -> None:
    class Orders(unittest.IsolatedAsyncioTestCase):
        async def test_hook(self) -> None:
            kit = self.enterContext(Kit())
            await kit.rebound.create_task(order())
            await kit.fast_forward("1h")
            assert kit.timeline("order-1") == [(10, 200)]

    result = unittest.TestResult()
    unittest.defaultTestLoader.loadTestsFromTestCase(Orders).run(result)
    assert (result.testsRun, result.errors, result.failures) == (1, [], [])


async def test_the_programs_own_settings_hold_but_for_store_network_and_time() -> None:
    heard: list[Event] = []
    own = Config(redis_addr="r:1", redis_password="pw", fatal_statuses="4xx", on_event=heard.append)
    with Kit(own) as kit:
        kit.script(HOOK, 404)
        await kit.rebound.create_task(order())
        await kit.fast_forward("1h")
        assert kit.timeline("order-1") == [(10, 404), (10, "rejected")]
    assert [event.kind for event in heard] == ["task scheduled", "delivery failed", "task dead"]
    with pytest.raises(Closed):
        await kit.fast_forward(0)


@pytest.fixture
def rebound_config(request: pytest.FixtureRequest) -> Config:
    return Config(max_payload_bytes=20) if "settings" in request.node.name else Config()


async def test_a_test_suite_says_the_settings_of_the_fixture(kit: Kit) -> None:
    with pytest.raises(ValidationError):
        await kit.rebound.create_task(
            Task(source="s", destination=Destination(url=HOOK), message_data="x" * 21)
        )


def test_the_fixture_works_whatever_runs_the_asynchronous_tests(tmp_path: Path) -> None:
    (tmp_path / "test_both.py").write_text(
        "import pytest\n"
        "@pytest.fixture\ndef anyio_backend(): return 'asyncio'\n"
        "@pytest.mark.asyncio\nasync def test_one(rebound_kit):\n"
        "    await rebound_kit.fast_forward('3d')\n"
        "@pytest.mark.anyio\nasync def test_two(rebound_kit):\n"
        "    await rebound_kit.fast_forward('3d')\n"
    )
    command = [sys.executable, "-m", "pytest", "-q", "-o", "asyncio_mode=strict"]
    done = subprocess.run(command, capture_output=True, check=True, cwd=tmp_path, text=True)
    assert "2 passed" in done.stdout


async def test_nothing_is_left_behind() -> None:
    before = asyncio.all_tasks()
    with Kit() as kit:
        await kit.rebound.create_task(order())
        await kit.fast_forward("1h")
    assert asyncio.all_tasks() == before


def test_the_plugin_costs_nothing_where_it_is_not_used(tmp_path: Path) -> None:
    source = "import sys, pytest; pytest.main(['-q']); print('rebound' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", source], capture_output=True, check=True, cwd=tmp_path, text=True
    )
    assert done.stdout.endswith("False\n")
