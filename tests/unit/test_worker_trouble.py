"""The loop in trouble: lost leases, a store that is away, shutdowns, killed workers."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from rebound.domain.attempt import DeadReason, Outcome, State
from rebound.domain.destination import Destination
from rebound.domain.task import Task
from rebound.engine import Engine
from rebound.worker import Limits, Worker
from tests.conftest import Clock
from tests.support import claimed, succeed, task, until
from tests.unit.scripted import FarStore, Gate, Heard, Receiver, ended, hanging, others_than, state

DEAD = Destination(url="http://dead.test/dlq")
Start = Callable[..., Worker]
pytestmark = pytest.mark.usefixtures("nothing_is_left_behind", "short_pauses")


@pytest.fixture
def engine(core: Engine) -> Engine:
    return core


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


async def test_a_lease_is_extended_while_its_outcome_cannot_be_settled(
    engine: Engine, start: Start, receiver: Receiver, clock: Clock, far: FarStore, heard: Heard
) -> None:
    far.away = {"settle"}
    await engine.submit(task("a"))
    start(lease=0.03)
    await until(lambda: "settle" in far.calls)
    for _ in range(5):
        clock.advance(0.025)
        seen = far.calls.count("extend")
        await until(lambda seen=seen: far.calls.count("extend") >= seen + 2)
    assert await claimed(far.behind) == []
    far.away = set()
    await ended(engine, "a")
    assert "lease lost" not in heard.of("a")


async def test_an_attempt_whose_lease_another_worker_took_is_cancelled_and_changes_nothing(
    engine: Engine, start: Start, receiver: Receiver, clock: Clock, far: FarStore, heard: Heard
) -> None:
    receiver.answers = [hanging]
    await engine.submit(task("a"))
    far.slow["extend"] = asyncio.Event()
    worker = start(lease=0.03)
    await until(lambda: far.under_way["extend"] and not far.under_way["claim"])
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
    await until(lambda: receiver.under_way and not far.under_way["claim"])
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
    await until(lambda: receiver.under_way and not far.under_way["claim"])
    clock.advance(61)
    worker.wake()
    after = await ended(engine, "a")
    assert [(a.number, a.outcome) for a in after.attempts] == [
        (1, Outcome.LOST), (1, Outcome.SUCCEEDED),
    ]  # fmt: skip
    assert heard.of("a") == ["task scheduled", "lease lost", "lease lost", "task delivered"]
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
    engine: Engine, start: Start, receiver: Receiver
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


async def test_the_worker_that_takes_over_tells_that_a_lease_was_lost(
    engine: Engine, start: Start, clock: Clock, heard: Heard
) -> None:
    await engine.submit(task("a"))
    await claimed(engine.store)
    clock.advance(61)
    start()
    await ended(engine, "a")
    assert heard.of("a") == ["task scheduled", "lease lost", "task delivered"]


async def test_a_listener_that_raises_costs_no_slot_and_does_not_hold_up_the_end(
    engine: Engine, start: Start, heard: Heard, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(event: object) -> None:
        raise OSError("no space left on device")

    engine._listeners = [broken, heard]
    for name in "abcdef":
        await engine.submit(task(name))
    worker = start(concurrency=2)
    for name in "abcdef":
        assert (await ended(engine, name)).state == State.SUCCEEDED
    await worker.drain()
    assert "no space left" in capsys.readouterr().err
    assert worker.busy == 0
    assert heard.kinds.count("task delivered") == 6
