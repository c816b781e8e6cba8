"""The stores that the contract is run for."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from rebound.ports import Retention, Store
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

            memory = request.param == "sqlite-memory"
            if memory and made:
                return made[0]
            path = ":memory:" if memory else str(tmp_path / "tasks.db")
            store = SqliteStore(path, retention=keep, clock=clock)
        made.append(store)
        return store

    yield make
    for store in made:
        await store.aclose()


@pytest.fixture
async def store(make_store: MakeStore) -> Store:
    one = make_store()
    await one.open()
    return one
