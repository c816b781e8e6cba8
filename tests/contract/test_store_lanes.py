"""The store contract: lanes, fairness, priority, limits and holds. Run for every store."""

from __future__ import annotations

from collections import Counter

import pytest
from msgspec.structs import replace

from rebound.domain.task import Task
from rebound.ports import Store
from tests.conftest import Clock
from tests.contract.conftest import MakeStore
from tests.support import claim, claimed, fail, ids, put, succeed, task

pytestmark = pytest.mark.exact


def lanes(tasks: list[Task]) -> Counter[str]:
    return Counter(t.lane_name.removeprefix("http://").removesuffix(".test") for t in tasks)


async def fill(store: Store, lane: str, count: int, **fields: object) -> None:
    await put(store, *(task(f"{lane}-{n}", lane=lane, **fields) for n in range(count)))


async def test_a_claim_is_shared_over_all_due_lanes(store: Store) -> None:
    await fill(store, "a", 50)
    await fill(store, "b", 50)
    await fill(store, "c", 3)
    shares = lanes(await claimed(store, 30))
    assert shares == {"a": 10, "b": 10, "c": 3}


async def test_a_claim_that_shared_little_says_that_another_is_worth_while(store: Store) -> None:
    await fill(store, "a", 50)
    await fill(store, "b", 1)
    answer = await claim(store, 20)
    assert lanes(list(answer.tasks)) == {"a": 10, "b": 1}
    assert answer.next_due is not None
    assert answer.next_due <= answer.now


async def test_oldest_due_goes_first_within_a_lane(store: Store, clock: Clock) -> None:
    await put(store, task("late", delay=5), task("early", delay=1), task("now", delay=0))
    clock.advance(6)
    assert ids(await claimed(store, 2)) == ["now", "early"]
    assert ids(await claimed(store, 2)) == ["late"]


@pytest.mark.parametrize("old", [0.0, 3600.0])
async def test_more_lanes_than_a_claim_visits_are_each_served_within_two_rounds(
    store: Store, clock: Clock, old: float
) -> None:
    """Also where the first lanes have old backlog: they must not starve the others."""
    for n in range(4):
        await fill(store, f"old{n}", 40)
    clock.advance(old)
    for n in range(16):
        await fill(store, f"new{n}", 5)
    seen: Counter[str] = Counter()
    for _ in range(4):
        batch = await claimed(store, 10)
        seen += lanes(batch)
        await store.settle([succeed(t, await store.time()) for t in batch])
    assert len(seen) == 20
    assert max(seen.values()) <= 4


async def test_a_lane_gets_no_more_than_its_limit_over_all_workers(make_store: MakeStore) -> None:
    one, other = make_store(), make_store()
    await fill(one, "a", 10)
    first = await claimed(one, 10, lane_limit=1)
    assert len(first) == 1
    answer = await claim(other, 10, lane_limit=1)
    assert list(answer.tasks) == []
    await one.settle([succeed(t, await one.time()) for t in first])
    assert len(await claimed(other, 10, lane_limit=1)) == 1


async def test_a_full_lane_is_not_looked_at_until_a_place_is_free(store: Store) -> None:
    await fill(store, "a", 10)
    (first,) = await claimed(store, 10, lane_limit=1)
    answer = await claim(store, 10, lane_limit=1)
    assert answer.next_due == pytest.approx(answer.now + 60, abs=1)
    await put(store, task("more", lane="a"))
    answer = await claim(store, 10, lane_limit=1)
    assert answer.next_due == pytest.approx(answer.now + 60, abs=1)
    await store.settle([succeed(first, await store.time())])
    assert len(await claimed(store, 10, lane_limit=1)) == 1


async def test_expired_leases_of_a_full_lane_count_within_its_limit(
    store: Store, clock: Clock
) -> None:
    await fill(store, "a", 10)
    first = await claimed(store, 10, lane_limit=4)
    assert len(first) == 4
    clock.advance(61)
    again = await claimed(store, 10, lane_limit=4)
    assert sorted(ids(again)) == sorted(ids(first))
    assert await claimed(store, 10, lane_limit=4) == []


async def test_expired_leases_come_back_within_the_lanes_share(store: Store, clock: Clock) -> None:
    await fill(store, "a", 40)
    assert len(await claimed(store, 40)) == 40
    clock.advance(61)
    await fill(store, "b", 40)
    shares = lanes(await claimed(store, 20))
    assert shares == {"a": 10, "b": 10}


async def fill_up(store: Store, slots: int, taken: list[Task]) -> int:
    """Claim as a worker of `slots` does that has `taken` in flight, until it gets no more.

    Adds to `taken`; returns the slots left free.
    """
    while True:
        free = slots - len(taken)
        answer = await claim(store, free, free=free, slots=slots)
        taken += answer.tasks
        if answer.next_due is None or answer.next_due > answer.now:
            return slots - len(taken)


async def test_a_single_lane_may_take_half_of_the_slots(store: Store) -> None:
    await fill(store, "a", 50)
    assert await fill_up(store, 10, []) == 5
    answer = await claim(store, 5, free=5, slots=10)
    assert (list(answer.tasks), answer.blocked) == ([], True)


@pytest.mark.parametrize("lanes_at_once", [1, 5, 20])
async def test_n_hanging_lanes_leave_a_share_of_one_in_n_plus_one_free_in_whatever_order_they_come(
    store: Store, lanes_at_once: int
) -> None:
    slots, taken, free = 1024, list[Task](), 1024
    for n in range(20):
        await fill(store, f"hang{n}", 600)
        if (n + 1) % lanes_at_once == 0:
            free = await fill_up(store, slots, taken)
    assert free >= slots // 21
    await fill(store, "healthy", 1)
    assert ids(await claimed(store, free, free=free, slots=slots)) == ["healthy-0"]


async def test_priority_goes_strictly_first_within_its_lane(store: Store, clock: Clock) -> None:
    await fill(store, "a", 5)
    clock.advance(10)
    await put(store, task("urgent", lane="a", is_priority=True))
    assert ids(await claimed(store, 2)) == ["urgent", "a-0"]


async def test_priority_takes_at_most_three_quarters_while_others_are_due(store: Store) -> None:
    await put(store, *(task(f"p{n}", lane="p", is_priority=True) for n in range(80)))
    await fill(store, "a", 80)
    first = await claimed(store, 40, random=0.0)
    assert lanes(first) == {"p": 30, "a": 10}


async def test_priority_takes_everything_where_nothing_else_is_due(store: Store) -> None:
    await put(store, *(task(f"p{n}", lane="p", is_priority=True) for n in range(80)))
    assert len(await claimed(store, 40)) == 40


async def test_retries_and_the_dead_leg_keep_the_priority(store: Store, clock: Clock) -> None:
    await put(store, task("p", lane="a", is_priority=True, base_delay=1))
    (found,) = await claimed(store)
    await store.settle([fail(found, await store.time())])
    await fill(store, "a", 5)
    clock.advance(5)
    assert ids(await claimed(store, 1)) == ["p"]


async def test_a_lane_of_its_own_groups_tasks_to_several_destinations(store: Store) -> None:
    await put(store, replace(task("a", "x"), lane="group"), replace(task("b", "y"), lane="group"))
    assert len(await claimed(store, 10, lane_limit=1)) == 1


async def test_a_held_lane_hands_out_nothing_not_even_expired_leases(
    store: Store, clock: Clock
) -> None:
    await fill(store, "a", 3)
    await claimed(store, 1, lane_limit=1)
    await store.hold("http|http://a.test", seconds=300)
    clock.advance(100)
    answer = await claim(store)
    assert list(answer.tasks) == []
    assert answer.next_due == pytest.approx(answer.now + 200, abs=1)
    await put(store, task("more", lane="a"))
    answer = await claim(store)
    assert answer.next_due == pytest.approx(answer.now + 200, abs=1)
    clock.advance(201)
    assert len(await claimed(store)) == 4


async def test_released_lane_is_due_at_once(store: Store) -> None:
    await fill(store, "a", 1)
    await store.hold("http|http://a.test", seconds=300)
    assert await claimed(store) == []
    await store.hold("http|http://a.test", seconds=None)
    assert ids(await claimed(store)) == ["a-0"]


async def test_a_held_lane_keeps_its_hold_while_it_is_empty(store: Store, clock: Clock) -> None:
    await store.hold("http|http://a.test", seconds=300)
    await fill(store, "a", 1)
    await put(store, task("urgent", lane="a", is_priority=True))
    assert await claimed(store) == []
    clock.advance(301)
    assert ids(await claimed(store)) == ["urgent", "a-0"]


async def test_a_lane_can_have_a_limit_of_its_own(store: Store) -> None:
    await store.limit("http|http://a.test", in_flight=2)
    await fill(store, "a", 10)
    assert len(await claimed(store, 10)) == 2
    await store.limit("http|http://a.test", in_flight=None)
    assert len(await claimed(store, 10)) == 8


async def test_what_nobody_here_serves_is_never_looked_at(store: Store) -> None:
    await fill(store, "a", 3)
    answer = await claim(store, kinds=["kafka", "call:mail"])
    assert (list(answer.tasks), answer.next_due) == ([], None)
    assert len(await claimed(store, kinds=["kafka", "http"])) == 3


async def test_a_claim_hands_out_eight_mebibytes_of_bodies_but_at_least_one_task(
    store: Store,
) -> None:
    big = "x" * (5 * 1024 * 1024)
    for n in range(3):
        await put(store, task(f"big{n}", message_data=big))
    await put(store, task("huge", lane="z", message_data=big + big))
    sizes = []
    for _ in range(4):
        answer = await claim(store)
        sizes.append(len(answer.tasks))
        assert answer.next_due is None or sizes[-1]
    assert sizes == [1, 1, 1, 1]


async def test_an_empty_claim_does_not_ask_for_another(store: Store) -> None:
    """A worker must not spin on lanes that give it nothing."""
    for n in range(5):
        await fill(store, f"hang{n}", 30)
    free = await fill_up(store, 50, [])
    answer = await claim(store, free, free=free, slots=50)
    assert list(answer.tasks) == []
    assert answer.next_due is None or answer.next_due > answer.now


async def test_finished_lanes_leave_nothing_behind(store: Store) -> None:
    for n in range(20):
        await fill(store, f"l{n}", 2)
    while batch := await claimed(store, 50):
        await store.settle([succeed(t, await store.time()) for t in batch])
    answer = await claim(store)
    assert (list(answer.tasks), answer.next_due, answer.blocked) == ([], None, False)


async def hanging(store: Store, count: int, slots: int) -> tuple[int, list[Task]]:
    """`count` lanes with backlog take what they can: the slots left free, and what they took."""
    for n in range(count):
        await fill(store, f"hang{n}", 20)
    taken: list[Task] = []
    return await fill_up(store, slots, taken), taken


async def test_a_healthy_lane_beside_a_hundred_hanging_ones_is_found_at_once(store: Store) -> None:
    free, _ = await hanging(store, 100, 10_000)
    assert free >= 99
    await fill(store, "healthy", 1)
    assert ids(await claimed(store, free, free=free, slots=10_000)) == ["healthy-0"]


async def test_a_lane_that_waits_for_slots_gets_one_when_more_are_free(store: Store) -> None:
    taken: list[Task] = []
    await fill(store, "b", 20)
    await fill_up(store, 40, taken)
    await fill(store, "a", 30)
    free = await fill_up(store, 40, taken)
    assert lanes(taken) == {"b": 20, "a": 6}
    assert await claimed(store, free, free=free, slots=40) == []
    await store.settle([succeed(t, await store.time()) for t in taken[:20]])
    taken = taken[20:]
    await fill_up(store, 40, taken)
    assert lanes(taken) == {"a": 20}


async def test_expired_leases_of_lanes_that_wait_for_slots_come_back(
    store: Store, clock: Clock
) -> None:
    """Their worker died with more in flight than another has slots."""
    free, taken = await hanging(store, 3, 40)
    assert max(lanes(taken).values()) >= free
    clock.advance(61)
    assert len(await claimed(store, 4, free=4, slots=4)) >= 1
