"""The loop: claim, deliver, settle, within its bounds."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any

import pytest

from rebound.adapters.stores.sqlite import SqliteStore
from rebound.domain.attempt import DeadReason, Leg, Outcome, State
from rebound.domain.destination import Destination
from rebound.domain.errors import DeliveryError
from rebound.engine import Engine
from rebound.worker import Limits, Worker
from tests.conftest import Clock
from tests.support import task, until
from tests.unit.scripted import FarStore, Gate, Heard, Receiver, ended, hanging, state

DEAD = Destination(url="http://dead.test/dlq")
REFUSED = DeliveryError("HTTP 500", status=500)
Start = Callable[..., Worker]
pytestmark = pytest.mark.usefixtures("nothing_is_left_behind", "short_pauses")


@pytest.fixture
def engine(core: Engine) -> Engine:
    return core


# -- claiming ----------------------------------------------------------------------------------


async def test_a_due_task_is_delivered_and_settled(
    engine: Engine, start: Start, receiver: Receiver, heard: Heard
) -> None:
    await engine.submit(task("a"))
    worker = start()
    assert (await ended(engine, "a")).state == State.SUCCEEDED
    assert receiver.ids == ["a"]
    assert worker.busy == 0
    assert heard.kinds == ["task scheduled", "task delivered"]


async def test_a_new_task_wakes_a_worker_that_sleeps(
    engine: Engine, start: Start, receiver: Receiver, far: FarStore
) -> None:
    await engine.submit(task("later", delay=50))
    start()
    await until(lambda: "claim" in far.calls)
    await engine.submit(task("now", "two"))
    await ended(engine, "now")
    assert receiver.ids == ["now"]


async def test_retries_happen_when_their_time_has_come_and_not_before(
    engine: Engine, start: Start, receiver: Receiver, clock: Clock, far: FarStore
) -> None:
    receiver.answers = [REFUSED, REFUSED, None]
    worker = start()
    await engine.submit(task("a", delay=None))
    for number, wait in enumerate((10, 20, 40)):
        clock.advance(wait - 1)
        looks = far.calls.count("claim")
        worker.wake()
        await until(lambda seen=looks: far.calls.count("claim") > seen)
        assert len(receiver.sent) == number
        clock.advance(1)
        worker.wake()
        await until(lambda seen=number: len(receiver.sent) > seen)
        await until(lambda: worker.busy == 0)
    after = await ended(engine, "a")
    assert (after.state, after.attempt) == (State.SUCCEEDED, 3)
    assert [t.number for t in receiver.sent] == [1, 2, 3]


async def test_a_slow_answer_of_the_store_makes_no_retry_early(
    engine: Engine, start: Start, receiver: Receiver, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = engine.store.behind  # type: ignore[attr-defined]
    claim = store.claim

    async def late(*values: Any, **named: Any) -> Any:
        claimed = await claim(*values, **named)
        clock.advance(3)
        return claimed

    monkeypatch.setattr(store, "claim", late)
    receiver.answers = [REFUSED]
    before = clock()
    await engine.submit(task("a"))
    worker = start()
    await until(lambda: len(receiver.sent) == 1 and worker.busy == 0)
    assert (await engine.get("a")).due_at == pytest.approx(before + 3 + 20, abs=0.001)


async def test_a_worker_frozen_between_claim_and_attempt_sends_nothing_of_what_it_lost(
    engine: Engine, start: Start, receiver: Receiver, clock: Clock, heard: Heard,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    store = engine.store.behind  # type: ignore[attr-defined]
    claim, frozen = store.claim, [61.0]

    async def freezes_once(*values: Any, **named: Any) -> Any:
        claimed = await claim(*values, **named)
        clock.advance(frozen.pop() if frozen and claimed.tasks else 0)
        return claimed

    monkeypatch.setattr(store, "claim", freezes_once)
    await engine.submit(task("a"))
    worker = start(lease=60)
    await until(lambda: "lease lost" in heard.kinds)
    worker.wake()
    after = await ended(engine, "a")
    assert receiver.ids == ["a"]
    assert [a.outcome for a in after.attempts] == [Outcome.LOST, Outcome.SUCCEEDED]


async def test_the_worker_sleeps_until_the_next_task_is_due(receiver: Receiver) -> None:
    """With real clocks: no poll and no wake, and never before its time."""
    engine = Engine(SqliteStore(":memory:"), {"http": receiver})
    worker = Worker(engine, ["http"], Limits(poll_interval=60))
    worker.start()
    arrived: list[float] = []
    receiver.answers = [lambda _: arrived.append(time.time())]
    stored = (await engine.submit(task("a", delay=0.05))).task
    await until(lambda: arrived)
    assert 0 <= arrived[0] - (stored.due_at or 0) < 0.1
    await worker.drain()
    await engine.aclose()


async def test_the_whole_way_to_a_dead_letter(
    engine: Engine, start: Start, receiver: Receiver, clock: Clock, heard: Heard
) -> None:
    receiver.answers = [lambda t: None if t.leg == Leg.DEAD else REFUSED]
    worker = start(poll_interval=0.001)
    await engine.submit(task("a", max_retries=2, dead_destination=DEAD))
    await until(lambda: "retry scheduled" in heard.kinds)
    clock.advance(20)
    worker.wake()
    after = await ended(engine, "a")
    assert (after.state, after.dead_reason, after.dead_letter) == (
        State.DEAD, DeadReason.EXHAUSTED, "delivered",
    )  # fmt: skip
    await until(lambda: worker.busy == 0)
    assert heard.of("a") == [
        "task scheduled", "delivery failed", "retry scheduled", "delivery failed", "task dead",
        "dead letter delivered",
    ]  # fmt: skip


async def test_only_what_the_worker_serves_is_claimed(
    engine: Engine, start: Start, receiver: Receiver
) -> None:
    engine.producers["call:x"] = receiver  # type: ignore[index]
    await engine.submit(task("c", destination=Destination(url="call://x")))
    await engine.submit(task("h"))
    start()
    await ended(engine, "h")
    assert receiver.ids == ["h"]


# -- bounds ------------------------------------------------------------------------------------


async def test_no_more_run_at_a_time_than_there_are_slots(
    engine: Engine, start: Start, receiver: Receiver
) -> None:
    gate = Gate()
    receiver.answers = [gate]
    await engine.submit_many([task(f"t{n}", lane=f"lane{n}") for n in range(10)])
    worker = start(concurrency=3)
    await until(lambda: receiver.under_way == 3)
    worker.wake()
    gate.open.set()
    for n in range(10):
        await ended(engine, f"t{n}")
    assert receiver.most == 3
    assert len(receiver.sent) == 10


async def test_what_is_not_settled_yet_takes_a_slot(
    engine: Engine, start: Start, receiver: Receiver, far: FarStore
) -> None:
    far.slow["settle"] = asyncio.Event()
    await engine.submit_many([task(f"t{n}", lane=f"lane{n}") for n in range(4)])
    worker = start(concurrency=2)
    await until(lambda: len(receiver.sent) == 2 and not receiver.under_way)
    worker.wake()
    await engine.submit(task("more"))
    assert worker.busy == 2
    assert len(receiver.sent) == 2
    far.slow["settle"].set()
    await ended(engine, "more")


async def test_a_lane_that_hangs_leaves_the_others_their_share(
    engine: Engine, start: Start, receiver: Receiver
) -> None:
    receiver.answers = [lambda t: hanging(t) if "slow" in t.destination.url else None]
    await engine.submit_many([task(f"s{n}", "slow") for n in range(50)])
    start(concurrency=20, lane_concurrency=100)
    await until(lambda: receiver.under_way >= 10)
    await engine.submit_many([task(f"q{n}", "quick") for n in range(100)])
    for n in range(100):
        await ended(engine, f"q{n}")
    assert receiver.under_way == 10


async def test_a_lane_has_its_limit_over_all_workers(
    engine: Engine, start: Start, receiver: Receiver, far: FarStore
) -> None:
    receiver.answers = [hanging]
    await engine.submit_many([task(f"t{n}") for n in range(9)])
    first, second = (start(lane_concurrency=4) for _ in range(2))
    await until(lambda: receiver.under_way == 4)
    looks = far.calls.count("claim")
    for worker in (first, second):
        worker.wake()
    await until(lambda: far.calls.count("claim") >= looks + 2)
    assert receiver.under_way == 4


# -- whatever producers do ---------------------------------------------------------------------


async def test_a_producer_that_raises_anything_costs_an_attempt_and_no_worker(
    engine: Engine, start: Start, receiver: Receiver
) -> None:
    errors = [ValueError("x"), asyncio.CancelledError(), RecursionError(), OSError(5), REFUSED]
    receiver.answers = [*errors, None]
    await engine.submit_many([task(f"t{n}") for n in range(len(errors))])
    worker = start()
    await until(lambda: len(receiver.sent) == len(errors) and worker.busy == 0)
    for n in range(len(errors)):
        found = await engine.get(f"t{n}")
        assert (found.state, found.attempt) == (State.SCHEDULED, 1)
        assert found.attempts[0].outcome == Outcome.FAILED
    await engine.submit(task("next"))
    await ended(engine, "next")


async def test_an_attempt_that_breaks_the_engine_is_left_to_its_lease(
    engine: Engine, start: Start, receiver: Receiver, caplog: pytest.LogCaptureFixture
) -> None:
    receiver.answers = [lambda t: "no receipt" if t.id == "odd" else None]
    await engine.submit_many([task("odd"), task("even")])
    worker = start()
    await ended(engine, "even")
    await until(lambda: worker.busy == 0)
    assert await state(engine, "odd") == State.DELIVERING
    assert "task odd: the attempt broke; its lease will expire" in caplog.text
