"""A task in Redis: a string until its first claim, then a hash; and hashes from before."""

from __future__ import annotations

import itertools
import struct
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest
from redis.asyncio import Redis

from rebound.adapters.stores.redis import RedisStore
from rebound.adapters.stores.redis_doctor import RedisDoctor
from rebound.domain import finding
from rebound.domain.attempt import DeadReason, Leg, State
from rebound.domain.destination import Destination
from rebound.domain.task import Task
from rebound.ports import Added, Filter
from tests.conftest import Clock, RedisServer
from tests.contract.redis_support import HEADER, opened, plain, written_before
from tests.support import claim, claimed, cut, fail, ids, put, submission, succeed, task

Q = "http|http://one.test"
_numbers = itertools.count()


class Bench:
    """A store, the bare Redis below it, and its doctor."""

    def __init__(self, store: RedisStore, raw: Redis, prefix: str, doctor: RedisDoctor) -> None:
        self.store, self.raw, self.prefix, self.doctor = store, raw, prefix, doctor

    def key(self, name: str) -> str:
        return self.prefix + name

    async def form(self, id_: str = "t") -> str:
        return (await self.raw.type(self.key(f"t:{id_}"))).decode()

    async def text(self, id_: str = "t") -> bytes:
        text = await self.raw.get(self.key(f"t:{id_}"))
        assert text is not None
        return bytes(text)

    async def get(self, id_: str = "t") -> Task:
        found = await self.store.get(id_)
        assert found is not None
        return found

    async def unreadable(self) -> list[tuple[str, ...]]:
        findings = (await self.doctor.examine(repair=True)).findings
        return [one.subjects for one in findings if finding.UNREADABLE.title in one.title]


@pytest.fixture
async def on(redis_server: RedisServer, clock: Clock) -> AsyncIterator[Bench]:
    namespace = f"records{next(_numbers)}"
    async with (
        opened(redis_server.url, namespace=namespace, shift=lambda: clock.offset) as store,
        plain(redis_server) as raw,
    ):
        doctor = RedisDoctor(store, lease=60, shift=lambda: clock.offset)
        yield Bench(store, raw, f"{{{namespace}:0}}:", doctor)


async def as_written_now(on: Bench) -> None:
    assert await on.form() == "string"


async def as_written_before(on: Bench) -> None:
    await written_before(on.raw, on.key("t:t"))
    assert await on.form() == "hash"


either_form = pytest.mark.parametrize("form", [as_written_now, as_written_before])
Form = Callable[[Bench], Awaitable[None]]


# -- what stands there -------------------------------------------------------------------------


async def test_a_task_that_no_worker_has_had_is_its_body_and_41_bytes(on: Bench) -> None:
    sent = submission(task(is_priority=True), delay=100)
    await on.store.add([sent])
    text = await on.text()
    assert len(text) == HEADER + len(sent.body)
    created, due, priority, digest, _ = struct.unpack_from(">QQ?16s8s", text)
    assert (priority, digest, text[HEADER:]) == (True, sent.digest, sent.body)
    assert await on.raw.zscore(on.key("by:open"), "t") == created
    assert await on.raw.zscore(on.key(f"d!:{Q}"), "t") == due == created + 100_000_000


async def test_its_first_claim_makes_it_a_hash_with_the_same_header_and_body(on: Bench) -> None:
    await put(on.store, task())
    text, before = await on.text(), await on.get()
    (one,) = await claimed(on.store)
    fields = await on.raw.hgetall(on.key("t:t"))
    assert (fields[b"g"], fields[b"b"]) == (text[:HEADER], text[HEADER:])
    assert fields.keys() == {b"g", b"b", b"k"}
    assert (one.created_at, one.due_at) == (before.created_at, before.due_at)


@pytest.mark.parametrize("dead_letter", [False, True])
async def test_a_task_that_does_not_begin_on_its_main_leg_is_a_hash_at_once(
    on: Bench, dead_letter: bool
) -> None:
    to = Destination(url="http://dead.test/dlq") if dead_letter else None
    sent = submission(task(failures=5, dead_destination=to))
    for nonce, answer in ((sent.nonce, Added.CREATED), ("other", Added.SAME)):
        (stored,) = await on.store.add([sent._replace(nonce=nonce)])
        assert stored.added == answer
        assert await on.form() == "hash"
    assert await put(on.store, task(failures=4)) == [Added.DIFFERENT]
    assert (await on.get()).leg == (Leg.DEAD if dead_letter else Leg.MAIN)


async def test_a_wait_of_centuries_ends_in_the_year_2255(on: Bench) -> None:
    await on.store.add([submission(task(), delay=1e13)])
    assert (await on.get()).due_at == 2**53 / 1e6
    assert (await on.doctor.examine(repair=False)).findings == []


# -- both forms --------------------------------------------------------------------------------


@either_form
async def test_either_form_is_shown_listed_and_delivered(
    on: Bench, form: Form, clock: Clock
) -> None:
    await put(on.store, task(message_data={"n": 1}, base_delay=10))
    before = await on.get()
    await form(on)
    assert await on.get() == before
    assert (await on.store.find(Filter(), limit=9)).tasks == [before]
    (one,) = await claimed(on.store)
    assert (one.message_data, one.created_at) == (before.message_data, before.created_at)
    assert await on.store.settle([fail(one, await on.store.time())]) == []
    clock.advance(60)
    (one,) = await claimed(on.store)
    assert one.attempt == 1
    assert await on.store.settle([succeed(one, await on.store.time())]) == []
    clock.advance(3700)
    await claimed(on.store)
    stub = await on.get()
    assert (stub.state, stub.source, stub.created_at) == ("succeeded", "", before.created_at)
    assert await put(on.store, task(message_data={"n": 1}, base_delay=10)) == [Added.SAME]


@either_form
async def test_either_form_is_cancelled_replayed_and_deleted(on: Bench, form: Form) -> None:
    await put(on.store, task(delay=100))
    await form(on)
    waits = await on.get()
    assert await on.store.swap(waits, waits.cancelled(await on.store.time()))
    gone = await on.get()
    assert (gone.state, await on.form()) == (State.CANCELLED, "hash")
    assert not await on.store.swap(waits, None)
    assert await on.store.swap(gone, gone.replayed(await on.store.time()))
    assert ids(await claimed(on.store)) == ["t"]


@either_form
async def test_either_form_is_deleted_while_it_waits(on: Bench, form: Form) -> None:
    await put(on.store, task())
    await form(on)
    assert await on.store.swap(await on.get(), None)
    assert await on.store.get("t") is None
    assert await claimed(on.store) == []


@either_form
async def test_either_form_tells_the_same_content_from_other(on: Bench, form: Form) -> None:
    await put(on.store, task(max_retries=3))
    await form(on)
    before = await on.raw.dump(on.key("t:t"))
    assert await put(on.store, task(max_retries=3)) == [Added.SAME]
    assert await put(on.store, task(max_retries=4)) == [Added.DIFFERENT]
    assert await on.raw.dump(on.key("t:t")) == before


@either_form
async def test_finding_the_same_is_a_write_that_replicas_have_to_confirm(
    on: Bench, form: Form
) -> None:
    await put(on.store, task())
    await form(on)

    async def written() -> int:
        return int((await on.raw.info("persistence"))["rdb_changes_since_last_save"])

    before = await written()
    assert await put(on.store, task(max_retries=4)) == [Added.DIFFERENT]
    assert await written() == before
    assert await put(on.store, task()) == [Added.SAME]
    assert await written() == before + 1


@either_form
async def test_either_form_that_is_in_no_set_is_mended(on: Bench, form: Form) -> None:
    await put(on.store, task(is_priority=True))
    await form(on)
    score = await on.raw.zscore(on.key("by:open"), "t")
    for key in ("by:open", f"d!:{Q}", "lanes:http", "lanes!:http"):
        await on.raw.delete(on.key(key))
    assert await claimed(on.store) == []
    await on.doctor.examine(repair=True)
    assert await on.raw.zscore(on.key("by:open"), "t") == score
    assert (await on.doctor.examine(repair=False)).findings == []
    assert ids(await claimed(on.store)) == ["t"]


@either_form
async def test_either_form_keeps_its_priority_when_it_is_put_back(
    on: Bench, form: Form, clock: Clock
) -> None:
    await put(on.store, task(is_priority=True))
    await form(on)
    for _ in range(2):
        assert ids(await claimed(on.store)) == ["t"]
        clock.advance(61)
    assert await claimed(on.store) == []
    assert await on.raw.zcard(on.key(f"d!:{Q}")) == 1


async def test_a_task_without_a_worker_that_is_listed_as_leased_is_handed_out(on: Bench) -> None:
    await put(on.store, task())
    await on.raw.zrem(on.key(f"d:{Q}"), "t")
    await on.raw.zadd(on.key(f"x:{Q}"), {"t": 1})
    (one,) = await claimed(on.store)
    assert one.lost == ()
    assert await on.store.settle([succeed(one, await on.store.time())]) == []


async def test_late_news_of_a_task_that_was_created_anew_are_lost_and_no_others(
    on: Bench,
) -> None:
    await put(on.store, task("t"), task("other"))
    both = await claimed(on.store)
    await on.raw.delete(on.key("t:t"))
    await put(on.store, task("t", delay=100))
    assert await on.store.extend(both, lease=60) == ["t"]
    assert await on.store.settle([succeed(one, await on.store.time()) for one in both]) == ["t"]
    assert (await on.get("t")).state == State.SCHEDULED
    assert (await on.get("other")).state == State.SUCCEEDED


async def test_a_large_body_is_in_a_hash_at_once(on: Bench) -> None:
    sent = submission(task(message_data="x" * 5000))
    for nonce, answer in ((sent.nonce, Added.CREATED), ("other", Added.SAME)):
        (stored,) = await on.store.add([sent._replace(nonce=nonce)])
        assert stored.added == answer
    assert set(await on.raw.hkeys(on.key("t:t"))) == {b"g", b"b"}
    (one,) = await claimed(on.store)
    assert one.message_data == "x" * 5000


# -- damaged -----------------------------------------------------------------------------------

DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    "first byte": lambda text: b"?" + text[1:],
    "times": lambda text: b"\0" + b"\xff" * 15 + text[16:],
    "a byte less": lambda text: text[:5] + text[6:],
    "body": lambda text: text[:-1],
    "no body": lambda text: text[:HEADER],
    "no header": lambda text: text[HEADER:],
}


@pytest.mark.parametrize("damage", DAMAGES)
async def test_a_damaged_string_ends_dead_stops_no_lane_and_keeps_every_byte(
    on: Bench, damage: str
) -> None:
    await put(on.store, task("t", message_data="precious"), task("good"))
    text = DAMAGES[damage](await on.text())
    await on.raw.set(on.key("t:t"), text)
    shown = await on.get()
    assert (shown.state, shown.dead_reason) == (State.DEAD, DeadReason.UNREADABLE)
    assert [t.id for t in (await on.store.find(Filter(), limit=9)).tasks] == ["good", "t"]
    assert await put(on.store, task("t", client_id="other")) == [Added.DIFFERENT]
    assert await on.text() == text
    assert await on.unreadable() == [("t",)]
    assert await on.text() == text
    answer = await claim(on.store)
    assert (ids(answer.tasks), ids(answer.buried)) == (["good"], ["t"])
    g, b = await on.raw.hmget(on.key("t:t"), "g", "b")
    assert g + b == text
    assert ids((await on.store.find(Filter(state=State.DEAD), limit=9)).tasks) == ["t"]
    assert await on.unreadable() == [("t",)]
    assert await claimed(on.store) == []
    assert await on.store.swap(await on.get(), None)
    assert await on.store.get("t") is None


async def test_a_damaged_header_in_a_hash_is_like_a_damaged_one_in_a_string(on: Bench) -> None:
    await put(on.store, task())
    (one,) = await claimed(on.store)
    await on.store.settle([cut(one, await on.store.time())])
    await on.raw.hset(on.key("t:t"), "g", b"\0" + b"\xff" * (HEADER - 1))
    assert (await on.get()).dead_reason == DeadReason.UNREADABLE
    assert ids((await claim(on.store)).buried) == ["t"]
