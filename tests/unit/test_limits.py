"""Time limits on one timer do what asyncio.timeout does."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from rebound.adapters.producers.limits import TimeLimits
from tests.support import until

FAR = 1000.0


@pytest.fixture
def limits() -> TimeLimits:
    return TimeLimits()


async def hang(limits: TimeLimits, seconds: float) -> None:
    with limits(seconds):
        await asyncio.Event().wait()


async def too_late(limits: TimeLimits, seconds: float) -> None:
    with pytest.raises(TimeoutError):
        await hang(limits, seconds)


async def test_what_takes_longer_raises_a_timeout_and_the_task_goes_on(limits: TimeLimits) -> None:
    limit = limits(0.005)
    with pytest.raises(TimeoutError), limit:
        await asyncio.Event().wait()
    assert limit.expired
    await asyncio.sleep(0)
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0


async def test_what_is_in_time_is_left_alone(limits: TimeLimits) -> None:
    with limits(0.001) as limit:
        pass
    await too_late(limits, 0.01)
    assert not limit.expired


async def test_a_shorter_limit_that_begins_later_ends_first(limits: TimeLimits) -> None:
    long = asyncio.create_task(hang(limits, FAR))
    await asyncio.sleep(0)
    await too_late(limits, 0.005)
    assert not long.done()
    long.cancel()
    await asyncio.wait([long])
    assert long.cancelled()


async def test_limits_of_any_length_are_each_kept(limits: TimeLimits) -> None:
    running = [asyncio.create_task(hang(limits, 0.002 * (n % 4 + 1))) for n in range(40)]
    ended = await asyncio.gather(*running, return_exceptions=True)
    assert all(isinstance(one, TimeoutError) for one in ended)


async def test_a_task_that_does_not_end_at_its_limit_holds_up_no_other(limits: TimeLimits) -> None:
    stop = asyncio.Event()

    async def stubborn() -> None:
        with limits(0.003):
            while not stop.is_set():
                try:
                    await stop.wait()
                except asyncio.CancelledError:
                    seen.append("cancelled")

    seen: list[str] = []
    one = asyncio.create_task(stubborn())
    await until(lambda: seen)
    await too_late(limits, 0.003)
    stop.set()
    await one
    assert seen == ["cancelled"]


async def test_one_that_somebody_cancels_at_its_limit_stays_cancelled(limits: TimeLimits) -> None:
    async def cancelled_twice() -> None:
        with limits(FAR) as limit:
            begun.append(limit)
            await asyncio.Event().wait()

    begun: list[Any] = []
    one = asyncio.create_task(cancelled_twice())
    await until(lambda: begun)
    begun[0].expire()
    one.cancel()
    await asyncio.wait([one])
    assert one.cancelled()


async def test_its_own_errors_come_through_although_the_limit_is_over(limits: TimeLimits) -> None:
    async def breaks() -> None:
        with limits(0.001):
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                raise ValueError("own") from None

    with pytest.raises(ValueError, match="own"):
        await breaks()


async def test_a_thousand_attempts_set_one_timer(
    limits: TimeLimits, monkeypatch: pytest.MonkeyPatch
) -> None:
    loop = asyncio.get_running_loop()
    timers: list[object] = []
    monkeypatch.setattr(loop, "call_at", lambda *values: timers.append(values))
    for _ in range(1000):
        with limits(FAR):
            await asyncio.sleep(0)
    assert len(timers) == 1


def test_limits_are_kept_in_each_loop_that_they_are_used_in(limits: TimeLimits) -> None:
    async def in_time() -> None:
        with limits(0.01):
            pass

    asyncio.run(in_time())
    asyncio.run(too_late(limits, 0.02))


def test_what_a_loop_left_behind_holds_up_no_limit_of_the_next(limits: TimeLimits) -> None:
    loop = asyncio.new_event_loop()
    left = hang(limits, 0.001)
    pending = loop.create_task(left)
    loop.call_soon(loop.stop)
    loop.run_forever()
    loop.close()
    asyncio.run(too_late(limits, 0.01))
    assert not pending.done()
    left.close()
    asyncio.run(too_late(limits, 0.01))
