"""What only SQLite can show: the file itself, and records that were changed by hand."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import apsw
import pytest

from rebound.adapters.stores.sqlite import SqliteStore
from rebound.domain.attempt import DeadReason, State
from rebound.domain.errors import StoreUnavailable, StoreUnusable
from rebound.ports import Added, Filter
from tests.support import claim, claimed, ids, put, task

OTHER_RELEASE = b'{"source":"s","destination":{"url":"amqp://mq.test/jobs"}}'
"""Valid JSON, to a scheme that this release does not know."""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "tasks.db"


@pytest.fixture
async def store(path: Path) -> AsyncIterator[SqliteStore]:
    one = SqliteStore(str(path))
    await one.open()
    yield one
    await one.aclose()


def write_body(path: Path, id_: str, body: bytes) -> None:
    db = apsw.Connection(str(path))
    db.execute("UPDATE tasks SET body = ? WHERE id = ?", (body, id_))
    db.close()


# -- records that are not as they should be ----------------------------------------------------


@pytest.mark.parametrize("body", [b"garbage", b"\xff\x00", b"", b"{}", OTHER_RELEASE])
async def test_record_that_cannot_be_read_ends_dead_and_stops_no_lane(
    store: SqliteStore, path: Path, body: bytes
) -> None:
    await put(store, task("bad"), task("good"))
    write_body(path, "bad", body)
    assert ids((await store.find(Filter(), limit=10)).tasks) == ["good", "bad"]
    answer = await claim(store)
    assert (ids(answer.tasks), ids(answer.buried)) == (["good"], ["bad"])
    bad = await store.get("bad")
    assert bad is not None
    assert (bad.state, bad.dead_reason, bad.lease) == (State.DEAD, DeadReason.UNREADABLE, None)
    assert ids((await store.find(Filter(state=State.DEAD), limit=10)).tasks) == ["bad"]
    assert await store.swap(bad, None)
    assert await store.get("bad") is None


async def test_record_that_cannot_be_read_can_be_deleted_before_a_worker_came_by(
    store: SqliteStore, path: Path
) -> None:
    await put(store, task("bad"), task("good", delay=0.001))
    write_body(path, "bad", b"garbage")
    bad = await store.get("bad")
    assert bad is not None
    assert await store.swap(bad, None)
    assert await store.get("bad") is None


# -- the file ----------------------------------------------------------------------------------


async def test_nothing_is_accepted_into_a_file_that_was_removed(
    store: SqliteStore, path: Path
) -> None:
    await put(store, task("a"))
    away = path.rename(path.with_name("away.db"))
    for call in (put(store, task("b")), store.ping()):
        with pytest.raises(StoreUnavailable, match="was removed"):
            await call
    assert not path.exists()
    away.rename(path)
    await store.ping()
    assert await put(store, task("b")) == [Added.CREATED]
    assert ids(await claimed(store)) == ["a", "b"]


async def test_file_put_in_the_place_of_another_is_opened(
    store: SqliteStore, path: Path, tmp_path: Path
) -> None:
    await put(store, task("old"))
    other = SqliteStore(str(tmp_path / "other.db"))
    await put(other, task("restored"))
    await other.aclose()
    for old in tmp_path.glob("tasks.db*"):
        old.unlink()
    (tmp_path / "other.db").rename(path)
    assert ids((await store.find(Filter(), limit=10)).tasks) == ["restored"]


async def test_page_of_large_tasks_ends_early_with_a_cursor(store: SqliteStore) -> None:
    names = [f"t{n}" for n in range(20)]
    await put(store, *(task(name, message_data="x" * 2**20) for name in names))
    first = await store.find(Filter(), limit=100)
    assert len(first.tasks) == 8
    rest, cursor = ids(first.tasks), first.cursor
    while cursor is not None:
        page = await store.find(Filter(), limit=100, cursor=cursor)
        rest, cursor = rest + ids(page.tasks), page.cursor
    assert rest == names[::-1]


async def test_file_that_may_only_be_read_ends_the_start_also_after_a_crash(
    store: SqliteStore, path: Path
) -> None:
    await put(store, task("a"))  # while it is open there is a log beside the file, as after a crash
    for file in path.parent.iterdir():
        file.chmod(0o444)
    as_others = ["setpriv", "--bounding-set=-dac_override", "--inh-caps=-dac_override"]
    command = [*(as_others if os.geteuid() == 0 else []), sys.executable, "-m", "rebound", "work"]
    ended = await asyncio.to_thread(
        subprocess.run, [*command, "--store-url", f"sqlite:///{path}"],
        capture_output=True, text=True, timeout=20, check=False,
    )  # fmt: skip
    assert ended.returncode == 1
    assert ended.stderr == f"rebound: {path} cannot be opened for writing\n"


async def test_file_whose_name_is_no_utf_8_ends_the_start(tmp_path: Path) -> None:
    with pytest.raises(StoreUnusable, match="cannot be opened for writing"):
        await SqliteStore(str(tmp_path / "\udcff.db")).open()


async def test_file_damaged_behind_its_first_page_ends_the_start(
    store: SqliteStore, path: Path
) -> None:
    await put(store, *(task(f"t{n}") for n in range(100)))
    await store.aclose()
    whole = path.read_bytes()
    damaged = whole[:4096] + b"\xa5" * (len(whole) - 4096)
    path.write_bytes(damaged)
    with pytest.raises(StoreUnusable, match="is damaged"):
        await store.open()
    assert path.read_bytes() == damaged
