"""The store contract: what becomes of single tasks. Run for every store."""

from __future__ import annotations

import asyncio
import threading

import pytest

from rebound.domain.attempt import DeadLetter, Leg, State
from rebound.domain.destination import Destination
from rebound.domain.errors import StoreUnavailable, ValidationError
from rebound.domain.task import Task
from rebound.ports import Added, Filter, Retention, Store
from tests.conftest import Clock
from tests.contract.conftest import MakeStore
from tests.support import (
    DAY,
    claim,
    claimed,
    cut,
    fail,
    ids,
    put,
    submission,
    succeed,
    task,
)  # fmt: skip

DEAD = Destination(url="http://dead.test/dlq")


async def one_claimed(store: Store) -> Task:
    (found,) = await claimed(store)
    return found


async def get(store: Store, id_: str) -> Task:
    found = await store.get(id_)
    assert found is not None
    return found


# -- adding ------------------------------------------------------------------------------------


async def test_added_task_is_stored_as_scheduled_and_comes_back_as_it_was_set(store: Store) -> None:
    sent = task("a", client_id="c", message_data={"n": 1.5, "s": "ä"}, ttl=3600, is_priority=True)
    assert await put(store, sent) == [Added.CREATED]
    got = await get(store, "a")
    assert (got.state, got.leg, got.attempt) == (State.SCHEDULED, Leg.MAIN, 0)
    assert bytes(got.message_data) == '{"n":1.5,"s":"ä"}'.encode()  # type: ignore[call-overload]
    assert (got.client_id, got.ttl, got.is_priority) == ("c", 3600, True)
    assert got.created_at == got.updated_at == pytest.approx(await store.time(), abs=1)


async def test_unknown_id_is_none(store: Store) -> None:
    assert await store.get("nobody") is None


async def test_same_content_under_a_known_id_is_same_and_other_content_different(
    store: Store,
) -> None:
    await put(store, task("a", max_retries=3))
    assert await put(store, task("a", max_retries=3)) == [Added.SAME]
    assert await put(store, task("a", max_retries=4)) == [Added.DIFFERENT]
    assert (await get(store, "a")).max_retries == 3


async def test_two_equal_ids_in_one_call_make_one_task(store: Store) -> None:
    answers = await put(store, task("a"), task("a"), task("a", client_id="other"), task("b"))
    assert answers == [Added.CREATED, Added.SAME, Added.DIFFERENT, Added.CREATED]


async def test_repeat_of_an_add_whose_reply_was_lost_answers_created(store: Store) -> None:
    sent = submission(task("a"))
    for _ in range(2):
        (answer,) = await store.add([sent])
        assert answer.added == Added.CREATED
    assert len(await claimed(store)) == 1


async def test_delayed_task_is_not_claimed_before_its_time(store: Store, clock: Clock) -> None:
    await put(store, task("a", delay=10))
    answer = await claim(store)
    assert list(answer.tasks) == []
    assert answer.next_due == pytest.approx(answer.now + 10, abs=0.5)
    clock.advance(9)
    assert await claimed(store) == []
    clock.advance(1.1)
    assert ids(await claimed(store)) == ["a"]


async def test_first_due_time_is_stored_with_the_task(store: Store) -> None:
    (answer,) = await store.add([submission(task("a"), delay=42)])
    got = await get(store, "a")
    assert got.created_at == pytest.approx(answer.now, abs=1e-5)
    assert got.due_at == pytest.approx((got.created_at or 0) + 42, abs=0.01)


async def test_task_that_starts_on_the_dead_leg_queues_in_its_lane(store: Store) -> None:
    await put(store, task("a", failures=5, dead_destination=DEAD))
    found = await one_claimed(store)
    assert (found.leg, found.target, found.number) == (Leg.DEAD, DEAD, 1)
    assert found.lease is not None
    assert found.lease.queue == "http|http://dead.test"
    assert found.dead_at == found.created_at


async def test_task_that_is_dead_at_once_is_never_claimed_and_can_be_replayed(store: Store) -> None:
    await put(store, task("a", failures=5))
    assert await claimed(store) == []
    dead = await get(store, "a")
    assert (dead.state, dead.dead_letter) == (State.DEAD, DeadLetter.NONE)
    assert dead.finished_at == pytest.approx(await store.time(), abs=1)
    assert await store.swap(dead, dead.replayed(await store.time()))
    assert ids(await claimed(store)) == ["a"]


# -- leases ------------------------------------------------------------------------------------


async def test_claimed_task_is_delivering_and_not_claimed_twice(store: Store) -> None:
    await put(store, task("a"))
    found = await one_claimed(store)
    assert found.state == State.DELIVERING
    assert await claimed(store) == []
    assert (await get(store, "a")).state == State.DELIVERING


async def test_settled_success_stays_readable_whole(store: Store) -> None:
    await put(store, task("a", message_data="hello"))
    found = await one_claimed(store)
    assert await store.settle([succeed(found, await store.time())]) == []
    got = await get(store, "a")
    assert (got.state, got.message_data, got.attempt) == (State.SUCCEEDED, "hello", 1)
    assert len(got.attempts) == 1
    assert got.lease is None


async def test_failed_task_comes_back_at_its_new_time(store: Store, clock: Clock) -> None:
    await put(store, task("a", base_delay=10))
    found = await one_claimed(store)
    assert await store.settle([fail(found, await store.time())]) == []
    got = await get(store, "a")
    assert (got.state, got.attempt, got.last_error) == (State.SCHEDULED, 1, "HTTP 500")
    clock.advance(19)
    assert await claimed(store) == []
    clock.advance(1.5)
    assert (await one_claimed(store)).number == 2


async def test_dead_leg_goes_to_the_other_lane(store: Store) -> None:
    await put(store, task("a", max_retries=1, dead_destination=DEAD))
    found = await one_claimed(store)
    await store.settle([fail(found, await store.time())])
    again = await one_claimed(store)
    assert (again.leg, again.lane_name) == (Leg.DEAD, "http://dead.test")
    await store.settle([succeed(again, await store.time())])
    got = await get(store, "a")
    assert (got.state, got.dead_letter) == (State.DEAD, DeadLetter.DELIVERED)


async def test_wrong_token_loses_and_changes_nothing(store: Store, clock: Clock) -> None:
    await put(store, task("a"))
    first = await one_claimed(store)
    clock.advance(61)
    second = await one_claimed(store)
    assert first.lease != second.lease
    assert await store.settle([succeed(first, await store.time())]) == ["a"]
    assert (await get(store, "a")).state == State.DELIVERING
    assert await store.settle([succeed(second, await store.time())]) == []


async def test_expired_lease_that_nobody_took_can_still_be_settled(
    store: Store, clock: Clock
) -> None:
    await put(store, task("a"))
    found = await one_claimed(store)
    clock.advance(3600)
    assert await store.settle([succeed(found, await store.time())]) == []


async def test_repeated_settle_answers_the_same(store: Store) -> None:
    await put(store, task("a"))
    found = await one_claimed(store)
    done = [succeed(found, await store.time())]
    assert await store.settle(done) == []
    assert await store.settle(done) == []


async def test_repeated_settle_of_a_retry_does_not_undo_what_came_after(store: Store) -> None:
    await put(store, task("a", backoff={"strategy": "schedule", "schedule": [0]}))
    first = await one_claimed(store)
    failed = fail(first, await store.time())
    assert await store.settle([failed]) == []
    second = await one_claimed(store)
    assert await store.settle([failed]) == []
    assert await store.settle([succeed(second, await store.time())]) == []
    assert (await get(store, "a")).state == State.SUCCEEDED


async def test_extended_lease_outlives_its_first_expiry(store: Store, clock: Clock) -> None:
    await put(store, task("a"))
    found = await one_claimed(store)
    clock.advance(40)
    assert await store.extend([found], lease=60) == []
    clock.advance(40)
    assert await claimed(store) == []
    clock.advance(21)
    again = await one_claimed(store)
    assert await store.extend([found], lease=60) == ["a"]
    assert await store.extend([again], lease=60) == []


async def test_expired_lease_is_claimed_again_at_once_the_first_time(
    store: Store, clock: Clock
) -> None:
    await put(store, task("a"))
    await claimed(store)
    clock.advance(61)
    again = await one_claimed(store)
    assert (len(again.lost), again.number) == (1, 1)


async def test_task_that_lost_two_leases_parts_from_its_neighbours(
    store: Store, clock: Clock
) -> None:
    await put(store, task("a"))
    for _ in range(2):
        assert len(await claimed(store)) == 1
        clock.advance(61)
    assert await claimed(store, random=0.5) == []
    got = await get(store, "a")
    assert got.state == State.SCHEDULED
    assert got.due_at == pytest.approx(await store.time() + 4, abs=0.5)
    clock.advance(3.4)
    assert await claimed(store) == []
    clock.advance(1.1)
    assert len((await one_claimed(store)).lost) == 2


async def test_fifth_lost_lease_is_handed_out_so_that_the_leg_can_end(
    store: Store, clock: Clock
) -> None:
    await put(store, task("a", max_retries=1))
    lost = 0
    for _ in range(20):
        for found in await claimed(store):
            lost = len(found.lost)
        if lost == 5:
            break
        clock.advance(61)
    assert lost == 5
    found = await get(store, "a")
    assert found.lease is not None
    assert await store.settle([found.crashed(await store.time())]) == []
    dead = await get(store, "a")
    assert (dead.state, dead.dead_reason, len(dead.attempts)) == (State.DEAD, "crashed", 5)


async def test_settle_resets_the_count_of_lost_leases(store: Store, clock: Clock) -> None:
    await put(store, task("a"))
    await claimed(store)
    clock.advance(61)
    found = await one_claimed(store)
    assert await store.settle([cut(found, await store.time())]) == []
    again = await one_claimed(store)
    assert (again.lost, again.number) == ((), 1)
    assert [a.outcome for a in again.attempts] == ["lost", "cut_short"]


# -- people ------------------------------------------------------------------------------------


async def test_cancelled_task_is_not_claimed_and_leaves_no_lane(store: Store) -> None:
    await put(store, task("a"))
    before = await get(store, "a")
    assert await store.swap(before, before.cancelled(await store.time()))
    answer = await claim(store)
    assert (list(answer.tasks), answer.next_due) == ([], None)
    assert (await get(store, "a")).state == State.CANCELLED


async def test_swap_refuses_what_has_changed_since(store: Store) -> None:
    await put(store, task("a", base_delay=1))
    before = await get(store, "a")
    found = await one_claimed(store)
    now = await store.time()
    assert not await store.swap(before, before.cancelled(now))
    await store.settle([fail(found, now)])
    assert not await store.swap(before, before.cancelled(now))
    current = await get(store, "a")
    assert await store.swap(current, current.cancelled(now))


async def test_forgotten_task_is_unknown_and_its_id_free(store: Store) -> None:
    await put(store, task("a"))
    found = await one_claimed(store)
    await store.settle([succeed(found, await store.time())])
    assert await store.swap(await get(store, "a"), None)
    assert await store.get("a") is None
    assert await put(store, task("a", client_id="new")) == [Added.CREATED]


@pytest.mark.exact
async def test_found_newest_first_page_by_page(store: Store) -> None:
    await put(store, *(task(f"t{n}") for n in range(7)))
    seen: list[str] = []
    cursor = None
    while True:
        page = await store.find(Filter(), limit=3, cursor=cursor)
        seen += ids(page.tasks)
        cursor = page.cursor
        if cursor is None:
            break
    assert seen == [f"t{n}" for n in reversed(range(7))]


async def test_find_filters_by_state_leg_source_and_client(store: Store) -> None:
    for one in (task("a", client_id="x"), task("b", client_id="y"), task("c", delay=99)):
        await put(store, one)  # one by one, for a Cluster has several clocks
    taken = {t.id: t for t in await claimed(store)}
    await store.settle([succeed(taken["a"], await store.time())])
    for wanted, expected in (
        (Filter(state=State.SUCCEEDED), ["a"]),
        (Filter(state=State.DELIVERING), ["b"]),
        (Filter(state=State.SCHEDULED), ["c"]),
        (Filter(state=State.DEAD), []),
        (Filter(client_id="y"), ["b"]),
        (Filter(source="tests"), ["c", "b", "a"]),
        (Filter(source="nobody"), []),
        (Filter(leg="dead"), []),
    ):
        assert ids((await store.find(wanted, limit=10)).tasks) == expected, wanted


@pytest.mark.parametrize("cursor", ["", "x", "-1", "ÿ", "9" * 400, "AAAA"])
async def test_cursor_that_no_page_returned_is_an_error(store: Store, cursor: str) -> None:
    with pytest.raises(ValidationError) as caught:
        await store.find(Filter(), limit=10, cursor=cursor)
    assert caught.value.field == "cursor"


# -- retention ---------------------------------------------------------------------------------


async def finish(store: Store, one: Task) -> None:
    await put(store, one)
    found = await one_claimed(store)
    await store.settle([succeed(found, await store.time())])


async def test_succeeded_task_shrinks_to_a_stub_and_then_goes(
    make_store: MakeStore, clock: Clock
) -> None:
    store = make_store(Retention(succeeded=100, dedup=1000))
    await finish(store, task("a", message_data="x"))
    clock.advance(101)
    await finish(store, task("b"))
    stub = await get(store, "a")
    assert (stub.state, stub.message_data, stub.source) == (State.SUCCEEDED, "", "")
    assert stub.finished_at is not None
    assert await put(store, task("a", message_data="x")) == [Added.SAME]
    assert await put(store, task("a", message_data="y")) == [Added.DIFFERENT]
    assert ids((await store.find(Filter(), limit=10)).tasks) == ["b"]
    clock.advance(1000)
    await finish(store, task("c"))
    assert await store.get("a") is None
    assert await put(store, task("a", message_data="y")) == [Added.CREATED]


async def test_claims_forget_what_is_old_without_any_settle(
    make_store: MakeStore, clock: Clock
) -> None:
    store = make_store(Retention(succeeded=100, dedup=100))
    await finish(store, task("a"))
    clock.advance(101)
    await put(store, task("b"))
    await claimed(store)
    assert await store.get("a") is None


async def test_claims_that_find_nothing_due_forget_what_is_old_too(
    make_store: MakeStore, clock: Clock
) -> None:
    store = make_store(Retention(succeeded=100, dedup=200))
    await finish(store, task("a", message_data="x"))
    clock.advance(101)
    assert await claimed(store) == []
    assert (await get(store, "a")).source == ""
    clock.advance(101)
    assert await claimed(store) == []
    assert await store.get("a") is None


async def test_closed_store_is_unavailable_and_starts_nothing_anew(make_store: MakeStore) -> None:
    store = make_store()
    await put(store, task("a"))
    await store.aclose()
    threads = threading.active_count()
    with pytest.raises(StoreUnavailable):
        await store.get("a")
    assert threading.active_count() == threads


@pytest.mark.exact
async def test_only_the_newest_succeeded_stay_whole_where_a_maximum_cuts_the_time_short(
    make_store: MakeStore,
) -> None:
    store = make_store(Retention(max_succeeded=2, max_stubs=1))
    for name in "abcd":
        await finish(store, task(name))
    await put(store, task("e", delay=5))
    assert [(await store.get(n)) is None for n in "abcd"] == [True, False, False, False]
    assert [(await get(store, n)).source for n in "bcd"] == ["", "tests", "tests"]


async def test_dead_tasks_stay_until_a_person_removes_them_unless_delivered(
    store: Store, clock: Clock
) -> None:
    await put(
        store, task("kept", max_retries=1), task("sent", max_retries=1, dead_destination=DEAD)
    )
    now = await store.time()
    await store.settle([fail(t, now) for t in await claimed(store)])
    await store.settle([succeed(t, now) for t in await claimed(store)])
    clock.advance(31 * DAY)
    await finish(store, task("other"))
    assert (await get(store, "kept")).state == State.DEAD
    assert await store.get("sent") is None


# -- other processes ---------------------------------------------------------------------------


async def test_watch_wakes_for_an_add_by_another_process(make_store: MakeStore) -> None:
    one, other = make_store(), make_store()
    woken = asyncio.Event()
    watching = asyncio.create_task(one.watch(["http"], woken.set))
    try:
        await asyncio.wait_for(woken.wait(), 5)
        await asyncio.sleep(0.05)
        woken.clear()
        await put(other, task("a"))
        await asyncio.wait_for(woken.wait(), 5)
    finally:
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)


async def test_two_claims_at_once_never_hand_out_the_same_task(make_store: MakeStore) -> None:
    one, other = make_store(), make_store()
    await put(one, *(task(f"t{n}", lane=f"l{n % 5}") for n in range(200)))
    batches = await asyncio.gather(*(claimed(s, 20) for s in (one, other) * 10))
    taken = [t for batch in batches for t in ids(batch)]
    assert len(taken) == len(set(taken))
    rest = await claimed(one, 200)
    assert len(set(taken) | set(ids(rest))) == len(taken) + len(rest)


async def test_store_answers_a_ping_and_the_time(store: Store) -> None:
    await store.ping()
    assert await store.time() > 1_600_000_000
