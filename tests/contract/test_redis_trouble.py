"""Redis in trouble: full, forgetful, away, hanging, or answering into the void."""

from __future__ import annotations

import asyncio
import itertools
import subprocess
import time
from collections.abc import AsyncIterator

import pytest
import uvloop
from redis.asyncio import Redis

from rebound.adapters.stores import redis_server
from rebound.adapters.stores.redis import RedisStore
from rebound.domain.attempt import State
from rebound.domain.errors import StoreUnavailable, StoreUnusable
from rebound.ports import Added
from tests.conftest import Clock, RedisServer, free_port
from tests.contract.redis_support import OwnRedis, opened, plain
from tests.proxy import Proxy
from tests.support import claim, claimed, cut, fail, ids, put, succeed, task

_numbers = itertools.count()


@pytest.fixture
def namespace() -> str:
    return f"trouble{next(_numbers)}"


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


# -- a server in trouble -----------------------------------------------------------------------


async def test_full_redis_refuses_new_tasks_and_still_finishes_old_ones(
    own_redis: OwnRedis,
) -> None:
    server = own_redis()
    async with opened(server.url) as store, plain(server) as client:
        await put(store, *(task(f"t{n}") for n in range(4)))
        first, second, third = await claimed(store, 3)
        await client.config_set("maxmemory", "1")
        with pytest.raises(StoreUnavailable, match="full"):
            await put(store, task("more"))
        now = await store.time()
        assert await store.extend([first], lease=60) == []
        assert await store.settle([succeed(first, now), fail(second, now), cut(third, now)]) == []
        assert ids(await claimed(store)) == ["t3", "t2"]
        await store.hold("http|http://one.test", seconds=5)
        waiting = await store.get("t1")
        assert waiting is not None
        assert await store.swap(waiting, waiting.cancelled(now))


async def test_scripts_that_the_server_forgot_are_loaded_again(
    store: RedisStore, raw: Redis
) -> None:
    await put(store, task("a"))
    await raw.script_flush()
    found = await claimed(store)
    await raw.script_flush()
    assert await store.settle([succeed(found[0], await store.time())]) == []


async def test_flushall_loses_tasks_and_everything_goes_on(own_redis: OwnRedis) -> None:
    server = own_redis()
    async with opened(server.url) as store, plain(server) as client:
        await put(store, task("a"), task("b"))
        (found,) = await claimed(store, 1)
        await client.flushall()
        assert await store.extend([found], lease=60) == ["a"]
        assert await store.settle([succeed(found, await store.time())]) == ["a"]
        assert await store.get("b") is None
        assert await put(store, task("a")) == [Added.CREATED]
        assert ids(await claimed(store)) == ["a"]


async def test_restarted_server_is_used_again_at_once(own_redis: OwnRedis) -> None:
    server = own_redis()
    async with opened(server.url) as store:
        await asyncio.gather(*(store.ping() for _ in range(5)))
        server.stop()
        with pytest.raises(StoreUnavailable, match="cannot be reached"):
            await put(store, task("a"))
        server.start()
        assert await put(store, task("a")) == [Added.CREATED]
        assert ids(await claimed(store)) == ["a"]


def test_connection_that_broke_while_it_was_idle_loses_no_outcome_under_uvloop(
    own_redis: OwnRedis,
) -> None:
    server = own_redis()

    async def settle_after_a_break() -> None:
        proxy = Proxy(server.port)
        async with proxy, opened(proxy.url) as store, plain(server) as client:
            await put(store, task("a"))
            (found,) = await claimed(store)
            now = await store.time()
            proxy.reset()
            await client.ping()  # meanwhile the loop learns of it
            assert await store.settle([succeed(found, now)]) == []

    uvloop.run(settle_after_a_break())


async def test_server_that_hangs_is_given_up_in_time(
    own_redis: OwnRedis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(redis_server, "TRY_TIMEOUT", 0.2)
    server = own_redis()
    async with opened(server.url) as store:
        await put(store, task("a"))
        subprocess.run(["kill", "-STOP", str(server.pid)], check=True)
        try:
            began = time.monotonic()
            with pytest.raises(StoreUnavailable, match="did not answer"):
                await put(store, task("b"))
            assert time.monotonic() - began < 0.2 * 2.5
        finally:
            subprocess.run(["kill", "-CONT", str(server.pid)], check=True)
        assert await put(store, task("c")) == [Added.CREATED]


async def test_refused_login_is_unusable_and_names_no_password(own_redis: OwnRedis) -> None:
    server = own_redis("--requirepass", "right", "--save", "")
    for url in (server.url, server.url.replace("//", "//:wr0ng@")):
        async with opened(url) as store:
            with pytest.raises(StoreUnusable) as caught:
                await store.open()
            assert "wr0ng" not in str(caught.value)
            with pytest.raises(StoreUnavailable) as later:
                await store.ping()
            assert not isinstance(later.value, StoreUnusable)
    async with opened(server.url.replace("//", "//:right@")) as store:
        await store.open()


async def test_database_that_the_server_does_not_have_is_unusable(
    redis_server: RedisServer,
) -> None:
    async with opened(redis_server.url.removesuffix("/0") + "/9999") as store:
        with pytest.raises(StoreUnusable, match="DB index is out of range"):
            await store.open()


async def test_unreachable_server_is_unavailable_but_not_unusable() -> None:
    async with opened(f"redis://127.0.0.1:{free_port()}") as store:
        with pytest.raises(StoreUnavailable) as caught:
            await store.open()
        assert not isinstance(caught.value, StoreUnusable)


async def test_settings_that_fall_short_of_durable_are_named_in_one_warning(
    own_redis: OwnRedis,
) -> None:
    async with opened(own_redis().url) as store:
        assert await store.open() == [
            "appendonly is no, not yes; appendfsync is everysec, not always"
        ]
    durable = own_redis("--appendonly", "yes", "--appendfsync", "always")
    async with opened(durable.url) as store:
        assert await store.open() == []


# -- lost replies ------------------------------------------------------------------------------


class Cutter:
    """A relay to a Redis that can lose a reply: it then closes the connection instead."""

    def __init__(self, port: int) -> None:
        self._port = port
        self.cut_next = False
        self.cuts = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there_in, there = await asyncio.open_connection("127.0.0.1", self._port)
        try:
            await asyncio.gather(self._pass(reader, there), self._pass(there_in, writer, True))
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            there.close()
            writer.close()

    async def _pass(
        self, source: asyncio.StreamReader, sink: asyncio.StreamWriter, replies: bool = False
    ) -> None:
        while data := await source.read(65536):
            if replies and self.cut_next:
                self.cut_next = False
                self.cuts += 1
                raise ConnectionResetError
            sink.write(data)
            await sink.drain()
        raise ConnectionResetError


@pytest.fixture
async def cutter(redis_server: RedisServer) -> AsyncIterator[tuple[Cutter, str]]:
    relay = Cutter(redis_server.port)
    server = await asyncio.start_server(relay.serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    yield relay, f"redis://127.0.0.1:{port}"
    server.close()
    await server.wait_closed()


async def test_lost_reply_to_an_add_is_repeated_and_answers_created(
    cutter: tuple[Cutter, str], namespace: str
) -> None:
    relay, url = cutter
    async with opened(url, namespace=namespace) as store:
        await put(store, task("a"))
        relay.cut_next = True
        answers = await put(store, task("b"), task("a"), task("b"))
        assert relay.cuts == 1
        assert answers == [Added.CREATED, Added.SAME, Added.SAME]
        assert ids(await claimed(store)) == ["a", "b"]


async def test_lost_reply_to_a_settle_is_repeated_and_answers_the_same(
    cutter: tuple[Cutter, str], namespace: str
) -> None:
    relay, url = cutter
    async with opened(url, namespace=namespace) as store:
        await put(store, *(task(f"t{n}") for n in range(3)))
        now = await store.time()
        first, second, third = await claimed(store)
        assert await store.settle([succeed(first, now)]) == []
        relay.cut_next = True
        assert await store.settle([succeed(second, now), fail(third, now)]) == []
        assert relay.cuts == 1
        got = await store.get("t2")
        assert got is not None
        assert (got.state, got.attempt) == (State.SCHEDULED, 1)


async def test_lost_reply_to_a_claim_costs_one_lease_time_and_no_attempt(
    cutter: tuple[Cutter, str], namespace: str, clock: Clock
) -> None:
    relay, url = cutter
    async with opened(url, namespace=namespace, shift=lambda: clock.offset) as store:
        await claim(store)
        await put(store, task("a"))
        relay.cut_next = True
        with pytest.raises(StoreUnavailable):
            await claim(store)
        assert await claimed(store) == []
        clock.advance(61)
        (found,) = await claimed(store)
        assert (found.attempt, found.number, len(found.lost)) == (0, 1, 1)


async def test_cancelled_call_does_not_answer_the_next_one(store: RedisStore) -> None:
    for n in range(20):
        call = asyncio.create_task(put(store, task(f"t{n}")))
        for _ in range(n % 4):
            await asyncio.sleep(0)
        call.cancel()
        await asyncio.gather(call, return_exceptions=True)
        assert await store.time() > 1e9
    assert await put(store, task("last")) == [Added.CREATED]
