"""What only Redis can show: wakes, broken records, connections; see also test_redis_trouble."""

from __future__ import annotations

import asyncio
import itertools
import logging
import signal
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from redis.asyncio import Redis

from rebound.adapters.stores.redis import RedisStore
from rebound.domain.attempt import DeadReason, State
from rebound.domain.errors import StoreUnavailable
from rebound.ports import Added, Filter, Retention
from tests.conftest import Clock, RedisServer, free_port, need, wait_for_port
from tests.contract.redis_support import OwnRedis, opened, plain, written_before
from tests.support import claim, claimed, fail, ids, put, submission, succeed, task

_numbers = itertools.count()


@pytest.fixture
def namespace() -> str:
    return f"only{next(_numbers)}"


@pytest.fixture
async def store(
    redis_server: RedisServer, namespace: str, clock: Clock
) -> AsyncIterator[RedisStore]:
    url = redis_server.url
    async with opened(url, namespace=namespace, shift=lambda: clock.offset) as one:
        yield one


@pytest.fixture
async def raw(redis_server: RedisServer) -> AsyncIterator[Redis]:
    """A plain client of the shared server."""
    async with plain(redis_server, decode_responses=True) as client:
        yield client


# -- wakes -------------------------------------------------------------------------------------


@asynccontextmanager
async def wakes(raw: Redis, namespace: str) -> AsyncIterator[Callable[[], Awaitable[int]]]:
    """A function that says how many wakes have been published since it was last asked."""
    channel = f"{{{namespace}:0}}:wake:http"
    async with raw.pubsub() as listening:
        await listening.subscribe(channel)
        await listening.get_message(timeout=5)

        async def count() -> int:
            await raw.publish(channel, "end")
            for n in itertools.count():
                message = await listening.get_message(timeout=5)
                assert message is not None
                if message["data"] == "end":
                    return n
            raise AssertionError

        yield count


async def test_wake_is_published_only_for_what_is_due_before_the_head(
    store: RedisStore, raw: Redis, namespace: str
) -> None:
    async with wakes(raw, namespace) as published:
        for delay, expected in ((10, 1), (20, 0), (5, 1), (5, 0)):
            await put(store, *(task(f"{delay}{n}{expected}", delay=delay) for n in range(3)))
            assert await published() == expected, delay


async def test_settle_that_brings_the_head_forward_wakes(
    store: RedisStore, raw: Redis, namespace: str
) -> None:
    await put(store, task("a", base_delay=5), task("b", base_delay=5))
    first, second = await claimed(store)
    async with wakes(raw, namespace) as published:
        await store.settle([fail(first, await store.time())])
        assert await published() == 1
        await store.settle([fail(second, await store.time())])
        assert await published() == 0


async def test_settle_that_frees_a_place_in_a_full_lane_wakes(
    store: RedisStore, raw: Redis, namespace: str
) -> None:
    await put(store, *(task(f"t{n}") for n in range(4)))
    first, second = await claimed(store, lane_limit=2)
    async with wakes(raw, namespace) as published:
        await store.settle([succeed(first, await store.time())])
        assert await published() == 1
        await store.settle([succeed(second, await store.time())])
        assert await published() == 0


async def test_work_for_another_lane_wakes_although_hanging_lanes_are_due(
    store: RedisStore, raw: Redis, namespace: str
) -> None:
    """A lane that waits for slots has been looked at: it must not hide what is new."""
    await put(store, *(task(f"h{n}", lane="hang") for n in range(30)))
    free = 10
    for _ in range(5):
        free -= len(await claimed(store, free, free=free, slots=10))
    assert (await claim(store, free, free=free, slots=10)).blocked
    async with wakes(raw, namespace) as published:
        await put(store, task("more", lane="hang"))
        assert await published() == 0
        await put(store, task("new", lane="healthy"))
        assert await published() == 1
    assert ids(await claimed(store, free, free=free, slots=10)) == ["new"]


async def test_watch_subscribes_again_after_the_server_was_away(own_redis: OwnRedis) -> None:
    server = own_redis()
    async with opened(server.url) as store:
        woken = asyncio.Event()
        watching = asyncio.create_task(store.watch(["http", "kafka"], woken.set))
        try:
            async with asyncio.timeout(20):
                await woken.wait()
                server.stop(signal.SIGKILL)
                woken.clear()
                server.start()
                await woken.wait()
                woken.clear()
                await put(store, task("a"))
                await woken.wait()
        finally:
            watching.cancel()
            await asyncio.gather(watching, return_exceptions=True)


# -- records that are not as they should be ----------------------------------------------------


@pytest.mark.parametrize(
    ("field", "text"),
    [
        ("b", '{"x"'), ("s", '{"x"'), ("g", '{"x"'),
        ("b", '{"source":"s","destination":{"url":"amqp://mq.test/jobs"}}'),
    ],
)  # fmt: skip
async def test_record_that_cannot_be_decoded_ends_dead_and_stops_no_lane(
    store: RedisStore, raw: Redis, namespace: str, field: str, text: str
) -> None:
    await put(store, task("bad", message_data="precious"), task("good"))
    await written_before(raw, f"{{{namespace}:0}}:t:bad")
    await raw.hset(f"{{{namespace}:0}}:t:bad", field, text)
    answer = await claim(store)
    assert ids(answer.tasks) == ["good"]
    assert answer.next_due == answer.now
    assert ids(answer.buried) == ["bad"]
    bad = await store.get("bad")
    assert bad is not None
    assert (bad.state, bad.dead_reason, bad.lease) == (State.DEAD, DeadReason.UNREADABLE, None)
    if field != "b":
        assert "precious" in str(bad.message_data)
    assert ids((await store.find(Filter(state=State.DEAD), limit=10)).tasks) == ["bad"]
    assert ids(await claimed(store)) == []
    assert await store.swap(bad, None)
    assert await store.get("bad") is None


async def test_id_without_a_record_is_dropped_and_logged(
    store: RedisStore, raw: Redis, namespace: str, caplog: pytest.LogCaptureFixture
) -> None:
    await put(store, *(task(f"t{n}") for n in range(4)))
    await raw.delete(*(f"{{{namespace}:0}}:t:t{n}" for n in (0, 1, 3)))
    assert ids(await claimed(store, 2)) == ["t2"]
    assert [r.levelno for r in caplog.records] == [logging.WARNING] * 3
    assert ids((await store.find(Filter(), limit=10)).tasks) == ["t2"]


async def test_finished_tasks_leave_no_key_of_a_lane_behind(
    store: RedisStore, raw: Redis, namespace: str
) -> None:
    await put(store, *(task(f"t{n}", lane=f"l{n % 3}", is_priority=n > 5) for n in range(12)))
    while batch := await claimed(store, lane_limit=2):
        await store.settle([succeed(t, await store.time()) for t in batch])
    names = {key.split(":", 2)[2] for key in await raw.keys(f"{{{namespace}:0}}:*")}
    assert {n for n in names if not n.startswith("t:")} == {"by:succeeded", "end:succeeded"}


async def test_maximum_that_cuts_the_time_short_is_warned_of_once(
    redis_server: RedisServer, namespace: str, caplog: pytest.LogCaptureFixture
) -> None:
    keep = Retention(max_succeeded=1, max_stubs=1)
    async with opened(redis_server.url, namespace=namespace, retention=keep) as store:
        await put(store, *(task(f"t{n}") for n in range(8)))
        for found in await claimed(store):
            await store.settle([succeed(found, await store.time())])
    texts = [r.getMessage() for r in caplog.records]
    assert texts == ["more than 1 succeeded tasks: readable only for 0 s"]


async def test_find_gets_past_many_that_are_being_delivered(store: RedisStore) -> None:
    await put(store, task("waits", delay=1000))
    await put(store, *(task(f"t{n}", lane=f"l{n % 40}") for n in range(1200)))
    taken = 0
    while batch := await claimed(store, 1000, free=3000):
        taken += len(batch)
    assert taken == 1200
    pages, cursor, found = 0, None, []
    while pages == 0 or cursor:
        page = await store.find(Filter(state=State.SCHEDULED), limit=5, cursor=cursor)
        found, cursor, pages = found + ids(page.tasks), page.cursor, pages + 1
    assert found == ["waits"]


# -- connections -------------------------------------------------------------------------------


async def test_namespaces_do_not_see_each_other(redis_server: RedisServer, namespace: str) -> None:
    url = redis_server.url
    async with (
        opened(url, namespace=namespace) as one,
        opened(url, namespace=f"{namespace}x") as other,
    ):
        await put(one, task("a"))
        assert await other.get("a") is None
        assert await claimed(other) == []
        assert (await other.find(Filter(), limit=10)).tasks == []
        assert await put(other, task("a", client_id="x")) == [Added.CREATED]
        assert ids(await claimed(one)) == ["a"]


@pytest.mark.parametrize("protocol", [2, 3])
async def test_callers_own_client_is_used_and_left_open(
    redis_server: RedisServer, namespace: str, protocol: int
) -> None:
    async with plain(redis_server, decode_responses=True, protocol=protocol) as client:
        async with opened("redis://127.0.0.1:1", namespace=namespace, client=client) as store:
            await put(store, task("a", message_data="ä"))
            assert [t.message_data for t in await claimed(store)] == ["ä"]
        assert await client.ping()


async def test_more_callers_than_connections_wait_for_one_another(
    redis_server: RedisServer, namespace: str, raw: Redis
) -> None:
    before = len(await raw.client_list())
    async with opened(redis_server.url, namespace=namespace, pool_size=3) as store:
        sent = [submission(task(f"t{n}")) for n in range(60)]
        answers = await asyncio.gather(*(store.add([s]) for s in sent))
        assert {a.added for (a,) in answers} == {Added.CREATED}
        assert len(await raw.client_list()) <= before + 3


async def test_tls_with_a_certificate_of_ones_own(own_redis: OwnRedis, tmp_path: Path) -> None:
    key, certificate = tmp_path / "key.pem", tmp_path / "cert.pem"
    subprocess.run(
        [need("openssl"), "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256",
         "-nodes", "-days", "1", "-subj", "/CN=127.0.0.1", "-addext",
         "subjectAltName=IP:127.0.0.1", "-keyout", str(key), "-out", str(certificate)],
        check=True, capture_output=True,
    )  # fmt: skip
    port = free_port()
    own_redis(
        "--save", "", "--tls-port", str(port), "--tls-cert-file", str(certificate),
        "--tls-key-file", str(key), "--tls-ca-cert-file", str(certificate),
        "--tls-auth-clients", "no",
    )  # fmt: skip
    wait_for_port(port)
    async with opened(f"rediss://127.0.0.1:{port}?ssl_ca_certs={certificate}") as store:
        await store.open()
        await put(store, task("a"))
        assert ids(await claimed(store)) == ["a"]
    async with opened(f"rediss://127.0.0.1:{port}") as store:
        with pytest.raises(StoreUnavailable, match="certificate"):
            await store.open()
