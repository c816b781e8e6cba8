"""The stores that the contract is run for."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from rebound.ports import Examiner, Retention, Store
from tests.conftest import Clock

_numbers = itertools.count()
MakeStore = Callable[..., Store]


@pytest.fixture(params=["sqlite-memory", "sqlite-file", "redis"])
async def make_store(
    request: pytest.FixtureRequest, tmp_path: Path, clock: Clock
) -> AsyncIterator[MakeStore]:
    """Makes stores that share one set of data, as workers do; `:memory:` is one store."""
    made: list[Store] = []
    namespace = f"test{next(_numbers)}"
    path = ":memory:" if request.param == "sqlite-memory" else str(tmp_path / "tasks.db")

    def make(retention: Retention | None = None) -> Store:
        keep = retention or Retention()
        if request.param == "redis":
            from rebound.adapters.stores.redis import RedisStore

            server = request.getfixturevalue("redis_server")
            store: Store = RedisStore(
                server.url, namespace=namespace, retention=keep, shift=lambda: clock.offset
            )
        else:
            from rebound.adapters.stores.sqlite import SqliteStore

            if path == ":memory:" and made:
                return made[0]
            store = SqliteStore(path, retention=keep, clock=clock)
        made.append(store)
        return store

    yield make
    for store in made:
        await store.aclose()
    if made and path != ":memory:":
        await _looked_over(request, namespace, path, clock)


async def _looked_over(
    request: pytest.FixtureRequest, namespace: str, path: str, clock: Clock
) -> None:
    """Whatever the test did through the store's own calls, a doctor has nothing to say."""
    if request.param == "redis":
        from rebound.adapters.stores.redis_doctor import RedisDoctor, Shard
        from rebound.adapters.stores.redis_scripts import RedisServer

        server = RedisServer(request.getfixturevalue("redis_server").url, None, 2)
        shards = [Shard(server, f"{{{namespace}:0}}:")]
        doctor: Examiner = RedisDoctor(shards, lease=60, shift=lambda: clock.offset)
    else:
        from rebound.adapters.stores.sqlite_doctor import SqliteDoctor

        doctor = SqliteDoctor(path, lease=60, clock=clock)
    try:
        assert list((await doctor.examine(repair=False)).findings) == []
    finally:
        await doctor.aclose()


@pytest.fixture
async def store(make_store: MakeStore) -> Store:
    one = make_store()
    await one.open()
    return one
