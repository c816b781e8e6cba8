"""A Redis store damaged by hand: the doctor names it, mends it, and the task is delivered."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence

import pytest
from redis.asyncio import Redis

from rebound.adapters.stores.redis import RedisStore
from rebound.adapters.stores.redis_doctor import RedisDoctor
from rebound.domain import finding
from rebound.domain.attempt import State
from rebound.domain.finding import Damage, Finding
from rebound.ports import Filter
from tests.conftest import Clock, RedisServer
from tests.contract.redis_support import OwnRedis, opened, plain, written_before
from tests.support import claimed, fail, ids, put, succeed, task

Q = "http|http://one.test"
LEASE = 60.0
_numbers = itertools.count()


class Patient:
    """A store, the bare Redis below it, and its doctor."""

    def __init__(self, store: RedisStore, raw: Redis, doctor: RedisDoctor, prefix: str) -> None:
        self.store, self.raw, self.doctor, self._prefix = store, raw, doctor, prefix

    def key(self, name: str) -> str:
        return self._prefix + name

    async def found(self, *, repair: bool = False) -> Sequence[Finding]:
        return (await self.doctor.examine(repair=repair)).findings

    async def move(self, id_: str, *, out: str = "", into: str = "", at: float = 1.0) -> None:
        if out:
            assert await self.raw.zrem(self.key(out), id_) == 1
        if into:
            await self.raw.zadd(self.key(into), {id_: at})


@pytest.fixture
async def patient(redis_server: RedisServer, clock: Clock) -> AsyncIterator[Patient]:
    namespace = f"ill{next(_numbers)}"
    prefix = f"{{{namespace}:0}}:"
    url = redis_server.url
    async with (
        opened(url, namespace=namespace, shift=lambda: clock.offset) as store,
        plain(redis_server) as raw,
    ):
        doctor = RedisDoctor(store, lease=LEASE, shift=lambda: clock.offset)
        yield Patient(store, raw, doctor, prefix)


def named(findings: Sequence[Finding]) -> list[tuple[str, tuple[str, ...], bool]]:
    """Title without its number, subjects, mended."""
    return [(one.title.split(" ", 2)[2], one.subjects, one.mended) for one in findings]


async def diagnosed(patient: Patient, *damages: Damage, subject: str = "t") -> None:
    """The doctor says `damages` of the subject; a look changes nothing; the repair leaves none.

    What it says of a lane besides follows from the damage to its task.
    """
    for repair in (False, False, True):
        found = [one for one in await patient.found(repair=repair) if subject in one.subjects]
        assert sorted(named(found)) == sorted((d.title, (subject,), repair) for d in damages)
    assert await patient.found() == []


async def delivered(store: RedisStore, *names: str) -> None:
    """Exactly `names` are handed out, each once, and can be settled."""
    tasks = await claimed(store)
    assert sorted(ids(tasks)) == sorted(names)
    assert await store.settle([succeed(one, await store.time()) for one in tasks]) == []
    assert await claimed(store) == []


# -- scheduled ---------------------------------------------------------------------------------


@pytest.mark.parametrize("priority", [False, True])
async def test_a_task_in_no_lane_is_put_back_and_delivered(
    patient: Patient, priority: bool
) -> None:
    await put(patient.store, task(is_priority=priority))
    line = "d!:" if priority else "d:"
    await patient.raw.delete(*(patient.key(k) for k in (line + Q, "lanes:http", "lanes!:http")))
    assert await claimed(patient.store) == []
    await diagnosed(patient, finding.UNQUEUED)
    await delivered(patient.store, "t")


async def test_a_retry_in_no_lane_is_put_back_for_the_time_when_it_was_due(
    patient: Patient, clock: Clock
) -> None:
    await put(patient.store, task(base_delay=100))
    (one,) = await claimed(patient.store)
    await patient.store.settle([fail(one, await patient.store.time())])
    await patient.move("t", out=f"d:{Q}")
    await diagnosed(patient, finding.UNQUEUED)
    assert await claimed(patient.store) == []
    clock.advance(201)
    await delivered(patient.store, "t")


async def test_a_record_in_no_set_at_all_is_found(patient: Patient) -> None:
    await put(patient.store, task())
    await patient.move("t", out=f"d:{Q}")
    await patient.move("t", out="by:open")
    await diagnosed(patient, finding.UNQUEUED, finding.UNLISTED)
    assert ids((await patient.store.find(Filter(), limit=9)).tasks) == ["t"]
    await delivered(patient.store, "t")


async def test_a_task_in_the_lane_of_another_release_is_left_there(patient: Patient) -> None:
    await put(patient.store, task("t"), task("u", lane="two"))
    await patient.move("t", out=f"d:{Q}", into="d:http|http://two.test")
    assert named(await patient.found(repair=True)) == [(finding.EMPTY.title, (Q,), True)]
    await delivered(patient.store, "t", "u")


@pytest.mark.parametrize(
    ("into", "damage"),
    [(f"x:{Q}", finding.PHANTOM), (f"d!:{Q}", finding.TWICE), ("by:dead", finding.UNLISTED),
     ("by:delivering", finding.UNLISTED), ("end:succeeded", finding.CONFUSED)],
)  # fmt: skip
async def test_a_scheduled_task_is_taken_out_of_where_it_does_not_belong(
    patient: Patient, into: str, damage: Damage
) -> None:
    await put(patient.store, task())
    await patient.move("t", into=into)
    if into.startswith("d!"):
        await patient.raw.zadd(patient.key("lanes!:http"), {Q: 1})
    await diagnosed(patient, damage)
    await delivered(patient.store, "t")


# -- leased ------------------------------------------------------------------------------------


async def test_a_lease_without_an_end_gets_one_and_is_taken_over(
    patient: Patient, clock: Clock
) -> None:
    await put(patient.store, task())
    assert ids(await claimed(patient.store)) == ["t"]
    await patient.move("t", out=f"x:{Q}")
    clock.advance(LEASE + 1)
    assert await claimed(patient.store) == []
    await diagnosed(patient, finding.UNLEASED)
    assert await claimed(patient.store) == []
    clock.advance(LEASE + 1)
    await delivered(patient.store, "t")


async def test_the_worker_that_still_has_the_task_settles_it_after_the_repair(
    patient: Patient,
) -> None:
    await put(patient.store, task())
    (one,) = await claimed(patient.store)
    await patient.move("t", out=f"x:{Q}")
    await patient.move("t", into=f"d:{Q}")
    await diagnosed(patient, finding.UNLEASED, finding.TWICE)
    assert await patient.store.settle([succeed(one, await patient.store.time())]) == []
    assert await claimed(patient.store) == []
    assert await patient.found() == []


# -- finished ----------------------------------------------------------------------------------


async def test_a_finished_task_in_line_or_in_flight_is_not_delivered_again(
    patient: Patient,
) -> None:
    await put(patient.store, task())
    await delivered(patient.store, "t")
    await patient.move("t", into=f"d:{Q}")
    await patient.move("t", into=f"x:{Q}")
    await diagnosed(patient, finding.TWICE, finding.PHANTOM)
    assert await claimed(patient.store) == []


async def test_finished_tasks_come_back_into_the_lists_that_forget_them(patient: Patient) -> None:
    await put(patient.store, task())
    await delivered(patient.store, "t")
    await patient.move("t", out="by:succeeded")
    await patient.move("t", out="end:succeeded")
    await diagnosed(patient, finding.UNLISTED)
    assert await patient.raw.zscore(patient.key("end:succeeded"), "t") == pytest.approx(
        1e6 * await patient.store.time(), abs=60e6
    )


async def test_a_stub_is_whole_without_a_body(patient: Patient, clock: Clock) -> None:
    await put(patient.store, task())
    await delivered(patient.store, "t")
    clock.advance(3700)
    await claimed(patient.store)
    assert await patient.raw.hexists(patient.key("t:t"), "f")
    assert await patient.found() == []
    await patient.move("t", out="end:stub")
    await diagnosed(patient, finding.UNLISTED)


# -- ids without a record, records that cannot be read -------------------------------------------


@pytest.mark.parametrize("leased", [False, True])
async def test_ids_without_a_record_are_named_and_removed(patient: Patient, leased: bool) -> None:
    await put(patient.store, task("t"), task("u", delay=100))
    if leased:
        assert ids(await claimed(patient.store)) == ["t"]
    await patient.raw.delete(patient.key("t:t"))
    await diagnosed(patient, finding.ORPHAN)
    assert await patient.raw.zcard(patient.key("by:open")) == 1
    assert await patient.raw.zcard(patient.key("by:delivering")) == 0


@pytest.mark.parametrize("name", ["by:dead", "end:cancelled"])
async def test_ids_without_a_record_in_a_list_alone_are_removed(
    patient: Patient, name: str
) -> None:
    await patient.move("t", into=name)
    await diagnosed(patient, finding.ORPHAN)


@pytest.mark.parametrize("field", ["b", "g", "s"])
async def test_a_record_that_cannot_be_read_is_named_and_kept(patient: Patient, field: str) -> None:
    await put(patient.store, task("t"), task("good"))
    await written_before(patient.raw, patient.key("t:t"))
    await patient.raw.hset(patient.key("t:t"), field, "\0")
    before = await patient.raw.hgetall(patient.key("t:t"))
    for repair in (False, True):
        found = await patient.found(repair=repair)
        assert named(found) == [(finding.UNREADABLE.title, ("t",), False)]
    assert await patient.raw.hgetall(patient.key("t:t")) == before
    await delivered(patient.store, "good")
    assert named(await patient.found()) == [(finding.UNREADABLE.title, ("t",), False)]
    assert ids((await patient.store.find(Filter(state=State.DEAD), limit=9)).tasks) == ["t"]


async def test_what_is_no_record_at_all_is_named_and_kept(patient: Patient) -> None:
    await patient.raw.set(patient.key("t:t"), "a string")
    for repair in (False, True):
        found = await patient.found(repair=repair)
        assert named(found) == [(finding.UNREADABLE.title, ("t",), False)]
    assert await patient.raw.get(patient.key("t:t")) == b"a string"


# -- lanes -------------------------------------------------------------------------------------


async def lane_gone(patient: Patient) -> None:
    await patient.raw.delete(patient.key("lanes:http"))


async def lane_late(patient: Patient) -> None:
    await patient.raw.zadd(patient.key("lanes:http"), {Q: 1e16})


async def lane_full(patient: Patient) -> None:
    await patient.raw.hset(patient.key(f"h:{Q}"), "full", 1)
    await lane_late(patient)


@pytest.mark.parametrize("damage", [lane_gone, lane_late, lane_full])
async def test_a_lane_that_nobody_looks_at_is_listed_again(
    patient: Patient, damage: Callable[[Patient], Awaitable[None]]
) -> None:
    await put(patient.store, task("t"), task("later", delay=100))
    await damage(patient)
    assert await claimed(patient.store) == []
    await diagnosed(patient, finding.OVERLOOKED, subject=Q)
    await delivered(patient.store, "t")


async def test_priority_tasks_of_a_lane_that_is_not_listed_for_them_are_found(
    patient: Patient,
) -> None:
    await put(patient.store, task(is_priority=True))
    await patient.raw.delete(patient.key("lanes!:http"))
    await diagnosed(patient, finding.OVERLOOKED, subject=Q)
    await delivered(patient.store, "t")


async def test_lanes_that_no_worker_comes_to_are_named(patient: Patient, clock: Clock) -> None:
    await put(patient.store, task("t"), task("later", lane="two", delay=100))
    clock.advance(50)
    assert await patient.found() == []
    clock.advance(20)
    for repair in (False, True):
        found = await patient.found(repair=repair)
        assert named(found) == [(finding.UNVISITED.title, (Q,), False)]
    await delivered(patient.store, "t")
    assert await patient.found() == []


async def test_an_empty_lane_is_taken_off_the_list(patient: Patient) -> None:
    await patient.raw.zadd(patient.key("lanes:http"), {Q: 1e16})
    await diagnosed(patient, finding.EMPTY, subject=Q)
    assert not await patient.raw.exists(patient.key("lanes:http"))


async def test_a_lane_that_waits_without_need_is_taken_out_of_the_line(patient: Patient) -> None:
    await put(patient.store, task())
    await patient.raw.zadd(patient.key("waits:http"), {Q: 3})
    await diagnosed(patient, finding.STALE_WAIT, subject=Q)
    await delivered(patient.store, "t")


async def test_held_and_limited_lanes_are_as_they_should_be(patient: Patient) -> None:
    await put(patient.store, task("a"), task("b", lane="two"), task("c", lane="three"))
    await patient.store.hold("http|http://one.test", seconds=1000)
    await patient.store.hold("http|http://empty.test", seconds=1000)
    await patient.store.limit("http|http://two.test", in_flight=0)
    await patient.store.limit("http|http://none.test", in_flight=3)
    assert ids(await claimed(patient.store)) == ["c"]
    assert await patient.found() == []


# -- the server --------------------------------------------------------------------------------


async def surroundings(server: RedisServer, replicas: int = 0) -> list[str]:
    doctor = RedisDoctor(RedisStore(server.url), lease=1, replicas=replicas)
    try:
        return [f"{one.severity}: {one.title}" for one in await doctor.surroundings()]
    finally:
        await doctor.aclose()


async def test_a_redis_that_keeps_what_it_confirms_has_no_findings(own_redis: OwnRedis) -> None:
    durable = ("--appendonly", "yes", "--appendfsync", "always", "--maxmemory", "1gb")
    assert await surroundings(own_redis(*durable)) == []


async def test_what_redis_would_lose_is_named(own_redis: OwnRedis) -> None:
    lossy = own_redis("--save", "", "--maxmemory", "1mb", "--maxmemory-policy", "allkeys-lru")
    found = await surroundings(lossy, replicas=2)
    assert found[:3] == [
        "error: maxmemory-policy is allkeys-lru, not noeviction",
        "warning: appendonly is off",
        "error: 0 replicas are connected, and 2 have to confirm each write",
    ]
    assert found[3] == "note: min-replicas-to-write is 0, below REDIS_WAIT_REPLICAS"
    assert found[4].endswith("% of its maxmemory")
    assert await surroundings(own_redis("--appendonly", "yes")) == [
        "warning: appendfsync is everysec, not always"
    ]


async def test_a_replica_is_named(own_redis: OwnRedis) -> None:
    master = own_redis()
    replica = own_redis("--replicaof", "127.0.0.1", str(master.port), "--appendonly", "yes",
                        "--appendfsync", "always")  # fmt: skip
    assert await surroundings(replica) == ["error: this Redis is a replica"]
