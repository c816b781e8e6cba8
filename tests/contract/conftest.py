"""The stores that the contract is run for."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from rebound.domain.finding import UNVISITED
from rebound.ports import Examiner, Retention, Store
from tests.conftest import Clock
from tests.redis_servers import Cluster


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """A Cluster has parts: what is counted exactly over a lane holds in each of them alone."""
    left_out = [i for i in items if "[redis-cluster" in i.name and i.get_closest_marker("exact")]
    config.hook.pytest_deselected(items=left_out)
    items[:] = [item for item in items if item not in set(left_out)]


_numbers = itertools.count()
MakeStore = Callable[..., Store]


@pytest.fixture(scope="session")
def redis_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Three masters for the whole run; each test uses a namespace of its own."""
    cluster = Cluster(tmp_path_factory.mktemp("cluster"), replicas=0)
    yield cluster
    cluster.stop()


@pytest.fixture(params=["sqlite-memory", "sqlite-file", "redis", "redis-cluster"])
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
        elif request.param == "redis-cluster":
            from rebound.adapters.stores.redis_connecting import Place
            from rebound.adapters.stores.redis_partitions import RedisPartitions

            nodes = request.getfixturevalue("redis_cluster").masters
            store = RedisPartitions(
                Place("redis://", addresses=[("127.0.0.1", node.port) for node in nodes]),
                namespace=namespace, retention=keep, shift=lambda: clock.offset, look_every=0,
            )  # fmt: skip
        else:
            from rebound.adapters.stores.sqlite import SqliteStore

            if path == ":memory:" and made:
                return made[0]
            store = SqliteStore(path, retention=keep, clock=clock)
        made.append(store)
        return store

    yield make
    if made and path != ":memory:":
        await _looked_over(make(), path, clock)
    for store in made:
        await store.aclose()


async def _looked_over(store: Any, path: str, clock: Clock) -> None:
    """Whatever a test did through the store's own calls, a doctor has nothing to say."""
    if store.name == "redis":
        from rebound.adapters.stores.redis_doctor import RedisDoctor

        doctor: Examiner = RedisDoctor(store, lease=60, shift=lambda: clock.offset)
    else:
        from rebound.adapters.stores.sqlite_doctor import SqliteDoctor

        doctor = SqliteDoctor(path, lease=60, clock=clock)
    found = (await doctor.examine(repair=False)).findings
    assert [one for one in found if not one.title.endswith(UNVISITED.title)] == []
    await doctor.aclose()


@pytest.fixture
async def store(make_store: MakeStore) -> Store:
    one = make_store()
    await one.open()
    return one
