"""One attempt: what becomes of the task, and what listeners hear."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from msgspec.structs import replace

from rebound.adapters.stores.sqlite import SqliteStore
from rebound.attempting import Policy
from rebound.domain.attempt import DeadReason, Leg, Outcome, State
from rebound.domain.destination import Destination
from rebound.domain.errors import (
    Deferred,
    DeliveryError,
    Rejected,
    StoreUnavailable,
    ValidationError,
)
from rebound.domain.task import Task
from rebound.engine import Engine
from rebound.ports import Receipt
from tests.conftest import Clock
from tests.support import claimed, task, until
from tests.unit.scripted import Heard, Receiver, deliver, deliver_all, hanging

DEAD = Destination(url="http://dead.test/dlq")
REFUSED = DeliveryError("HTTP 500", status=500, response="oops")


@pytest.fixture
def engine(core: Engine) -> Engine:
    return core


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
    assert (await engine.attempt(one, clock)).last_error == "KeyError: 'call:x'"


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
