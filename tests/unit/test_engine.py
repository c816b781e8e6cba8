"""Into the store and through an attempt, on the real in-memory store with scripted receivers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from msgspec.structs import replace

from rebound.adapters.stores.sqlite import SqliteStore
from rebound.domain import validation
from rebound.domain.attempt import DeadLetter, DeadReason, Leg, Outcome, State
from rebound.domain.destination import Destination
from rebound.domain.errors import (
    Closed,
    Deferred,
    DeliveryError,
    DuplicateTask,
    NotFound,
    PayloadTooLarge,
    Rejected,
    StoreUnavailable,
    TaskBusy,
    ValidationError,
    WrongState,
)
from rebound.domain.task import Task
from rebound.engine import Engine, Policy, Submitted
from rebound.ports import Filter, Receipt
from tests.conftest import Clock
from tests.support import claimed, task, until
from tests.unit.scripted import FarStore, Heard, Receiver, deliver, deliver_all, hanging

DEAD = Destination(url="http://dead.test/dlq")
REFUSED = DeliveryError("HTTP 500", status=500, response="oops")


@pytest.fixture
def receiver() -> Receiver:
    return Receiver()


@pytest.fixture
def heard() -> Heard:
    return Heard()


@pytest.fixture
def store(clock: Clock) -> FarStore:
    return FarStore(SqliteStore(":memory:", clock=clock))


@pytest.fixture
async def engine(store: FarStore, receiver: Receiver, heard: Heard) -> AsyncIterator[Engine]:
    policy = Policy(max_payload=1000, retry_after_max=3600.0)
    missing = {"kafka": "kafka:// needs an extra: pip install 'rebound-retry[kafka]'"}
    made = Engine(store, {"http": receiver}, policy, [heard], missing)  # type: ignore[arg-type]
    yield made
    await made.aclose()


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


async def test_what_is_not_valid_does_not_reach_the_store(engine: Engine, store: FarStore) -> None:
    with pytest.raises(PayloadTooLarge):
        await engine.submit(task(message_data="x" * 1001))
    with pytest.raises(ValidationError):
        await engine.submit(task(destination=Destination(url="nowhere")))
    assert "add" not in store.calls


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


async def test_a_store_that_is_away_confirms_nothing(engine: Engine, store: FarStore) -> None:
    store.away = {"add"}
    with pytest.raises(StoreUnavailable):
        await engine.submit(task("a"))
    with pytest.raises(StoreUnavailable):
        await engine.submit_many([task("a"), task("b")])
    store.away = set()
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


async def test_more_than_the_buffer_takes_goes_in_portions(engine: Engine, store: FarStore) -> None:
    one = task()
    many = [replace(one, id=f"t{n}") for n in range(10_001)]
    results = await engine.submit_many(many)
    assert sum(isinstance(r, Submitted) and r.created for r in results) == 10_001
    assert store.calls.count("add") == 11


async def test_callers_at_the_same_time_share_a_round_trip(engine: Engine, store: FarStore) -> None:
    await asyncio.gather(*(engine.submit(task(f"t{n}")) for n in range(64)))
    assert store.calls.count("add") <= 2


# -- one attempt -------------------------------------------------------------------------------


async def attempted(engine: Engine, clock: Clock, **fields: Any) -> Task:
    await engine.submit(task("a", **fields))
    (after,) = await deliver(engine, clock)
    assert (await engine.get("a")).state == after.state
    return after


async def test_a_delivery_keeps_what_the_receiver_answered(
    engine: Engine, receiver: Receiver, clock: Clock
) -> None:
    receiver.answers = [Receipt(202, "thanks")]
    after = await attempted(engine, clock)
    assert after.state == State.SUCCEEDED
    (kept,) = after.attempts
    assert (kept.outcome, kept.status, kept.response) == (Outcome.SUCCEEDED, 202, "thanks")
    assert (kept.duration_ms or 0) >= 0


@pytest.mark.parametrize(
    ("answer", "outcome", "error"),
    [
        (REFUSED, Outcome.FAILED, "HTTP 500"),
        (DeliveryError("too late", timed_out=True), Outcome.TIMEOUT, "too late"),
        (DeliveryError(), Outcome.FAILED, "the attempt failed"),
        (ValueError("a bug"), Outcome.FAILED, "ValueError: a bug"),
        (KeyError("x"), Outcome.FAILED, "KeyError: 'x'"),
        (RecursionError(), Outcome.FAILED, "RecursionError: "),
        (MemoryError(), Outcome.FAILED, "MemoryError: "),
        (TimeoutError("t"), Outcome.FAILED, "TimeoutError: t"),
        (ExceptionGroup("g", [OSError(1)]), Outcome.FAILED, "ExceptionGroup: g (1 sub-exception)"),
        (asyncio.CancelledError(), Outcome.FAILED, "CancelledError: the producer was cancelled"),
        (StoreUnavailable("other"), Outcome.FAILED, "StoreUnavailable: other"),
        (ValidationError("not here"), Outcome.FAILED, "ValidationError: not here"),
    ],
)
async def test_whatever_a_producer_raises_is_a_retry(
    engine: Engine, receiver: Receiver, clock: Clock, answer: Any, outcome: Outcome, error: str
) -> None:
    receiver.answers = [answer]
    after = await attempted(engine, clock)
    assert (after.state, after.attempt, after.last_error) == (State.SCHEDULED, 1, error)
    assert after.attempts[0].outcome == outcome
    assert after.due_at == pytest.approx(clock() + 20, abs=0.1)


async def test_what_is_known_of_a_failure_is_kept(
    engine: Engine, receiver: Receiver, clock: Clock
) -> None:
    receiver.answers = [REFUSED]
    (kept,) = (await attempted(engine, clock)).attempts
    assert (kept.status, kept.response, kept.error) == (500, "oops", "HTTP 500")


@pytest.mark.parametrize(
    ("wish", "wait"), [(None, 20), (0.0, 20), (5.0, 20), (90.0, 90), (7200.0, 3600), (1e18, 3600)]
)
async def test_the_receivers_wish_is_bounded_by_the_setting(
    engine: Engine, receiver: Receiver, clock: Clock, wish: float | None, wait: float
) -> None:
    receiver.answers = [DeliveryError("HTTP 429", status=429, retry_after=wish)]
    after = await attempted(engine, clock)
    assert after.due_at == pytest.approx(clock() + wait, abs=0.1)


async def test_a_rejection_ends_the_leg(engine: Engine, receiver: Receiver, clock: Clock) -> None:
    receiver.answers = [Rejected("HTTP 410", status=410)]
    after = await attempted(engine, clock)
    assert (after.state, after.dead_reason) == (State.DEAD, DeadReason.REJECTED)


@pytest.mark.parametrize(("wish", "wait"), [(30.0, 30), (None, 1), (0.0, 1)])
async def test_a_deferred_attempt_is_not_counted(
    engine: Engine, receiver: Receiver, clock: Clock, wish: float | None, wait: float
) -> None:
    receiver.answers = [Deferred("circuit open", retry_after=wish)]
    after = await attempted(engine, clock)
    assert (after.state, after.attempt, after.attempts) == (State.SCHEDULED, 0, ())
    assert after.due_at == pytest.approx(clock() + wait, abs=0.1)


async def test_a_cancelled_attempt_is_cut_short_and_not_counted(
    engine: Engine, receiver: Receiver, clock: Clock
) -> None:
    receiver.answers = [hanging]
    await engine.submit(task("a"))
    (one,) = await claimed(engine.store)
    running = asyncio.create_task(engine.attempt(one, clock))
    await until(lambda: receiver.sent)
    running.cancel()
    after = await running
    assert (after.state, after.attempt, after.number) == (State.SCHEDULED, 0, 1)
    assert (after.attempts[0].outcome, after.attempts[0].error) == (
        Outcome.CUT_SHORT,
        "cut short by a shutdown",
    )


async def test_at_the_expiry_nothing_is_sent(
    engine: Engine, receiver: Receiver, clock: Clock
) -> None:
    await engine.submit(task("a", delay=50, ttl=10))
    clock.advance(10)
    (after,) = await deliver(engine, clock)
    assert (after.state, after.dead_reason, receiver.sent) == (State.DEAD, DeadReason.EXPIRED, [])


async def test_a_clock_that_is_rounded_down_does_not_undo_the_expiry(
    engine: Engine, receiver: Receiver
) -> None:
    await engine.submit(task("a", ttl=10))
    (one,) = await claimed(engine.store)
    expiry = one.expires_at or 0
    assert (await engine.attempt(one, lambda: expiry - 0.0005)).dead_reason == DeadReason.EXPIRED
    assert receiver.sent == []
    assert (await engine.attempt(one, lambda: expiry - 0.5)).state == State.SUCCEEDED


async def test_a_task_that_killed_five_workers_is_not_tried_again(
    engine: Engine, receiver: Receiver, clock: Clock
) -> None:
    await engine.submit(task("a", dead_destination=DEAD))
    (one,) = await claimed(engine.store)
    while len(one.lost) < 5:
        clock.advance(30)
        one = (*await claimed(engine.store), one)[0]
    after = await engine.attempt(one, clock)
    assert (after.dead_reason, after.leg, receiver.sent) == (DeadReason.CRASHED, Leg.DEAD, [])


async def test_a_kind_that_nobody_delivers_here_is_a_failure(engine: Engine, clock: Clock) -> None:
    one = replace(task(destination=Destination(url="call://x")).accepted(), created_at=clock())
    assert (await engine.attempt(one, clock)).last_error == "KeyError: 'call'"


# -- what listeners hear -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "answers", "kinds"),
    [
        ({}, [None], ["task delivered"]),
        (
            {},
            [REFUSED, None],
            ["delivery failed", "retry scheduled", "task delivered"],
        ),
        (
            {"max_retries": 2},
            [REFUSED],
            ["delivery failed", "retry scheduled", "delivery failed", "task dead"],
        ),
        (
            {"max_retries": 1, "dead_destination": DEAD},
            [REFUSED, None],
            ["delivery failed", "task dead", "dead letter delivered"],
        ),
        (
            {"max_retries": 1, "dead_destination": DEAD},
            [REFUSED, REFUSED, None],
            [
                "delivery failed", "task dead", "delivery failed", "retry scheduled",
                "dead letter delivered",
            ],
        ),
        (
            {"max_retries": 1, "dead_destination": DEAD},
            [REFUSED, Rejected("no")],
            ["delivery failed", "task dead", "delivery failed", "task dead"],
        ),
        ({}, [Rejected("no")], ["delivery failed", "task dead"]),
        ({"ttl": 5}, [REFUSED], ["delivery failed", "retry scheduled", "task dead"]),
        ({"delay": 9, "ttl": 5}, [], ["task dead"]),
        ({}, [Deferred("later"), None], ["retry scheduled", "task delivered"]),
    ],
)  # fmt: skip
async def test_events_tell_the_story_in_order(
    engine: Engine,
    receiver: Receiver,
    heard: Heard,
    clock: Clock,
    fields: dict[str, Any],
    answers: list[Any],
    kinds: list[str],
) -> None:
    receiver.answers = answers
    await engine.submit(task("a", **fields))
    await deliver_all(engine, clock, "a")
    assert heard.kinds == ["task scheduled", *kinds]


async def test_an_event_has_the_task_as_settled_and_the_attempt_it_is_about(
    engine: Engine, receiver: Receiver, heard: Heard, clock: Clock
) -> None:
    receiver.answers = [REFUSED, Deferred("later"), None]
    await engine.submit(task("a"))
    await deliver_all(engine, clock, "a")
    attempts = [e.attempt and (e.attempt.number, e.attempt.outcome) for e in heard.events]
    assert attempts == [
        None, (1, Outcome.FAILED), (1, Outcome.FAILED), None, (2, Outcome.SUCCEEDED),
    ]  # fmt: skip
    states = [e.task and e.task.state for e in heard.events]
    assert states == [State.SCHEDULED] * 4 + [State.SUCCEEDED]


async def test_an_attempt_cut_short_is_no_failure(engine: Engine, heard: Heard) -> None:
    one = replace(task("a").accepted(), created_at=1.0)
    running = asyncio.create_task(engine.attempt(one, lambda: 1.0))
    engine.producers["http"].answers = [hanging]  # type: ignore[attr-defined]
    await until(lambda: engine.producers["http"].sent)  # type: ignore[attr-defined]
    running.cancel()
    engine.settled(one, await running)
    assert heard.kinds == ["retry scheduled"]


async def test_every_listener_hears_everything(clock: Clock) -> None:
    listeners = [Heard(), Heard()]
    made = Engine(SqliteStore(":memory:", clock=clock), {"http": Receiver()}, Policy(), listeners)
    await made.submit(task("a"))
    await deliver(made, clock)
    assert [h.kinds for h in listeners] == [["task scheduled", "task delivered"]] * 2
    await made.aclose()


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
    engine: Engine, store: FarStore, clock: Clock
) -> None:
    """Between looking and writing a worker takes the task: the person learns of that."""
    await engine.submit(task("a"))
    store.slow["swap"] = asyncio.Event()
    cancelling = asyncio.create_task(engine.cancel("a"))
    await until(lambda: "swap" in store.calls)
    (after,) = await deliver(engine, clock)
    assert after.state == State.SUCCEEDED
    store.slow["swap"].set()
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
    engine: Engine, receiver: Receiver, store: FarStore
) -> None:
    store.slow["add"] = asyncio.Event()
    accepted = [asyncio.create_task(engine.submit(task(f"t{n}"))) for n in range(3)]
    await until(lambda: "add" in store.calls)
    closing = asyncio.create_task(engine.aclose())
    await asyncio.sleep(0)
    with pytest.raises(Closed):
        await engine.submit(task("late"))
    assert not receiver.closed
    store.slow["add"].set()
    await closing
    assert [s.created for s in await asyncio.gather(*accepted)] == [True] * 3
    assert receiver.closed
    assert store.calls[-1] == "aclose"


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
