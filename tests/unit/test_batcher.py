"""Group commit: many callers share one flush, and nobody fails for another's sake."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest

from rebound.batcher import MAX_PORTION, Batcher
from rebound.domain.errors import Closed, StoreUnavailable
from tests.support import until


class Flushes:
    """What is flushed to: keeps every batch, waits and fails as a test says."""

    def __init__(self) -> None:
        self.batches: list[list[str]] = []
        self.open = asyncio.Event()
        self.open.set()
        self.bad: set[str] = set()
        self.away = False

    async def __call__(self, items: Sequence[str]) -> Sequence[str]:
        self.batches.append(list(items))
        await self.open.wait()
        await asyncio.sleep(0)
        if self.away:
            raise StoreUnavailable("away")
        if bad := self.bad.intersection(items):
            raise ValueError(f"bad: {min(bad)}")
        return [item.upper() for item in items]


@pytest.fixture
def flushes() -> Flushes:
    return Flushes()


def make(flushes: Flushes, **limits: Any) -> Batcher[str, str]:
    limits.setdefault("max_batch", 100)
    return Batcher(flushes, size=len, **limits)


class Callers:
    """Several that put at the same time."""

    def __init__(self, batcher: Batcher[str, str], *groups: Sequence[str]) -> None:
        self.tasks = [asyncio.create_task(batcher.put(group)) for group in groups]

    async def results(self) -> list[Any]:
        return await asyncio.gather(*self.tasks, return_exceptions=True)


async def held(flushes: Flushes, batcher: Batcher[str, str]) -> Callers:
    """One flush under way that does not end before `flushes.open` is set."""
    flushes.open.clear()
    first = Callers(batcher, ["first"])
    await until(lambda: flushes.batches)
    return first


async def test_one_caller_waits_for_one_flush(flushes: Flushes) -> None:
    batcher = make(flushes)
    assert await batcher.put(["a"]) == ["A"]
    assert await batcher.put(["b", "c"]) == ["B", "C"]
    assert flushes.batches == [["a"], ["b", "c"]]


async def test_nothing_is_flushed_for_nothing(flushes: Flushes) -> None:
    assert await make(flushes).put([]) == []
    assert flushes.batches == []


async def test_what_comes_in_during_a_flush_shares_the_next_one(flushes: Flushes) -> None:
    batcher = make(flushes)
    first = await held(flushes, batcher)
    many = Callers(batcher, *([f"{n}", f"{n}x"] for n in range(40)))
    await asyncio.sleep(0)
    flushes.open.set()
    assert await first.results() == [["FIRST"]]
    assert await many.results() == [[f"{n}", f"{n}X"] for n in range(40)]
    assert len(flushes.batches) == 2
    assert flushes.batches[1][:4] == ["0", "0x", "1", "1x"]


async def test_a_batch_is_bounded_but_a_group_is_never_divided(flushes: Flushes) -> None:
    batcher = make(flushes, max_batch=3)
    first = await held(flushes, batcher)
    rest = Callers(batcher, ["a", "b"], ["c", "d"], ["e"], ["f", "g", "h", "i"], ["j"])
    await asyncio.sleep(0)
    flushes.open.set()
    assert await rest.results() == [["A", "B"], ["C", "D"], ["E"], ["F", "G", "H", "I"], ["J"]]
    assert flushes.batches[1:] == [["a", "b"], ["c", "d", "e"], ["f", "g", "h", "i"], ["j"]]
    await first.results()


# -- failures ----------------------------------------------------------------------------------


async def test_a_bad_item_is_found_by_halves_and_fails_alone(flushes: Flushes) -> None:
    batcher = make(flushes)
    flushes.bad = {"5"}
    first = await held(flushes, batcher)
    many = Callers(batcher, *([f"{n}"] for n in range(8)))
    await asyncio.sleep(0)
    flushes.open.set()
    results = await many.results()
    assert [r for r in results if isinstance(r, list)] == [[f"{n}"] for n in range(8) if n != 5]
    assert str(results[5]) == "bad: 5"
    assert isinstance(results[5], ValueError)
    assert len(flushes.batches) <= 1 + 7
    assert await first.results() == [["FIRST"]]
    assert await batcher.put(["later"]) == ["LATER"]


async def test_a_store_that_is_away_fails_every_member_and_is_asked_once(flushes: Flushes) -> None:
    batcher = make(flushes)
    flushes.away = True
    results = await Callers(batcher, *([f"{n}"] for n in range(8))).results()
    assert {str(r) for r in results} == {"away"}
    assert all(isinstance(r, StoreUnavailable) for r in results)
    assert [len(batch) for batch in flushes.batches] == [8]
    flushes.away = False
    assert await batcher.put(["back"]) == ["BACK"]


async def test_whoever_waits_behind_a_store_that_is_away_fails_with_it(flushes: Flushes) -> None:
    batcher = make(flushes, max_items=3)
    first = await held(flushes, batcher)
    behind = Callers(batcher, ["a"], ["b"])
    await asyncio.sleep(0)
    flushes.away = True
    flushes.open.set()
    for results in (await first.results(), await behind.results()):
        assert {str(r) for r in results} == {"away"}
    assert flushes.batches == [["first"]]
    flushes.away = False
    assert await batcher.put(["a", "b", "c"]) == ["A", "B", "C"]


async def test_a_flush_that_is_cancelled_leaves_nobody_waiting(flushes: Flushes) -> None:
    async def cancelled(_: Sequence[str]) -> Sequence[str]:
        raise asyncio.CancelledError

    batcher: Batcher[str, str] = Batcher(cancelled, size=len, max_batch=1)
    results = await Callers(batcher, ["a"], ["b"]).results()
    assert [type(r) for r in results] == [StoreUnavailable] * 2


# -- callers that leave ------------------------------------------------------------------------


async def test_a_cancelled_caller_cancels_nobody_else(flushes: Flushes) -> None:
    batcher = make(flushes)
    first = await held(flushes, batcher)
    many = Callers(batcher, ["a"], ["b"], ["c"])
    await asyncio.sleep(0)
    first.tasks[0].cancel()
    many.tasks[1].cancel()
    await asyncio.sleep(0)
    flushes.open.set()
    one, two, three = await many.results()
    assert (one, three) == (["A"], ["C"])
    assert isinstance(two, asyncio.CancelledError)
    assert flushes.batches == [["first"], ["a", "b", "c"]]
    assert await batcher.put(["later"]) == ["LATER"]


async def test_so_does_one_that_was_alone_and_flies_without_a_task(flushes: Flushes) -> None:
    batcher = make(flushes)
    await batcher.put(["alone"])
    flushes.open.clear()
    first = await held(flushes, batcher)
    many = Callers(batcher, ["a"], ["b"])
    await asyncio.sleep(0)
    assert len(asyncio.all_tasks()) == 4  # this one and the callers
    first.tasks[0].cancel()
    flushes.open.set()
    assert await many.results() == [["A"], ["B"]]
    assert [type(r) for r in await first.results()] == [asyncio.CancelledError]
    assert flushes.batches == [["alone"], ["first"], ["a", "b"]]


async def test_closing_waits_for_one_that_flies_alone(flushes: Flushes) -> None:
    batcher = make(flushes)
    await batcher.put(["alone"])
    flushes.open.clear()
    first = await held(flushes, batcher)
    closing = asyncio.create_task(batcher.aclose())
    await asyncio.sleep(0)
    assert not closing.done()
    flushes.open.set()
    await closing
    assert await first.results() == [["FIRST"]]


# -- the buffer --------------------------------------------------------------------------------


@pytest.mark.parametrize("limits", [{"max_items": 3}, {"max_bytes": 11}])
async def test_the_buffer_is_bounded_by_items_and_bytes(
    flushes: Flushes, limits: dict[str, int]
) -> None:
    batcher = make(flushes, **limits)
    first = await held(flushes, batcher)  # 5 bytes
    second = Callers(batcher, ["abc", "def"])
    await asyncio.sleep(0)
    with pytest.raises(StoreUnavailable, match="too many tasks are waiting"):
        await batcher.put(["g"])
    flushes.open.set()
    assert await first.results() == [["FIRST"]]
    assert await second.results() == [["ABC", "DEF"]]
    assert await batcher.put(["abc", "def", "g"]) == ["ABC", "DEF", "G"]


async def test_a_caller_that_left_still_fills_the_buffer_until_its_items_are_flushed(
    flushes: Flushes,
) -> None:
    batcher = make(flushes, max_items=2)
    first = await held(flushes, batcher)
    gone = Callers(batcher, ["gone"])
    await asyncio.sleep(0)
    gone.tasks[0].cancel()
    await gone.results()
    with pytest.raises(StoreUnavailable):
        await batcher.put(["a"])
    flushes.open.set()
    await first.results()
    await until(lambda: len(flushes.batches) == 2)
    assert await batcher.put(["a", "b"]) == ["A", "B"]


async def test_failed_flushes_give_their_room_back(flushes: Flushes) -> None:
    batcher = make(flushes, max_items=1)
    flushes.away = True
    for _ in range(3):
        with pytest.raises(StoreUnavailable, match="away"):
            await batcher.put(["a"])


async def test_any_number_of_items_goes_in_portions_that_fit(flushes: Flushes) -> None:
    batcher = make(flushes, max_items=1500)
    items = [f"i{n}" for n in range(2500)]
    assert await batcher.put_many(items) == [i.upper() for i in items]
    assert [len(batch) for batch in flushes.batches] == [MAX_PORTION, MAX_PORTION, 500]


async def test_portions_are_bounded_by_bytes_too(flushes: Flushes) -> None:
    batcher = make(flushes, max_bytes=40)
    assert await batcher.put_many(["abcdef"] * 10) == ["ABCDEF"] * 10
    assert [len(batch) for batch in flushes.batches] == [2] * 5
    assert await batcher.put_many([]) == []


# -- the end -----------------------------------------------------------------------------------


async def test_closing_flushes_what_waits_and_takes_nothing_more(flushes: Flushes) -> None:
    batcher = make(flushes, max_batch=1)
    first = await held(flushes, batcher)
    waiting = Callers(batcher, ["a"], ["b"])
    await asyncio.sleep(0)
    closing = asyncio.create_task(batcher.aclose())
    await asyncio.sleep(0)
    with pytest.raises(Closed):
        await batcher.put(["late"])
    assert not closing.done()
    flushes.open.set()
    await closing
    assert await first.results() == [["FIRST"]]
    assert await waiting.results() == [["A"], ["B"]]
    assert flushes.batches == [["first"], ["a"], ["b"]]


async def test_closing_twice_or_unused_does_nothing(flushes: Flushes) -> None:
    batcher = make(flushes)
    await batcher.aclose()
    await batcher.aclose()
    with pytest.raises(Closed):
        await batcher.put(["a"])


async def test_two_flights_share_what_waits_and_run_at_once() -> None:
    under_way: list[list[str]] = []
    go = asyncio.Event()

    async def flush(items: Sequence[str]) -> Sequence[str]:
        under_way.append(list(items))
        await go.wait()
        return [item.upper() for item in items]

    batcher: Batcher[str, str] = Batcher(flush, size=len, max_batch=100, flights=2)
    callers = [asyncio.create_task(batcher.put([c])) for c in "abcdef"]
    await until(lambda: len(under_way) == 2)
    late = asyncio.create_task(batcher.put(["g"]))
    assert under_way == [["a", "b", "c"], ["d", "e", "f"]]
    go.set()
    assert await asyncio.gather(*callers) == [[c] for c in "ABCDEF"]
    assert await late == ["G"]
    assert under_way[2:] == [["g"]]


async def test_callers_that_come_just_as_a_flight_ends_are_not_forgotten() -> None:
    async def flush(items: Sequence[str]) -> Sequence[str]:
        await asyncio.sleep(0)
        return items

    batcher: Batcher[str, str] = Batcher(flush, size=len, max_batch=3, flights=2)

    async def caller() -> None:
        for n in range(200):
            assert await batcher.put([str(n)]) == [str(n)]

    async with asyncio.timeout(20):
        await asyncio.gather(*(caller() for _ in range(16)))
    await batcher.aclose()
