"""Where one scenario runs on one store: processes, receiver, load, and what was in flight."""

from __future__ import annotations

import asyncio
import contextlib
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterable, Sequence
from functools import partial
from pathlib import Path
from random import Random
from typing import Any, NamedTuple

from tests.conftest import RedisServer
from tests.e2e.conftest import Process, Service

from chaos.account import LEAST_LOAD, Balance, Row, balance, unexplained
from chaos.load import SOURCE, Load, Make
from chaos.receiver import Receiver

DURABLE = ("--save", "", "--appendonly", "yes", "--appendfsync", "always")
"""Options of a Redis that keeps what it acknowledges."""
AFTER = 60.0
"""Seconds after the end of the faults by which nothing may be overdue."""
IN_TIME = 10.0
"""Seconds after its planned time by which a task counts as load that was really there."""
SLACK = 10.0
"""Seconds that a machine which does other things as well may take longer."""
LOOK = 5.0
"""Seconds after which the store is asked, however much the receiver waits for."""


class Stage:
    """What a scenario works with. `service` starts and calls processes; `receiver` records."""

    def __init__(self, store: str, folder: Path, *, short: bool, seed: int = 20) -> None:
        """`store` is `sqlite` or `redis`; `redis` is the server in the latter case."""
        self.store = store
        self.folder = folder
        self.short = short
        self.random = Random(seed)
        self.redis: RedisServer | None = None
        self.receiver = Receiver()
        self.loads: list[Load] = []
        self.in_flight: Counter[str] = Counter()
        self.slack = SLACK if short else 0.0
        self.explained_by = ""
        """Outcome of an attempt that explains a repeat as well, where only the faults cause it."""
        self.forgotten: set[str] = set()
        """Ids that the store was made to lose, by more than it promises to withstand."""
        self.after = contextlib.AsyncExitStack()
        """What ends with the stage, when its processes have ended."""
        self.problems: list[str] = []
        self.notes: list[str] = []
        self._began = time.monotonic()
        if store == "redis":
            self.redis = RedisServer(folder, *DURABLE)
            url = self.redis.url
        else:
            url = f"sqlite:///{folder}/rebound.db"
        # what all processes of the scenario start with; it may be changed
        self.settings = {
            "STORE_URL": url, "LOG_FORMAT": "json", "LOG_LEVEL": "warn",
            "LEASE": "6s" if short else "3s",  # a worker that is kept waiting must keep its leases
        }  # fmt: skip
        self.service = Service({}, folder)
        self.service.patience += self.slack
        self.service.settings = self.settings

    def rounds(self, full: int, short: int) -> int:
        """So many in the form that runs."""
        return short if self.short else full

    def rate(self, full: float) -> float:
        """Tasks a second: in the short form several stages share the machine."""
        return full / 4 if self.short else full

    def seconds(self, full: float, short: float) -> float:
        """So long in the form that runs."""
        return short if self.short else full

    def work(self, count: int = 1, **settings: str) -> list[Process]:
        """Start workers."""
        return [self.service.run("work", {}, **settings) for _ in range(count)]

    async def at_work(self, *workers: Process) -> None:
        """Wait until these, whose LOG_LEVEL is info, have begun."""
        for worker in workers:
            begun = await self.until(partial(_started, worker), 30)
            self.check(begun, "a worker did not start")

    def load(self, make: Make, prefix: str = "t") -> Load:
        """A load on the service, whose accepted tasks are accounted for."""
        self.loads.append(Load(lambda: self.service.url, make, prefix))
        return self.loads[-1]

    def check(self, held: bool, problem: str) -> None:
        """Note a promise that was not kept."""
        if not held:
            self.problems.append(problem)

    async def fault(self) -> None:
        """Just after a fault, before leases expire: what is in flight may be delivered twice."""
        async for task in self.tasks("state=delivering"):
            self.in_flight[task["id"]] += 1

    async def tasks(self, query: str = f"source={SOURCE}") -> AsyncIterator[dict[str, Any]]:
        """Every task that a query finds."""
        cursor = ""
        while cursor is not None:
            after = f"&cursor={cursor}" if cursor else ""
            status, body = await self.service.call("GET", f"/tasks?limit=1000&{query}{after}")
            assert status == 200, body
            for task in body["tasks"]:
                yield task
            cursor = body["next_cursor"]

    async def fill(self, tasks: Sequence[dict[str, Any]]) -> None:
        """Store many tasks at once, as planned load that is accounted for."""
        load = self.load(lambda _: {})
        await self.service.create_many([{"source": SOURCE, **task} for task in tasks])
        load.planned = len(tasks)
        load.waits += [0.0] * len(tasks)
        load.accepted += [task["id"] for task in tasks]

    async def until(self, condition: Callable[[], Any], limit: float) -> bool:
        """Wait for a condition; False where it did not come in time."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(limit):
                while not condition():
                    await asyncio.sleep(0.01)
                return True
        return False

    # -- the account ---------------------------------------------------------------------------

    @property
    def accepted(self) -> list[str]:
        """Ids of all loads that were answered with 201, or 200 on a repeat, and not forgotten."""
        ids = (id_ for load in self.loads for id_ in load.accepted)
        return [id_ for id_ in ids if id_ not in self.forgotten]

    async def settled(self, limit: float = AFTER) -> Balance:
        """Where every accepted task is: as soon as nothing is overdue, or after `limit` seconds."""
        accepted, deadline = self.accepted, time.monotonic() + limit
        while True:
            look = min(deadline, time.monotonic() + LOOK)  # not all is delivered in each scenario
            while time.monotonic() < look and not self._all_got(accepted):
                await asyncio.sleep(0.2)
            found = await self._balance(accepted)
            # what was lost or cut short is told by a task when its next attempt has ended
            ended = found.settled and not (self.explained_by and found.in_store)
            if ended or time.monotonic() >= deadline:
                return found
            await asyncio.sleep(0.5)

    async def row(self, scenario: str, limit: float = AFTER) -> Row:
        """Account for everything: call it when the faults are over."""
        found = await self.settled(limit)
        planned = sum(load.planned for load in self.loads)
        waits = [wait for load in self.loads for wait in load.waits]
        in_time = sum(wait < IN_TIME + self.slack for wait in waits)
        accepted = [id_ for load in self.loads for id_ in load.accepted]
        if gone := self.forgotten.intersection(accepted):
            came = sum(id_ in book for book in self.receiver.books for id_ in gone)
            self.notes.append(f"of {len(gone)} forgotten {came} had arrived")
        repeats = self.receiver.repeats()
        await self._explain(repeats)
        for load in self.loads:
            for id_, answer in list(load.refused.items())[:1]:
                self.problems.append(f"{len(load.refused)} refused: {id_} {answer}")
        beyond = unexplained(repeats, self.in_flight)
        self.check(not found.lost, f"lost: {sample(found.lost)}")
        self.check(not found.overdue, f"overdue: {len(found.overdue)}, {sample(found.overdue)}")
        self.check(not beyond, f"repeats that no fault explains: {sample(beyond)}")
        for id_ in sorted(beyond)[:3]:
            self.problems.append(await self._story(id_))
        self.check(in_time >= LEAST_LOAD * planned, f"only {in_time} of {planned} accepted in time")
        return Row(
            scenario, self.store, planned, len(accepted), len(found.delivered),
            len(found.dead), len(found.in_store) + len(found.overdue), len(found.lost),
            repeats.total(), self.in_flight.total(), tuple(self.problems), tuple(self.notes),
            time.monotonic() - self._began,
        )  # fmt: skip

    def unaccounted(self, scenario: str, problem: str) -> Row:
        """The row where nobody can say what became of the tasks."""
        planned, accepted = sum(load.planned for load in self.loads), len(self.accepted)
        return Row(
            scenario, self.store, planned, accepted, 0, 0, 0, accepted, 0, 0,
            (*self.problems, problem), tuple(self.notes), time.monotonic() - self._began,
        )  # fmt: skip

    def _all_got(self, accepted: Sequence[str]) -> bool:
        delivered, dead = self.receiver.delivered, self.receiver.dead_lettered
        return all(id_ in delivered or id_ in dead for id_ in accepted)

    async def _explain(self, repeats: Iterable[str]) -> None:
        for id_ in repeats if self.explained_by else ():
            task = await self.service.task(id_)
            outcomes = Counter(attempt["outcome"] for attempt in task["attempts"])
            self.in_flight[id_] += outcomes[self.explained_by]

    async def _story(self, id_: str) -> str:
        status, task = await self.service.call("GET", f"/tasks/{id_}")
        if status != 200:
            return f"{id_}: {task}"
        got = [f"{g.at:.3f} {g.path} {g.attempt}" for g in self.receiver.got if g.id == id_]
        tried = [f"{a['started_at'][17:]} {a['leg']} {a['outcome']}" for a in task["attempts"]]
        return f"{id_} {task['state']}: came {', '.join(got)}; was {', '.join(tried)}"

    async def _balance(self, accepted: Sequence[str]) -> Balance:
        stored = {task["id"]: task async for task in self.tasks()}
        for id_ in accepted:
            if id_ not in stored:  # of what succeeded the newest 100,000 are listed
                status, body = await self.service.call("GET", f"/tasks/{id_}")
                if status == 200:
                    stored[id_] = body
        return balance(
            accepted, stored, self.receiver.delivered, self.receiver.dead_lettered, time.time()
        )  # fmt: skip

    async def close(self) -> None:
        """End everything that was started."""
        await self.service.close()
        await self.receiver.stop()
        if self.redis is not None:
            self.redis.stop()
        await self.after.aclose()


class Scenario(NamedTuple):
    """One question; `play` breaks things and returns the row."""

    number: str
    """`1`, `14a`."""
    name: str
    play: Callable[[Stage], Awaitable[None]]
    """Returns when the faults are over; then the stage accounts."""
    stores: tuple[str, ...] = ("sqlite", "redis")
    alone: bool = False
    """Nothing else may run at the same time, for it measures how late something is."""
    mounts: bool = False
    """It lays a file system of its own over a folder."""

    @property
    def title(self) -> str:
        """Number and name."""
        return f"{self.number} {self.name}"

    async def run(self, store: str, *, short: bool) -> Row:
        """Play it on one store; an error is a problem of its row."""
        with tempfile.TemporaryDirectory() as folder:
            stage = Stage(store, Path(folder), short=short)
            try:
                await stage.receiver.start()
                try:
                    await self.play(stage)
                except Exception as error:
                    for load in stage.loads:
                        load.stop()
                    stage.problems.append(f"{type(error).__name__}: {error}")
                try:
                    return await stage.row(self.title)
                except Exception as error:
                    return stage.unaccounted(self.title, f"{type(error).__name__}: {error}")
            finally:
                await stage.close()


def _started(worker: Process) -> bool:
    return '"worker started"' in worker.logged()


def sample(ids: Collection[str]) -> str:
    """A few of many."""
    shown = ", ".join(sorted(ids)[:3])
    return f"{shown} and {len(ids) - 3} more" if len(ids) > 3 else shown
