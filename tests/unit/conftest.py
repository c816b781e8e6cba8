"""The API, and engine and worker, over the in-memory store."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from rebound.adapters.api.app import Api
from rebound.adapters.stores.sqlite import SqliteStore
from rebound.attempting import Policy
from rebound.engine import Engine
from rebound.worker import Limits, Worker
from tests.conftest import Clock
from tests.unit import asgi
from tests.unit.scripted import FarStore, Heard, Receiver, others_than


@pytest.fixture
async def engine(clock: Clock) -> AsyncIterator[Engine]:
    made = asgi.make_engine(SqliteStore(":memory:", clock=clock))
    await made.store.open()
    yield made
    await made.aclose()


@pytest.fixture
async def lost_engine() -> AsyncIterator[Engine]:
    """An engine whose store cannot be reached."""
    made = asgi.make_engine(SqliteStore("/dev/null/tasks.db"))
    yield made
    await made.aclose()


@pytest.fixture
def api(engine: Engine) -> Api:
    return asgi.make_api(engine)


@pytest.fixture
def lost_api(lost_engine: Engine) -> Api:
    return asgi.make_api(lost_engine)


# -- the core: engine and worker on the in-memory store, with a scripted receiver ----------------


@pytest.fixture
def receiver() -> Receiver:
    return Receiver()


@pytest.fixture
def heard() -> Heard:
    return Heard()


@pytest.fixture
async def far(clock: Clock) -> AsyncIterator[FarStore]:
    store = SqliteStore(":memory:", clock=clock)
    yield FarStore(store)
    await store.aclose()


@pytest.fixture
async def core(far: FarStore, receiver: Receiver, heard: Heard) -> AsyncIterator[Engine]:
    policy = Policy(max_payload=1000, retry_after_max=3600.0)
    missing = {"kafka": "kafka:// needs an extra: pip install 'rebound-retry[kafka]'"}
    made = Engine(far, {"http": receiver}, policy, [heard], missing)  # type: ignore[arg-type]
    yield made
    await made.aclose()


@pytest.fixture
async def start(core: Engine, clock: Clock) -> AsyncIterator[Callable[..., Worker]]:
    """Starts workers that poll so rarely that only wakes count, and cut short at once."""
    workers: list[Worker] = []

    def begin(**limits: Any) -> Worker:
        limits = {"poll_interval": 60.0, "grace": 0.0, **limits}
        workers.append(Worker(core, ["http"], Limits(**limits), clock))
        workers[-1].start()
        return workers[-1]

    yield begin
    for worker in workers:
        await worker.drain()


@pytest.fixture
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    """A store that failed is asked again after 5 ms."""
    monkeypatch.setattr("rebound.worker.STORE_PAUSE", 0.005)


@pytest.fixture
async def nothing_is_left_behind() -> AsyncIterator[None]:
    """Fails where a test's workers leave a task of the loop."""
    before = asyncio.all_tasks()
    yield
    assert others_than(before) == set()
