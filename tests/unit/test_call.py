"""Functions as destinations: what they raise steers, and none runs twice beside itself."""

from __future__ import annotations

import asyncio
import functools
import threading
from collections.abc import AsyncIterator
from typing import Any

import pytest
from msgspec.structs import replace

from rebound import (
    Config,
    DeadReason,
    Destination,
    Outcome,
    Rebound,
    Reject,
    Retry,
    State,
    SyncRebound,
    Task,
    ValidationError,
)
from rebound.adapters.producers.call import CallProducer
from rebound.domain.errors import Deferred
from tests.support import task, until

MAIL = Destination(url="call://send-email")


def made(**settings: Any) -> Rebound:
    return Rebound(Config(store_url="sqlite://:memory:", shutdown_grace=5, **settings))


def mail(id_: str = "a", **fields: Any) -> Task:
    return task(id_, **{"destination": MAIL, "delay": 0, "base_delay": 0.01, **fields})


async def ended(rebound: Rebound, id_: str = "a") -> Task:
    found: Task | None = None

    async def over() -> bool:
        nonlocal found
        found = await rebound.get_task(id_)
        return found is not None and found.finished_at is not None

    async with asyncio.timeout(10):
        while not await over():
            await asyncio.sleep(0.005)
    assert found is not None
    return found


@pytest.fixture
async def rebound() -> AsyncIterator[Rebound]:
    one = made()
    yield one
    await one.close()


@pytest.mark.parametrize("kind", ["async", "sync", "partial", "object"])
async def test_a_function_gets_the_task_with_its_message(rebound: Rebound, kind: str) -> None:
    got: list[tuple[Task, str]] = []

    def take(one: Task) -> None:
        got.append((one, threading.current_thread().name))

    async def take_async(one: Task) -> None:
        take(one)

    class Taking:
        async def __call__(self, one: Task) -> None:
            take(one)

    functions: dict[str, Any] = {
        "async": take_async, "sync": take, "partial": functools.partial(take_async),
        "object": Taking(),
    }  # fmt: skip
    rebound.handler("send-email")(functions[kind])
    await rebound.start()
    await rebound.create_task(mail(message_data={"to": "ada"}, client_id="c"))
    after = await ended(rebound)
    assert (after.state, after.attempts[0].outcome) == (State.SUCCEEDED, Outcome.SUCCEEDED)
    ((seen, thread),) = got
    assert (seen.id, seen.message_data, seen.client_id, seen.number) == ("a", {"to": "ada"}, "c", 1)
    assert thread.startswith("rebound-call-send-email") == (kind == "sync")


@pytest.mark.parametrize("threaded", [False, True])
async def test_what_it_raises_says_what_follows(rebound: Rebound, threaded: bool) -> None:
    raised: list[Exception] = [OSError("no server"), Retry("busy", after=0.02)]

    def fail(one: Task) -> None:
        if one.message_data == "spam":
            raise Reject("no such user")
        if raised:
            raise raised.pop(0)

    async def fail_async(one: Task) -> None:
        fail(one)

    rebound.handler("send-email")(fail if threaded else fail_async)
    await rebound.start()
    await rebound.create_task(mail())
    after = await ended(rebound)
    assert [a.error for a in after.attempts] == ["OSError: no server", "busy", None]
    wait = after.attempts[2].started_at - after.attempts[1].started_at
    assert wait >= 0.02
    await rebound.create_task(mail("b", message_data="spam"))
    dead = await ended(rebound, "b")
    assert (dead.dead_reason, dead.last_error) == (DeadReason.REJECTED, "no such user")


async def test_retry_waits_as_long_as_it_says_instead_of_the_policy(rebound: Rebound) -> None:
    @rebound.handler("send-email")
    async def later(one: Task) -> None:
        raise Retry(after=3600)

    await rebound.start()
    await rebound.create_task(mail(base_delay=10))
    async with asyncio.timeout(10):
        while True:
            found = await rebound.get_task("a")
            if found is not None and found.attempt == 1 and found.due_at is not None:
                break
            await asyncio.sleep(0.005)
    assert found.due_at == pytest.approx((found.updated_at or 0) + 3600, abs=0.01)
    for bad in (-1, float("nan"), 1e9, "soon"):
        with pytest.raises(ValidationError, match="after"):
            Retry(after=bad)  # type: ignore[arg-type]


async def test_an_async_function_is_ended_at_its_time_limit(rebound: Rebound) -> None:
    @rebound.handler("send-email")
    async def hang(one: Task) -> None:
        await asyncio.Event().wait()

    await rebound.start()
    slow = Destination(url="call://send-email", timeout=0.01)
    await rebound.create_task(mail(destination=slow, max_retries=1))
    (attempt,) = (await ended(rebound)).attempts
    assert (attempt.outcome, attempt.error) == (Outcome.TIMEOUT, "took longer than 0.01 s")


async def test_a_function_in_a_thread_that_overruns_is_waited_for_and_not_started_again(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    rebound, go, starts, extended = made(lease=1), threading.Event(), [], 0
    extend = rebound.engine.store.extend

    async def counted(*values: Any, **named: Any) -> Any:
        nonlocal extended
        extended += 1
        return await extend(*values, **named)

    monkeypatch.setattr(rebound.engine.store, "extend", counted)

    @rebound.handler("send-email")
    def slow(one: Task) -> None:
        starts.append(one.id)
        go.wait(20)

    async with rebound:
        to = Destination(url="call://send-email", timeout=0.01)
        await rebound.create_task(mail(destination=to))
        await until(lambda: "has not returned after 0.01 s; waiting on" in caplog.text)
        await until(lambda: extended >= 4)  # by then its first lease is over
        assert starts == ["a"]
        go.set()
        after = await ended(rebound)
    assert (starts, after.state, len(after.attempts)) == (["a"], State.SUCCEEDED, 1)


async def test_a_thread_that_outlives_the_grace_keeps_its_lease(tmp_path: Any) -> None:
    go, starts = threading.Event(), []
    config = Config(store_url=f"sqlite:///{tmp_path}/r.db", shutdown_grace=0)
    rebound = Rebound(config)

    @rebound.handler("send-email")
    def slow(one: Task) -> None:
        starts.append(one.id)
        go.wait(20)

    async with rebound:
        await rebound.create_task(mail())
        await until(lambda: starts == ["a"])
    async with Rebound(config, worker=False) as other:
        seen = await other.get_task("a")
        assert seen is not None
        assert seen.state == State.DELIVERING
    go.set()
    await until(lambda: not [t for t in threading.enumerate() if "send-email" in t.name])


async def test_a_task_whose_function_still_runs_here_is_put_off(rebound: Rebound) -> None:
    go, started = threading.Event(), threading.Event()

    @rebound.handler("send-email")
    def slow(one: Task) -> None:
        started.set()
        go.wait(20)

    producer = rebound.engine.producers["call:send-email"]
    first = asyncio.create_task(producer.send(mail()))
    await until(started.is_set)
    with pytest.raises(Deferred, match="still runs"):
        await producer.send(mail())
    go.set()
    await first


async def test_a_worker_claims_only_what_it_has_functions_for(tmp_path: Any) -> None:
    config = Config(store_url=f"sqlite:///{tmp_path}/r.db")
    done: list[tuple[str, str]] = []
    mails, bills = Rebound(config), Rebound(config)

    @mails.handler("mail")
    async def send(one: Task) -> None:
        done.append(("mail", one.id))

    @bills.handler("bill")
    async def charge(one: Task) -> None:
        done.append(("bill", one.id))

    async with Rebound(config, worker=False) as web, mails, bills:
        for n in range(20):
            to = Destination(url=f"call://{('mail', 'bill')[n % 2]}")
            await web.create_task(mail(f"t{n}", destination=to))
        await until(lambda: len(done) == 20)
    assert all(kind == ("mail", "bill")[int(id_[1:]) % 2] for kind, id_ in done)


async def test_a_name_that_nobody_serves_is_refused_where_it_is_handed_in(rebound: Rebound) -> None:
    await rebound.start()
    with pytest.raises(ValidationError, match="destination: nobody here serves"):
        await rebound.create_task(mail())


async def test_what_cannot_be_a_handler_is_refused_by_name(rebound: Rebound) -> None:
    rebound.handler("a")(print)
    for name, function, wrong in (
        ("a", print, "registered already"),
        ("b", "no function", "not callable"),
        ("a/b", print, "visible ASCII"),
        ("", print, "visible ASCII"),
    ):
        with pytest.raises(ValidationError, match=wrong):
            rebound.handler(name)(function)  # type: ignore[type-var]
    await rebound.start()
    with pytest.raises(ValidationError, match="before the start"):
        rebound.handler("c")(print)


async def test_a_function_that_forgot_to_be_async_is_told_so(rebound: Rebound) -> None:
    async def inner(one: Task) -> None:
        raise AssertionError

    rebound.handler("send-email")(lambda one: inner(replace(one)))
    await rebound.start()
    await rebound.create_task(mail(max_retries=1))
    assert "must be an async function" in ((await ended(rebound)).last_error or "")


def test_a_program_without_an_event_loop_has_them_too() -> None:
    done = threading.Event()
    rebound = SyncRebound(Config(store_url="sqlite://:memory:"))

    @rebound.handler("send-email")
    def send(one: Task) -> None:
        done.set()

    with rebound:
        rebound.create_task(mail())
        assert done.wait(10)


@pytest.mark.parametrize("error", [StopIteration, SystemExit, KeyboardInterrupt, GeneratorExit])
async def test_what_no_future_takes_or_would_end_the_loop_is_a_failed_attempt(
    rebound: Rebound, error: type[BaseException]
) -> None:
    def send(one: Task) -> None:
        raise error

    rebound.handler("send-email")(send)
    await rebound.start()
    await rebound.create_task(mail(max_retries=1))
    assert (await ended(rebound)).last_error == f"{error.__name__}: "


class Stop(BaseException):
    """As libraries have them, so that nobody catches them by mistake."""


@pytest.mark.parametrize("error", [SystemExit(3), Stop(3)])
async def test_an_async_function_that_wants_to_end_everything_only_ends_its_attempt(
    rebound: Rebound, error: BaseException
) -> None:
    @rebound.handler("send-email")
    async def send(one: Task) -> None:
        raise error

    await rebound.start()
    await rebound.create_task(mail(max_retries=1))
    assert (await ended(rebound)).last_error == f"{type(error).__name__}: 3"


async def test_where_no_thread_can_be_had_nothing_has_been_tried() -> None:
    done: list[str] = []
    producer = CallProducer("send-email", lambda one: done.append(one.id), 1)
    await producer.send(mail("first"))
    assert producer._pool is not None
    producer._pool.shutdown()  # as at the end of a program that did not close
    for _ in range(2):
        with pytest.raises(Deferred, match="cannot schedule new futures"):
            await producer.send(mail("second"))
    await producer.aclose()
    await producer.send(mail("second"))
    assert done == ["first", "second"]
    await producer.aclose()
