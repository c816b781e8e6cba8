"""The API over an engine with the in-memory store."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from rebound.adapters.api.app import Api
from rebound.adapters.stores.sqlite import SqliteStore
from rebound.engine import Engine
from tests.conftest import Clock
from tests.unit import asgi


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
