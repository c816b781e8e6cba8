"""`SyncRebound`: the same calls from threads, and one clear error where it cannot be used."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from rebound import (
    Closed,
    Config,
    Destination,
    DuplicateTask,
    ReboundError,
    State,
    StoreUnusable,
    SyncRebound,
    ValidationError,
    WrongState,
)
from rebound.client import Client
from tests.support import task


def made(**settings: object) -> SyncRebound:
    return SyncRebound(Config(store_url="sqlite://:memory:", **settings), worker=False)  # type: ignore[arg-type]


@pytest.fixture
def rebound() -> Iterator[SyncRebound]:
    with made() as one:
        yield one


def test_every_call_does_what_rebounds_does(rebound: SyncRebound) -> None:
    stored = rebound.create_task(task("a", delay=60))
    assert (stored.id, stored.state) == ("a", State.SCHEDULED)
    assert rebound.create_task(task("a", delay=60)).created_at == stored.created_at
    with pytest.raises(DuplicateTask):
        rebound.create_task(task("a", delay=61))
    assert [t.id for t in rebound.create_tasks(task(f"b{n}", delay=60) for n in range(3))] == [
        "b0", "b1", "b2",
    ]  # fmt: skip
    assert rebound.get_task("a") == stored
    assert rebound.get_task("nobody") is None
    assert {t.id for t in rebound.find(state="scheduled", limit=10).tasks} == {
        "a",
        "b0",
        "b1",
        "b2",
    }
    assert rebound.cancel("a").state == State.CANCELLED
    assert rebound.replay("a").state == State.SCHEDULED
    with pytest.raises(WrongState):
        rebound.delete("a")
    rebound.cancel("a")
    rebound.delete("a")
    assert rebound.get_task("a") is None
    with pytest.raises(ValidationError, match="limit"):
        rebound.find(limit=0)


def test_many_threads_use_one(rebound: SyncRebound) -> None:
    with ThreadPoolExecutor(16) as threads:
        stored = list(
            threads.map(lambda n: rebound.create_task(task(f"t{n}", delay=60)), range(200))
        )
    assert {t.id for t in stored} == {f"t{n}" for n in range(200)}


def test_the_end_leaves_no_thread_and_can_come_twice() -> None:
    before = set(threading.enumerate())
    rebound = made()
    rebound.start()
    rebound.start()
    assert set(threading.enumerate()) - before
    rebound.close()
    rebound.close()
    assert set(threading.enumerate()) == before


def test_before_the_start_and_after_the_end_one_error_says_what_to_do() -> None:
    rebound = made()
    with pytest.raises(ReboundError, match=r"not started: use `with`, or call start\(\)"):
        rebound.get_task("a")
    rebound.start()
    rebound.close()
    with pytest.raises(Closed, match="make a new one"):
        rebound.get_task("a")
    with pytest.raises(Closed):
        rebound.start()


async def test_inside_a_running_loop_it_refuses_rather_than_blocks() -> None:
    with pytest.raises(ReboundError, match="running event loop; there use Rebound"):
        made().start()


async def test_an_end_inside_a_running_loop_is_refused_and_changes_nothing() -> None:
    rebound = made()
    await asyncio.to_thread(rebound.start)
    with pytest.raises(ReboundError, match="running event loop"):
        rebound.close()
    stored = await asyncio.to_thread(rebound.create_task, task("a", delay=60))
    assert stored.id == "a"
    await asyncio.to_thread(rebound.close)


def test_a_start_that_fails_leaves_nothing_behind_and_can_be_repeated(tmp_path: Path) -> None:
    before = set(threading.enumerate())
    file = tmp_path / "rebound.db"
    file.write_bytes(b"this is no database" * 100)
    rebound = SyncRebound(Config(store_url=f"sqlite:///{file}"), worker=False)
    with pytest.raises(StoreUnusable):
        rebound.start()
    assert set(threading.enumerate()) == before
    file.unlink()
    with rebound:
        assert rebound.create_task(task("a", delay=60)).id == "a"


def test_a_task_can_be_checked_before_it_is_handed_in() -> None:
    rebound = SyncRebound(Config(store_url="sqlite://:memory:", https_only=True), worker=False)
    rebound.check(task(destination=Destination(url="https://api.test/hook")))
    with pytest.raises(ValidationError, match="destination"):
        rebound.check(task(destination=Destination(url="http://api.test/hook")))
    with rebound:
        assert rebound.find().tasks == []


def test_a_call_under_way_when_another_thread_closes_ends_too() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent, ThreadPoolExecutor() as threads:
        client = Client(f"http://127.0.0.1:{silent.getsockname()[1]}")
        call = threads.submit(client.get_task, "a")
        silent.settimeout(10)
        connection, _ = silent.accept()
        with connection:
            client.close()
            with pytest.raises(Closed):
                call.result(10)
