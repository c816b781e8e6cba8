"""A SQLite file damaged by hand: the doctor names it, mends it, and the task is delivered."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import apsw
import pytest

from rebound.adapters.stores import sqlite_health
from rebound.adapters.stores.sqlite import SqliteStore
from rebound.adapters.stores.sqlite_doctor import SqliteDoctor
from rebound.adapters.stores.sqlite_health import file_system, library_findings, system_findings
from rebound.domain import finding
from rebound.domain.errors import StoreUnavailable
from rebound.domain.finding import Damage, Finding
from tests.conftest import Clock
from tests.support import claimed, fail, ids, put, succeed, task

Q = "http|http://one.test"
LEASE = 60.0


class Patient:
    """A store, its file, and its doctor."""

    def __init__(self, path: Path, clock: Clock) -> None:
        self.path = str(path)
        self.store = SqliteStore(self.path, clock=clock)
        self.doctor = SqliteDoctor(self.path, lease=LEASE, clock=clock)

    def hurt(self, sql: str, *values: Any) -> None:
        db = apsw.Connection(self.path)
        db.execute(sql, values)
        assert db.changes() > 0
        db.close()

    async def found(self, *, repair: bool = False) -> Sequence[Finding]:
        return (await self.doctor.examine(repair=repair)).findings


@pytest.fixture
async def patient(tmp_path: Path, clock: Clock) -> AsyncIterator[Patient]:
    one = Patient(tmp_path / "tasks.db", clock)
    await one.store.open()
    yield one
    await one.store.aclose()
    await one.doctor.aclose()


def named(findings: Sequence[Finding]) -> list[tuple[str, tuple[str, ...], bool]]:
    """Title without its number, subjects, mended."""
    return [(one.title.split(" ", 2)[2], one.subjects, one.mended) for one in findings]


async def diagnosed(patient: Patient, *damages: Damage, subject: str = "t") -> None:
    """The doctor says `damages` of the subject; a look changes nothing; the repair leaves none."""
    for repair in (False, False, True):
        found = [one for one in await patient.found(repair=repair) if subject in one.subjects]
        assert sorted(named(found)) == sorted((d.title, (subject,), repair) for d in damages)
    assert await patient.found() == []


async def delivered(store: SqliteStore, *names: str) -> None:
    """Exactly `names` are handed out, each once, and can be settled."""
    tasks = await claimed(store)
    assert sorted(ids(tasks)) == sorted(names)
    assert await store.settle([succeed(one, await store.time()) for one in tasks]) == []
    assert await claimed(store) == []


# -- tasks -------------------------------------------------------------------------------------


@pytest.mark.parametrize("column", ["due_at", "queue"])
async def test_a_task_that_falls_due_nowhere_is_put_back_and_delivered(
    patient: Patient, column: str
) -> None:
    await put(patient.store, task())
    patient.hurt(f"UPDATE tasks SET {column} = NULL")
    patient.hurt("DELETE FROM lanes")
    assert await claimed(patient.store) == []
    await diagnosed(patient, finding.UNQUEUED)
    await delivered(patient.store, "t")


async def test_a_retry_without_due_time_is_put_back_for_the_time_when_it_was_due(
    patient: Patient, clock: Clock
) -> None:
    await put(patient.store, task(base_delay=100))
    (one,) = await claimed(patient.store)
    await patient.store.settle([fail(one, await patient.store.time())])
    patient.hurt("UPDATE tasks SET due_at = NULL")
    await diagnosed(patient, finding.UNQUEUED)
    assert await claimed(patient.store) == []
    clock.advance(201)
    await delivered(patient.store, "t")


async def test_a_lease_without_an_end_gets_one_and_is_taken_over(
    patient: Patient, clock: Clock
) -> None:
    await put(patient.store, task())
    assert ids(await claimed(patient.store)) == ["t"]
    patient.hurt("UPDATE tasks SET expires_at = NULL")
    clock.advance(LEASE + 1)
    assert await claimed(patient.store) == []
    await diagnosed(patient, finding.UNLEASED)
    assert await claimed(patient.store) == []
    clock.advance(LEASE + 1)
    await delivered(patient.store, "t")


async def test_a_task_in_flight_without_a_lease_is_due_again(patient: Patient) -> None:
    await put(patient.store, task())
    await claimed(patient.store)
    patient.hurt("UPDATE tasks SET token = NULL")
    await diagnosed(patient, finding.PHANTOM)
    await delivered(patient.store, "t")


async def test_a_finished_task_with_a_lease_loses_it(patient: Patient) -> None:
    await put(patient.store, task())
    await delivered(patient.store, "t")
    patient.hurt("UPDATE tasks SET token = 'x', expires_at = 1")
    await diagnosed(patient, finding.PHANTOM)
    assert await claimed(patient.store) == []


async def test_the_record_of_a_task_counts_where_its_state_disagrees(patient: Patient) -> None:
    await put(patient.store, task("done"), task("waits"))
    (done, _) = await claimed(patient.store)
    await patient.store.settle([succeed(done, await patient.store.time())])
    patient.hurt("UPDATE tasks SET state = 'scheduled', due_at = 1, kept_from = NULL")
    patient.hurt("UPDATE tasks SET state = 'succeeded', token = NULL WHERE id = 'waits'")
    found = await patient.found(repair=True)
    assert named(found)[0] == (finding.CONFUSED.title, ("done", "waits"), True)
    assert await patient.found() == []
    await delivered(patient.store, "waits")


@pytest.mark.parametrize("age", [0, 3700])
async def test_finished_tasks_are_forgotten_again(patient: Patient, clock: Clock, age: int) -> None:
    await put(patient.store, task())
    await delivered(patient.store, "t")
    clock.advance(age)
    await claimed(patient.store)
    patient.hurt("UPDATE tasks SET kept_from = NULL")
    await diagnosed(patient, finding.UNLISTED)


@pytest.mark.parametrize("column", ["body", "progress", "lost"])
async def test_a_record_that_cannot_be_read_is_named_and_kept(
    patient: Patient, column: str
) -> None:
    await put(patient.store, task("t"), task("good"))
    garbage: Any = "?" if column == "lost" else b"?"
    patient.hurt(f"UPDATE tasks SET {column} = ? WHERE id = 't'", garbage)
    for repair in (False, True):
        found = await patient.found(repair=repair)
        assert named(found) == [(finding.UNREADABLE.title, ("t",), False)]


async def test_a_record_set_aside_as_unreadable_stays_a_finding(patient: Patient) -> None:
    await put(patient.store, task("t"), task("good"))
    patient.hurt("UPDATE tasks SET body = ? WHERE id = 't'", b"?")
    await delivered(patient.store, "good")
    assert named(await patient.found(repair=True)) == [(finding.UNREADABLE.title, ("t",), False)]


# -- lanes and indexes -------------------------------------------------------------------------


@pytest.mark.parametrize(
    "damage",
    ["DELETE FROM lanes", "UPDATE lanes SET look = NULL", "UPDATE lanes SET look = 1e12",
     "UPDATE lanes SET look = 1e12, is_full = 1"],
)  # fmt: skip
async def test_a_lane_that_nobody_looks_at_is_listed_again(patient: Patient, damage: str) -> None:
    await put(patient.store, task("t"), task("later", delay=100))
    patient.hurt(damage)
    assert await claimed(patient.store) == []
    await diagnosed(patient, finding.OVERLOOKED, subject=Q)
    await delivered(patient.store, "t")


async def test_a_lane_not_listed_for_its_priority_tasks_is(patient: Patient) -> None:
    await put(patient.store, task(is_priority=True))
    patient.hurt("UPDATE lanes SET look_priority = NULL")
    await diagnosed(patient, finding.OVERLOOKED, subject=Q)
    await delivered(patient.store, "t")


async def test_lanes_that_no_worker_comes_to_are_named(patient: Patient, clock: Clock) -> None:
    await put(patient.store, task("t"), task("later", lane="two", delay=100))
    clock.advance(50)
    assert await patient.found() == []
    clock.advance(20)
    for repair in (False, True):
        found = await patient.found(repair=repair)
        assert named(found) == [(finding.UNVISITED.title, (Q,), False)]
    await delivered(patient.store, "t")
    assert await patient.found() == []


async def test_an_empty_lane_is_taken_off_the_list(patient: Patient) -> None:
    patient.hurt("INSERT INTO lanes (queue, kind, look) VALUES (?, 'http', 1e12)", Q)
    await diagnosed(patient, finding.EMPTY, subject=Q)


async def test_held_and_limited_lanes_are_as_they_should_be(patient: Patient) -> None:
    await put(patient.store, task("a"), task("b", lane="two"), task("c", lane="three"))
    await patient.store.hold("http|http://one.test", seconds=1000)
    await patient.store.hold("http|http://empty.test", seconds=1000)
    await patient.store.limit("http|http://two.test", in_flight=0)
    await patient.store.limit("http|http://none.test", in_flight=3)
    assert ids(await claimed(patient.store)) == ["c"]
    assert await patient.found() == []


async def test_a_task_that_its_index_lacks_is_found_again(patient: Patient) -> None:
    schema = "SELECT type, name, tbl_name, rootpage, sql FROM sqlite_schema WHERE name = ?"
    await patient.store.aclose()
    db = apsw.Connection(patient.path)
    row = db.execute(schema, ("tasks_due",)).fetchone()
    db.execute("PRAGMA writable_schema = ON; DELETE FROM sqlite_schema WHERE name = 'tasks_due'")
    db.close()
    db = apsw.Connection(patient.path)  # knows no such index
    db.execute(
        """INSERT INTO tasks (id, body, state, queue, priority, digest, nonce, created_at,
            updated_at, due_at) VALUES ('t', ?, 'scheduled', ?, 0, ?, 'n', 1, 1, 1)""",
        (b'{"source":"s","destination":{"url":"http://one.test/hook"}}', Q, b"d"),
    )
    db.execute("PRAGMA writable_schema = ON")
    db.execute("INSERT INTO sqlite_schema VALUES (?, ?, ?, ?, ?)", row)
    db.close()
    await patient.store.open()
    assert await claimed(patient.store) == []
    (found, *_) = await patient.found()
    assert found.title == "an index and its table disagree (tasks_due)"
    await patient.found(repair=True)
    assert await patient.found() == []
    await delivered(patient.store, "t")


# -- the file ----------------------------------------------------------------------------------


async def test_a_file_on_a_disk_with_room_has_no_findings(patient: Patient) -> None:
    assert await patient.doctor.surroundings() == []


async def test_what_is_no_database_is_not_examined(tmp_path: Path) -> None:
    path = tmp_path / "tasks.db"
    path.write_text("not a database, but text that is long enough to look like one" * 99)
    doctor = SqliteDoctor(str(path), lease=1)
    assert await doctor.surroundings() == []
    with pytest.raises(StoreUnavailable, match="is not an SQLite database"):
        await doctor.examine(repair=False)
    await doctor.aclose()


async def test_a_damaged_file_is_named(patient: Patient) -> None:
    await put(patient.store, *(task(f"t{n}", message_data="x" * 3000) for n in range(50)))
    await patient.store.aclose()
    with open(patient.path, "r+b") as file:
        size = os.path.getsize(patient.path)
        for page in range(size // 8192, size // 4096):
            file.seek(page * 4096)
            file.write(b"\xff" * 64)
    (found,) = await patient.doctor.surroundings()
    assert (found.severity, found.title) == ("error", "the file is damaged")


async def test_an_open_file_and_a_foreign_owner_are_named(
    patient: Patient, monkeypatch: pytest.MonkeyPatch
) -> None:
    await put(patient.store, task())
    os.chmod(patient.path, 0o666)
    (found,) = await patient.doctor.surroundings()
    assert found.title == "everybody on this host may write the file"
    if os.geteuid() == 0:
        os.chmod(patient.path, 0o600)
        os.chown(f"{patient.path}-wal", 12345, -1)
        (found,) = await patient.doctor.surroundings()
        assert found.title == "the file and its -wal and -shm have different owners"
        assert "tasks.db-wal: 12345" in found.meaning


async def test_a_disk_that_is_nearly_full_is_named(
    patient: Patient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite_health, "LOW", 2**70)
    (found,) = await patient.doctor.surroundings()
    assert (found.severity, found.title[-30:]) == (
        "warning",
        " are free on the disk of the file"[-30:],
    )


MOUNTS = r"""22 1 8:1 / / rw - ext4 /dev/sda1 rw
23 22 0:5 / /mnt/a\040b rw shared:1 - nfs4 host:/x rw
24 22 0:6 / /run rw - tmpfs tmpfs rw
25 22 0:7 / /mnt/box rw - overlay overlay rw
"""


@pytest.mark.parametrize(
    ("path", "kind", "severity"),
    [("/var/x.db", "ext4", None), ("/mnt/a b/x.db", "nfs4", "error"),
     ("/run/x.db", "tmpfs", "warning"),
     ("/runner/x.db", "ext4", None), ("/mnt/box/x.db", "overlay", "warning")],
)  # fmt: skip
def test_network_file_systems_and_those_in_memory_are_named(
    path: str, kind: str, severity: str | None
) -> None:
    assert file_system(path, MOUNTS) == kind
    assert [one.severity for one in system_findings(kind)] == ([severity] if severity else [])


@pytest.mark.parametrize(
    ("version", "wrong"),
    [("3.40.1", True), ("3.44.6", False), ("3.50.6", True), ("3.50.7", False), ("3.51.2", True),
     ("3.51.3", False), ("3.52.0", True), ("3.53.0", False), ("3.54.1", False)],
)  # fmt: skip
def test_a_library_with_the_wal_reset_bug_is_named(version: str, wrong: bool) -> None:
    assert len(list(library_findings(version))) == wrong
