"""Into the store, and what people do with tasks there."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from msgspec.structs import replace

from rebound.adapters.stores.sqlite import SqliteStore
from rebound.attempting import Policy
from rebound.domain import validation
from rebound.domain.attempt import DeadLetter, Leg, State
from rebound.domain.destination import Destination
from rebound.domain.errors import (
    Closed,
    DeliveryError,
    DuplicateTask,
    NotFound,
    PayloadTooLarge,
    StoreFull,
    StoreUnavailable,
    TaskBusy,
    ValidationError,
    WrongState,
)
from rebound.domain.task import Task
from rebound.engine import Engine, Submitted
from rebound.ports import Filter
from tests.conftest import Clock
from tests.support import claimed, task, until
from tests.unit.scripted import FarStore, Heard, Receiver, deliver

DEAD = Destination(url="http://dead.test/dlq")
REFUSED = DeliveryError("HTTP 500", status=500, response="oops")


@pytest.fixture
def engine(core: Engine) -> Engine:
    return core


# -- in ----------------------------------------------------------------------------------------


async def test_a_submitted_task_is_in_the_store_when_submit_returns(
    engine: Engine, heard: Heard
) -> None:
    submitted = await engine.submit(task("a", delay=90))
    assert submitted.created
    kept = await engine.get("a")
    assert (kept.state, kept.leg, kept.attempt) == (State.SCHEDULED, Leg.MAIN, 0)
    for one in (submitted.task, kept):
        assert one.due_at == pytest.approx((one.created_at or 0) + 90)
    assert submitted.task.created_at == kept.created_at
    assert heard.kinds == ["task scheduled"]


async def test_a_task_without_id_gets_one_that_sorts_by_time(engine: Engine) -> None:
    first = (await engine.submit(task(""))).task.id
    await asyncio.sleep(0.002)
    second = (await engine.submit(task(""))).task.id
    assert first < second
    assert (first[14], second[14], len(first)) == ("7", "7", 36)


async def test_the_same_content_again_answers_what_is_stored(
    engine: Engine, heard: Heard, clock: Clock
) -> None:
    await engine.submit(task("a"))
    await deliver(engine, clock)
    again = await engine.submit(replace(task("a"), attempt=3))
    assert not again.created
    assert again.task.state == State.SUCCEEDED
    assert heard.kinds.count("task scheduled") == 1


async def test_other_content_under_a_known_id_is_a_duplicate(engine: Engine) -> None:
    await engine.submit(task("a"))
    with pytest.raises(DuplicateTask, match="task a exists already with other content"):
        await engine.submit(task("a", client_id="other"))
    assert (await engine.get("a")).client_id == ""


async def test_a_scheme_that_cannot_be_delivered_is_refused_naming_the_extra(
    engine: Engine,
) -> None:
    kafka = Destination(host="h", topic="t")
    with pytest.raises(ValidationError, match=r"^destination: .*pip install 'rebound-retry") as one:
        await engine.submit(task(destination=kafka))
    with pytest.raises(
        ValidationError, match=r"^dead_destination: .*rebound-retry\[kafka\]"
    ) as two:
        await engine.submit(task(dead_destination=kafka))
    assert (one.value.field, two.value.field) == ("destination", "dead_destination")
    with pytest.raises(ValidationError, match="cannot deliver to call://"):
        await engine.submit(task(destination=Destination(url="call://x")))


async def test_what_is_not_valid_does_not_reach_the_store(engine: Engine, far: FarStore) -> None:
    with pytest.raises(PayloadTooLarge):
        await engine.submit(task(message_data="x" * 1001))
    with pytest.raises(ValidationError):
        await engine.submit(task(destination=Destination(url="nowhere")))
    assert "add" not in far.calls


async def test_without_attempts_left_it_starts_dead(
    engine: Engine, heard: Heard, clock: Clock
) -> None:
    gone = await engine.submit(task("a", failures=5))
    assert gone.task.state == State.DEAD
    assert gone.task.dead_letter == DeadLetter.NONE
    assert heard.of("a") == ["task scheduled", "task dead"]
    other = await engine.submit(task("b", failures=5, dead_destination=DEAD))
    assert (other.task.state, other.task.leg) == (State.SCHEDULED, Leg.DEAD)
    (sent,) = await deliver(engine, clock)
    assert (sent.id, sent.dead_letter) == ("b", DeadLetter.DELIVERED)


async def test_a_store_that_is_away_confirms_nothing(engine: Engine, far: FarStore) -> None:
    far.away = {"add"}
    with pytest.raises(StoreUnavailable):
        await engine.submit(task("a"))
    with pytest.raises(StoreUnavailable):
        await engine.submit_many([task("a"), task("b")])
    far.away = set()
    with pytest.raises(NotFound, match="no task a is known"):
        await engine.get("a")
    assert (await engine.submit(task("a"))).created


async def test_many_have_each_their_own_result_in_order(engine: Engine) -> None:
    await engine.submit(task("known"))
    handed_in = ValidationError("source: is required", field="source")
    results = await engine.submit_many(
        [
            task("a"), handed_in, task("known"), task("known", client_id="x"),
            task("b", message_data="x" * 1001), task("a"), task(""),
        ]
    )  # fmt: skip
    a, error, known, different, large, again, unnamed = results
    assert error is handed_in
    assert isinstance(different, DuplicateTask)
    assert isinstance(large, PayloadTooLarge)
    created = [r.created for r in (a, known, again, unnamed) if isinstance(r, Submitted)]
    assert created == [True, False, False, True]
    assert await engine.submit_many([]) == []


async def test_more_than_the_buffer_takes_goes_in_portions(engine: Engine, far: FarStore) -> None:
    one = task()
    many = [replace(one, id=f"t{n}") for n in range(10_001)]
    results = await engine.submit_many(many)
    assert sum(isinstance(r, Submitted) and r.created for r in results) == 10_001
    assert far.calls.count("add") == 11


async def test_callers_at_the_same_time_share_a_round_trip(engine: Engine, far: FarStore) -> None:
    await asyncio.gather(*(engine.submit(task(f"t{n}")) for n in range(64)))
    assert far.calls.count("add") <= 2


# -- for people --------------------------------------------------------------------------------


async def test_unknown_ids_are_not_found(engine: Engine) -> None:
    for call in (engine.get, engine.replay, engine.cancel, engine.delete):
        with pytest.raises(NotFound, match="no task nobody is known"):
            await call("nobody")


async def test_a_scheduled_task_can_be_cancelled_and_replayed_and_then_succeeds(
    engine: Engine, receiver: Receiver, heard: Heard, clock: Clock
) -> None:
    await engine.submit(task("a", delay=1000))
    assert (await engine.cancel("a")).state == State.CANCELLED
    assert await deliver(engine, clock) == []
    assert (await engine.replay("a")).state == State.SCHEDULED
    (after,) = await deliver(engine, clock)
    assert after.state == State.SUCCEEDED
    assert heard.kinds == ["task scheduled", "task scheduled", "task delivered"]


async def test_a_task_under_way_is_busy_and_not_deleted(engine: Engine) -> None:
    await engine.submit(task("a"))
    with pytest.raises(WrongState, match="is scheduled; only a finished one"):
        await engine.delete("a")
    await claimed(engine.store)
    with pytest.raises(TaskBusy):
        await engine.cancel("a")
    with pytest.raises(WrongState, match="is delivering"):
        await engine.replay("a")
    with pytest.raises(WrongState, match="is delivering; only a finished one"):
        await engine.delete("a")


async def test_a_finished_task_is_forgotten_and_its_id_free(engine: Engine, clock: Clock) -> None:
    await engine.submit(task("a"))
    await deliver(engine, clock)
    await engine.delete("a")
    with pytest.raises(NotFound):
        await engine.get("a")
    assert (await engine.submit(task("a", client_id="other"))).created


async def test_a_change_is_made_on_what_the_task_is_when_it_is_made(
    engine: Engine, far: FarStore, clock: Clock
) -> None:
    """Between looking and writing a worker takes the task: the person learns of that."""
    await engine.submit(task("a"))
    far.slow["swap"] = asyncio.Event()
    cancelling = asyncio.create_task(engine.cancel("a"))
    await until(lambda: "swap" in far.calls)
    (after,) = await deliver(engine, clock)
    assert after.state == State.SUCCEEDED
    far.slow["swap"].set()
    with pytest.raises(WrongState, match="task a is succeeded"):
        await cancelling
    assert (await engine.get("a")).state == State.SUCCEEDED


async def test_tasks_are_found_page_by_page_within_limits(engine: Engine) -> None:
    await engine.submit_many([task(f"t{n}") for n in range(3)])
    page = await engine.find(Filter(State.SCHEDULED), limit=2)
    rest = await engine.find(Filter(State.SCHEDULED), limit=2, cursor=page.cursor)
    assert [t.id for t in (*page.tasks, *rest.tasks)] == ["t2", "t1", "t0"]
    for limit in (0, 1001, -1):
        with pytest.raises(ValidationError, match=r"^limit: must be 1 to 1000$"):
            await engine.find(Filter(), limit=limit)


# -- the end -----------------------------------------------------------------------------------


async def test_closing_stores_what_was_accepted_and_takes_nothing_more(
    engine: Engine, receiver: Receiver, far: FarStore
) -> None:
    far.slow["add"] = asyncio.Event()
    accepted = [asyncio.create_task(engine.submit(task(f"t{n}"))) for n in range(3)]
    await until(lambda: "add" in far.calls)
    closing = asyncio.create_task(engine.aclose())
    await asyncio.sleep(0)
    with pytest.raises(Closed):
        await engine.submit(task("late"))
    assert not receiver.closed
    far.slow["add"].set()
    await closing
    assert [s.created for s in await asyncio.gather(*accepted)] == [True] * 3
    assert receiver.closed
    assert far.calls[-1] == "aclose"


async def test_a_strategy_of_the_programs_own_decides_the_times(clock: Clock) -> None:
    def strange(backoff: Any, base: float, k: int) -> float:
        return base + 1000 * k

    policy = Policy(strategies={"strange": strange, **Policy().strategies})
    made = Engine(SqliteStore(":memory:", clock=clock), {"http": Receiver(REFUSED)}, policy)
    one = validation.from_python(
        Task(source="s", id="a", destination=DEAD, backoff={"strategy": "strange"})  # type: ignore[arg-type]
    )
    stored = (await made.submit(one)).task
    assert stored.due_at == pytest.approx((stored.created_at or 0) + 1010)
    clock.advance(1011)
    (after,) = await deliver(made, clock)
    assert after.due_at == pytest.approx(clock() + 2010, abs=0.1)
    await made.aclose()


async def test_the_store_is_back_when_it_answers_whoever_asks(
    engine: Engine, far: FarStore, heard: Heard
) -> None:
    far.away = {"add"}
    for _ in range(2):
        with pytest.raises(StoreUnavailable):
            await engine.submit(task("a"))
    assert heard.kinds == ["store unavailable"]
    await engine.ping()
    assert heard.kinds == ["store unavailable", "store back"]


async def test_a_full_store_has_room_again_only_when_adding_works(
    engine: Engine, far: FarStore, heard: Heard
) -> None:
    engine.store_is("adding", StoreFull())
    engine.store_is("working", None)
    await engine.ping()
    assert heard.kinds == ["store unavailable"]
    await engine.submit(task("a"))
    assert heard.kinds == ["store unavailable", "store back", "task scheduled"]
