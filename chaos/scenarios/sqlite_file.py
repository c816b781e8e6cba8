"""What happens to the SQLite file and to those who share it: full, damaged, killed, together."""

from __future__ import annotations

import asyncio
import hashlib
import itertools
import subprocess
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import apsw
from tests.e2e.conftest import Process, Service

from chaos.load import Load, mixed
from chaos.scenarios.redis_server import TRICKLE, goes_on
from chaos.stage import Scenario, Stage

RATE = 300
DISK = 96
"""MiB of the disk that becomes full."""
PAGE = 4096
DAMAGE: dict[str, Callable[[bytes], bytes]] = {
    "first page overwritten": lambda whole: b"\xa5" * PAGE + whole[PAGE:],
    "all other pages overwritten": lambda whole: whole[:PAGE] + b"\xa5" * (len(whole) - PAGE),
    "cut short": lambda whole: whole[: len(whole) // 2],
}


async def disk_full(stage: Stage) -> None:
    """Something else fills the disk: creating answers 503, and when there is room all goes on."""
    disk = own_disk(stage)
    await stage.service.serve()
    make = mixed(stage.receiver)
    load, during = stage.load(make), stage.load(make, "u")
    loading = asyncio.create_task(load.run(stage.rate(RATE), 3600))
    await asyncio.sleep(stage.seconds(20, 4))
    ballast = disk / "ballast"
    fill(ballast)
    noticed = await stage.until(lambda: load.answers[503] > 0, 20)
    stage.check(noticed, "a full disk refused nothing")
    load.stop()
    await stage.fault()
    full = asyncio.create_task(during.run(TRICKLE, stage.seconds(20, 4)))
    await asyncio.sleep(stage.seconds(20, 4) - 1)
    accepted = next(iter(load.accepted))
    status, _ = await stage.service.call("GET", f"/tasks/{accepted}")
    stage.check(status == 200, f"reading with a full disk was answered with {status}")
    ballast.unlink()
    await goes_on(stage, during)
    await asyncio.gather(loading, full)
    await stage.load(make, "v").run(stage.rate(RATE), stage.seconds(15, 3))
    check_file(stage)


async def unusable(stage: Stage) -> None:
    """A file that is read-only or damaged ends the start with code 1 and one line, and stays as it
    is; put right again it has everything."""
    disk = own_disk(stage)
    process = await stage.service.serve()
    make = mixed(stage.receiver)
    load = stage.load(lambda n: {**make(n), "delay": 0 if n % 2 else 5})
    await load.run(stage.rate(RATE), stage.seconds(10, 3))
    process.kill()
    await refused(stage, "read-only", read_only(disk))
    process = await stage.service.serve()
    await stage.fault()
    await process.terminate()  # so that all is in the one file
    for name, change in DAMAGE.items():
        await refused(stage, name, changed(disk, change))
    await stage.service.serve()
    await stage.load(make, "v").run(stage.rate(RATE), stage.seconds(5, 2))


async def refused(stage: Stage, name: str, trouble: AbstractContextManager[None]) -> None:
    """A service on the file in trouble has to end with code 1 and one line, and write nothing."""
    disk = stage.folder / "disk"
    with trouble:
        before = contents(disk)
        failed = stage.service.run("serve", HTTP_PORT="0")
        await stage.until(lambda: not failed.alive, 20)
        lines = failed.logged().splitlines()
        stage.check(failed.process.poll() == 1, f"{name}: exit code {failed.process.poll()}")
        stage.check(contents(disk) == before, f"{name}: the files were written to")
        held = len(lines) == 1 and "rebound.db" in lines[0]
        stage.check(held, f"{name}: {len(lines)} lines, {lines[:1]}")


async def shared(stage: Stage) -> None:
    """Two services with a worker each on one file; one after the other is killed."""
    other = Service({}, stage.folder / "other")
    (stage.folder / "other").mkdir()
    stage.after.push_async_callback(other.close)
    other.settings = stage.settings
    both = [stage.service, other]
    processes = [await one.serve() for one in both]
    turns = itertools.count()
    load = Load(lambda: both[next(turns) % 2].url, mixed(stage.receiver))
    stage.loads.append(load)
    rounds = stage.rounds(10, 2)
    loading = asyncio.create_task(load.run(stage.rate(RATE), 3600))
    for n in range(rounds):
        await asyncio.sleep(stage.random.uniform(1, 3))
        processes[n % 2].kill()
        stage.in_flight.update(leased(stage))
        await _started_again(both[n % 2], processes, n % 2)
    load.stop()
    await loading
    check_file(stage)


async def killed_often(stage: Stage) -> None:
    """`kill -9` of service and worker in one process, every few seconds."""
    processes = [await stage.service.serve()]
    load = stage.load(mixed(stage.receiver))
    loading = asyncio.create_task(load.run(stage.rate(RATE / 2), 3600))
    for _ in range(stage.rounds(50, 3)):
        await asyncio.sleep(stage.random.uniform(1, 3))
        processes[0].kill()
        stage.in_flight.update(leased(stage))
        await _started_again(stage.service, processes, 0)
    load.stop()
    await loading
    check_file(stage)


# -- their parts -------------------------------------------------------------------------------


async def _started_again(service: Service, processes: list[Process], at: int) -> None:
    port = service.url.rpartition(":")[2]
    processes[at] = service.run("serve", HTTP_PORT=port)
    await service.ready(processes[at])


def own_disk(stage: Stage) -> Path:
    """A small file system for the store."""
    disk = stage.folder / "disk"
    disk.mkdir()
    mount("-t", "tmpfs", "-o", f"size={DISK}m", "tmpfs", disk)
    stage.after.callback(subprocess.run, ["umount", "-l", disk], check=True)
    stage.settings["STORE_URL"] = f"sqlite:///{disk}/rebound.db"
    return disk


def mount(*arguments: str | Path) -> None:
    """Call mount(8). Raises PermissionError where it is not allowed."""
    done = subprocess.run(["mount", *arguments], stderr=subprocess.PIPE, text=True, check=False)
    if done.returncode != 0:
        raise PermissionError(f"{done.stderr.strip()}: run it as root")


def fill(path: Path) -> None:
    """Write until the disk is full."""
    with path.open("wb", buffering=0) as file:
        try:
            while True:
                file.write(b"0" * PAGE)
        except OSError:
            pass


def contents(disk: Path) -> dict[str, str]:
    """Digest of each file but the index of the log, which SQLite makes anew."""
    return {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest()
        for path in disk.iterdir()
        if not path.name.endswith("-shm")
    }


def asked(stage: Stage, question: str) -> list[str]:
    """The first column of what the file of a stage answers."""
    path = stage.settings["STORE_URL"].removeprefix("sqlite:///")
    db = apsw.Connection(path, flags=apsw.SQLITE_OPEN_READONLY)
    try:
        return [str(row[0]) for row in db.execute(question)]
    finally:
        db.close()


def leased(stage: Stage) -> list[str]:
    """Ids that are being delivered, of whatever process."""
    return asked(stage, "SELECT id FROM tasks WHERE state = 'delivering'")


def check_file(stage: Stage) -> None:
    """SQLite's own check of the whole file."""
    said = asked(stage, "PRAGMA integrity_check")
    stage.check(said == ["ok"], f"integrity_check: {said[:3]}")


@contextmanager
def read_only(disk: Path) -> Iterator[None]:
    """The whole file system."""
    mount("-o", "remount,ro", disk)
    yield
    mount("-o", "remount,rw", disk)


@contextmanager
def changed(disk: Path, change: Callable[[bytes], bytes]) -> Iterator[None]:
    """The bytes of the file, put right again afterwards."""
    path = disk / "rebound.db"
    whole = path.read_bytes()
    path.write_bytes(change(whole))
    yield
    path.write_bytes(whole)


SCENARIOS = (
    Scenario("12a", "disk full", disk_full, ("sqlite",), mounts=True),
    Scenario("12b", "file read-only or damaged", unusable, ("sqlite",), mounts=True),
    Scenario("12c", "two services on one file", shared, ("sqlite",)),
    Scenario("12d", "kill -9, again and again", killed_often, ("sqlite",)),
)
