"""The loop: claim, deliver, settle, extend, drain, on the real in-memory store."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from rebound.adapters.stores.sqlite import SqliteStore
from rebound.domain.attempt import DeadReason, Leg, Outcome, State
from rebound.domain.destination import Destination
from rebound.domain.errors import DeliveryError
from rebound.domain.task import Task
from rebound.engine import Engine, Policy
from rebound.worker import Limits, Worker
from tests.conftest import Clock
from tests.support import claimed, succeed, task, until
from tests.unit.scripted import FarStore, Gate, Heard, Receiver, hanging

DEAD = Destination(url="http://dead.test/dlq")
REFUSED = DeliveryError("HTTP 500", status=500)
Start = Callable[..., Worker]


def others_than(known: set[asyncio.Task[Any]]) -> set[asyncio.Task[Any]]:
    return asyncio.all_tasks() - known - {asyncio.current_task()}  # type: ignore[operator]


@pytest.fixture(autouse=True)
def _short_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rebound.worker.STORE_PAUSE", 0.005)


@pytest.fixture(autouse=True)
async def _nothing_is_left_behind() -> AsyncIterator[None]:
    before = asyncio.all_tasks()
    yield
    assert others_than(before) == set()


@pytest.fixture
def receiver() -> Receiver:
    return Receiver()


@pytest.fixture
def heard() -> Heard:
    return Heard()


@pytest.fixture
async def far(clock: Clock) -> AsyncIterator[FarStore]:
    store = SqliteStore(":memory:", clock=clock)
    yield FarStore(store)
    await store.aclose()


@pytest.fixture
def engine(far: FarStore, receiver: Receiver, heard: Heard) -> Engine:
    return Engine(far, {"http": receiver}, Policy(), [heard])  # type: ignore[arg-type]


@pytest.fixture
async def start(engine: Engine, clock: Clock) -> AsyncIterator[Start]:
    """Starts a worker that polls so rarely that only wakes count."""
    workers: list[Worker] = []

    def begin(**limits: Any) -> Worker:
        limits = {"poll_interval": 60.0, "grace": 0.0, **limits}
        workers.append(Worker(engine, ["http"], Limits(**limits), clock))
        workers[-1].start()
        return workers[-1]

    yield begin
    for worker in workers:
        await worker.drain()


async def state(engine: Engine, id_: str) -> State | None:
    return (await engine.get(id_)).state


async def ended(engine: Engine, id_: str) -> Task:
    async with asyncio.timeout(20):
        while (found := await engine.get(id_)).state in (State.SCHEDULED, State.DELIVERING):
            await asyncio.sleep(0.002)
    return found


# -- claiming ----------------------------------------------------------------------------------


async def test_a_due_task_is_delivered_and_settled(
    engine: Engine, start: Start, receiver: Receiver, heard: Heard
) -> None:
    await engine.submit(task("a"))
    worker = start()
    assert (await ended(engine, "a")).state == State.SUCCEEDED
    assert receiver.ids == ["a"]
    assert worker.busy == 0
    assert heard.kinds == ["task scheduled", "worker started", "task delivered"]
    assert heard.events[1].detail == "http"


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
    engine.producers["call"] = receiver  # type: ignore[index]
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


# -- leases ------------------------------------------------------------------------------------


async def test_a_lease_is_extended_while_its_attempt_runs(
    engine: Engine, start: Start, receiver: Receiver, clock: Clock, far: FarStore
) -> None:
    gate = Gate()
    receiver.answers = [gate]
    await engine.submit(task("a"))
    start(lease=0.03)
    await until(lambda: receiver.under_way)
    for _ in range(5):
        clock.advance(0.025)
        seen = far.calls.count("extend")
        await until(lambda seen=seen: far.calls.count("extend") >= seen + 2)
    gate.open.set()
    after = await ended(engine, "a")
    assert (after.state, len(after.attempts)) == (State.SUCCEEDED, 1)


async def test_an_attempt_whose_lease_another_worker_took_is_cancelled_and_changes_nothing(
    engine: Engine, start: Start, receiver: Receiver, clock: Clock, far: FarStore, heard: Heard
) -> None:
    receiver.answers = [hanging]
    await engine.submit(task("a"))
    far.slow["extend"] = asyncio.Event()
    worker = start(lease=0.03)
    await until(lambda: receiver.under_way and "extend" in far.calls)
    far.slow["claim"] = asyncio.Event()
    clock.advance(1)
    (others,) = await claimed(far.behind)
    far.slow["extend"].set()
    await until(lambda: receiver.under_way == 0)
    assert worker.busy == 0
    assert heard.of("a") == ["task scheduled", "lease lost"]
    assert "settle" not in far.calls
    assert await far.behind.settle([succeed(others, clock())]) == []
    far.slow["claim"].set()


async def test_an_outcome_that_comes_after_the_lease_was_lost_is_told_and_dropped(
    engine: Engine, start: Start, receiver: Receiver, clock: Clock, far: FarStore, heard: Heard
) -> None:
    gate = Gate()
    receiver.answers = [gate]
    await engine.submit(task("a"))
    start()
    await until(lambda: receiver.under_way)
    far.slow["claim"] = asyncio.Event()
    clock.advance(61)
    (others,) = await claimed(far.behind)
    gate.open.set()
    await until(lambda: "lease lost" in heard.kinds)
    assert heard.of("a") == ["task scheduled", "lease lost"]
    found = await engine.get("a")
    assert (found.state, found.lost) == (State.DELIVERING, others.lost)
    far.slow["claim"].set()


async def test_a_lease_that_expired_here_is_claimed_here_again_and_delivered_once_more(
    engine: Engine, start: Start, receiver: Receiver, clock: Clock, far: FarStore, heard: Heard
) -> None:
    receiver.answers = [hanging, None]
    await engine.submit(task("a"))
    far.away = {"extend"}
    worker = start()
    await until(lambda: receiver.under_way)
    clock.advance(61)
    worker.wake()
    after = await ended(engine, "a")
    assert [(a.number, a.outcome) for a in after.attempts] == [
        (1, Outcome.LOST), (1, Outcome.SUCCEEDED),
    ]  # fmt: skip
    assert heard.of("a") == ["task scheduled", "lease lost", "task delivered"]
    await until(lambda: worker.busy == 0 and receiver.under_way == 0)


# -- a store that goes away --------------------------------------------------------------------


async def test_outcomes_are_kept_and_nothing_new_is_claimed_until_the_store_is_back(
    engine: Engine, start: Start, receiver: Receiver, far: FarStore, heard: Heard
) -> None:
    far.away = {"settle"}
    await engine.submit(task("a"))
    worker = start(poll_interval=0.002)
    await until(lambda: "store unavailable" in heard.kinds)
    await engine.submit(task("b"))
    tried = far.calls.count("settle")
    await until(lambda: far.calls.count("settle") >= tried + 3)
    assert receiver.ids == ["a"]
    assert worker.busy == 1
    assert await state(engine, "a") == State.DELIVERING
    far.away = set()
    await ended(engine, "a")
    await ended(engine, "b")
    assert receiver.ids == ["a", "b"]
    assert heard.kinds.count("store unavailable") == heard.kinds.count("store back") == 1
    assert heard.kinds.index("store back") < heard.kinds.index("task delivered")


async def test_a_store_that_is_away_at_the_claim_is_asked_again_and_told_once(
    engine: Engine, start: Start, far: FarStore, heard: Heard
) -> None:
    await engine.submit(task("a"))
    far.away = {"claim", "watch"}
    start()
    await until(lambda: far.calls.count("claim") >= 4)
    far.away = set()
    await ended(engine, "a")
    told = [(e.kind, e.detail) for e in heard.events if e.kind.startswith("store")]
    assert told == [("store unavailable", "the store is away"), ("store back", None)]


async def test_a_claim_or_watch_that_breaks_is_logged_and_tried_again(
    engine: Engine, start: Start, far: FarStore, caplog: pytest.LogCaptureFixture
) -> None:
    await engine.submit(task("a"))
    far.breaks = {"claim": lambda _: True, "watch": lambda _: True}
    start()
    await until(lambda: far.calls.count("claim") >= 3 and far.calls.count("watch") >= 3)
    far.breaks = {}
    await ended(engine, "a")
    assert "claiming failed; trying again" in caplog.text
    assert "watching failed; polling goes on" in caplog.text


async def test_a_task_that_cannot_be_settled_does_not_hold_up_its_neighbours(
    engine: Engine, start: Start, far: FarStore, caplog: pytest.LogCaptureFixture
) -> None:
    far.breaks["settle"] = lambda tasks: any(t.id == "t3" for t in tasks)
    await engine.submit_many([task(f"t{n}", lane=f"lane{n}") for n in range(6)])
    worker = start()
    for n in (0, 1, 2, 4, 5):
        await ended(engine, f"t{n}")
    await until(lambda: worker.busy == 0)
    assert await state(engine, "t3") == State.DELIVERING
    assert "task t3 cannot be settled; its lease will expire" in caplog.text


# -- the end -----------------------------------------------------------------------------------


async def test_a_drain_waits_for_what_runs_and_claims_nothing_more(
    engine: Engine, start: Start, receiver: Receiver, heard: Heard
) -> None:
    gate = Gate()
    receiver.answers = [gate]
    await engine.submit(task("a"))
    worker = start(grace=20)
    await until(lambda: receiver.under_way)
    draining = asyncio.create_task(worker.drain())
    await asyncio.sleep(0)
    await engine.submit(task("late"))
    worker.wake()
    assert not draining.done()
    gate.open.set()
    await draining
    assert await state(engine, "a") == State.SUCCEEDED
    assert await state(engine, "late") == State.SCHEDULED
    assert receiver.ids == ["a"]
    assert heard.kinds[-1] == "worker stopped"


async def test_after_the_grace_attempts_are_cut_short_and_not_counted(
    engine: Engine, start: Start, receiver: Receiver, clock: Clock
) -> None:
    receiver.answers = [hanging]
    await engine.submit_many([task(f"t{n}", lane=f"lane{n}") for n in range(5)])
    worker = start(grace=0.01)
    await until(lambda: receiver.under_way == 5)
    await worker.drain()
    assert worker.busy == 0
    for n in range(5):
        found = await engine.get(f"t{n}")
        assert (found.state, found.attempt, found.number) == (State.SCHEDULED, 0, 1)
        assert [a.outcome for a in found.attempts] == [Outcome.CUT_SHORT]
        assert (found.due_at or 0) <= clock()
    assert len(await claimed(engine.store)) == 5


async def test_a_drain_settles_what_could_not_be_settled_before(
    engine: Engine, start: Start, far: FarStore
) -> None:
    far.away = {"settle"}
    await engine.submit(task("a"))
    worker = start(grace=20)
    await until(lambda: far.calls.count("settle") >= 2)
    draining = asyncio.create_task(worker.drain())
    await until(lambda: far.calls.count("settle") >= 4)
    far.away = set()
    await draining
    assert await state(engine, "a") == State.SUCCEEDED


async def test_a_drain_does_not_wait_for_ever_for_a_store_that_is_away(
    engine: Engine, start: Start, far: FarStore
) -> None:
    far.away = {"settle"}
    await engine.submit(task("a"))
    worker = start(grace=0.01)
    await until(lambda: "settle" in far.calls)
    async with asyncio.timeout(2):
        await worker.drain()
    assert await state(engine, "a") == State.DELIVERING


async def test_draining_twice_or_unstarted_does_nothing(engine: Engine, start: Start) -> None:
    await Worker(engine, ["http"]).drain()
    worker = start()
    await worker.drain()
    await worker.drain()


# -- a message that kills workers --------------------------------------------------------------


class Mortal:
    """A worker in a process of its own, which a poisonous message ends at once."""

    def __init__(self, far: FarStore, clock: Clock) -> None:
        self._before = asyncio.all_tasks()
        self._far = FarStore(far.behind)
        engine = Engine(self._far, {"http": Receiver(self._answer)})  # type: ignore[arg-type]
        self._worker = Worker(engine, ["http"], Limits(poll_interval=60), clock)
        self._worker.start()
        self.killed = False

    async def _answer(self, one: Task) -> None:
        self.killed = self.killed or one.id == "poison"
        if self.killed:
            self._far.away = {"settle", "claim", "extend", "watch"}
            await asyncio.Event().wait()

    async def work(self) -> None:
        """Everything that is due, or until it is killed."""
        looks = self._far.calls.count("claim")
        self._worker.wake()
        await until(lambda: self.killed or self._far.calls.count("claim") > looks)
        await until(lambda: self.killed or not self._worker.busy)

    async def end(self) -> None:
        """Like `kill -9` where it was killed: nothing is settled."""
        if not self.killed:
            await self._worker.drain()
        while left := others_than(self._before):
            for running in left:
                running.cancel()
            await asyncio.wait(left)


async def test_a_poisonous_task_ends_as_crashed_while_its_neighbours_arrive(
    engine: Engine, far: FarStore, clock: Clock
) -> None:
    await engine.submit(task("poison"))
    count = kills = 0
    mortal = Mortal(far, clock)
    while (poison := await engine.get("poison")).state != State.DEAD:
        await engine.submit(task(f"n{count}"))
        count += 1
        await mortal.work()
        if mortal.killed:
            await mortal.end()
            kills += 1
            mortal = Mortal(far, clock)
        clock.advance(2)
        assert count < 1000
    assert kills == 5
    assert (poison.dead_reason, poison.attempt) == (DeadReason.CRASHED, 0)
    assert [a.outcome for a in poison.attempts] == [Outcome.LOST] * 5
    clock.advance(120)
    await mortal.work()
    for n in range(count):
        after = await ended(engine, f"n{n}")
        assert (after.state, after.attempt) == (State.SUCCEEDED, 1)
    await mortal.end()
