"""How late is what falls due: quietly, beside hanging destinations, and with a million others?"""

from __future__ import annotations

import asyncio
import re
import subprocess
import time
from collections.abc import Callable

from bench.arrivals import Arrivals
from bench.figures import Figures
from bench.machine import percentile, store, submitting, task
from bench.servers import memory, work
from bench.sink import ANSWER, receiver
from rebound import Rebound

_ID = re.compile(rb"x-rebound-task-id: ([!-~]+)", re.I)
HANGING = 20
BACKLOG = 5_000
"""Due tasks of each destination that hangs."""
HANG = 30.0
"""Seconds that it hangs, which is also a delivery's default time limit."""
RECOVERED = 1_000_000


Mark = tuple[float, int, float]
"""When, how many had been delivered, and MB of the worker."""


class Lateness:
    """A receiver's notes: seconds between when a task was due and when it came."""

    def __init__(self) -> None:
        self.due: dict[bytes, float] = {}
        self.late: dict[bytes, float] = {}

    def __call__(self, head: bytes) -> bytes:
        now = time.time()
        if found := _ID.search(head):
            self.late[found[1]] = now - self.due[found[1]]
        return ANSWER

    async def submit(
        self, rebound: Rebound, url: str, rate: int, seconds: float, **fields: object
    ) -> None:
        """So many tasks a second on time, each due half a second later."""
        began, name = time.perf_counter(), f"{time.time_ns()}"
        pending: set[asyncio.Task[object]] = set()
        for n in range(int(rate * seconds)):
            await asyncio.sleep(max(0, began + n / rate - time.perf_counter()))
            one = task(url, id=f"{name}-{n}", delay=0.5, **fields)
            self.due[one.id.encode()] = time.time() + 0.5
            call: asyncio.Task[object] = asyncio.create_task(rebound.create_task(one))
            pending.add(call)
            call.add_done_callback(pending.discard)
        await asyncio.gather(*pending)

    async def all(self, seconds: float) -> list[float]:
        """Sorted lateness in ms when all have come; exits where they have not in `seconds`."""
        until = time.monotonic() + seconds
        while len(self.late) < len(self.due):
            if time.monotonic() > until:
                raise SystemExit(f"{len(self.due) - len(self.late)} tasks did not arrive")
            await asyncio.sleep(0.02)
        return sorted(late * 1000 for late in self.late.values())


async def lateness(figures: Figures, url: str, what: str = "") -> None:
    """A thousand tasks a second."""
    arrivals = Lateness()
    async with submitting(url, "late") as rebound, receiver(arrivals) as hook:
        with work(url, "late"):
            await arrivals.submit(rebound, hook, 100, 0.5)
            await arrivals.all(20)
            arrivals.due, arrivals.late = {}, {}
            await arrivals.submit(rebound, hook, 1_000, 3)
            late = await arrivals.all(20)
    figures.add(f"lateness: p50{what}", percentile(late, 0.5))
    figures.add(f"lateness: p99{what}", percentile(late, 0.99))
    figures.add(f"earliest{what}", max(0.0, -late[0]))


async def isolation(figures: Figures, url: str, namespace: str) -> None:
    """200 tasks a second to a healthy destination, beside twenty that never answer."""
    arrivals = Lateness()
    asked = 0

    def hangs(_: bytes) -> None:
        nonlocal asked
        asked += 1

    async with (
        submitting(url, namespace) as rebound, receiver(arrivals) as hook, receiver(hangs) as dead,
    ):  # fmt: skip
        bad = (
            task(dead, delay=0, lane=f"dead{n % HANGING}", max_retries=100)
            for n in range(HANGING * BACKLOG)
        )
        await store(rebound, bad)
        with work(url, namespace, shutdown_grace="0.1"):
            while asked < HANGING:
                await asyncio.sleep(0.01)
            await arrivals.submit(rebound, hook, 200, 6)
            late = await arrivals.all(60)
    figures.add("isolation: p99", percentile(late, 0.99))


async def recovery(figures: Figures, url: str, sink: str) -> None:
    """A million tasks fall due at once; priority tasks go on coming in."""
    async with submitting(url, "bench") as rebound, receiver(arrivals := Lateness()) as hook:
        due = time.time() + 20
        many = (
            task(sink, delay=max(0.0, due - time.time()), lane=f"lane{n % 1000}")
            for n in range(RECOVERED)
        )
        reached = Arrivals(sink)
        await store(rebound, many)
        with work(url, "bench") as worker:
            await asyncio.sleep(max(0.0, due - time.time()))
            urgent = asyncio.create_task(
                arrivals.submit(rebound, hook, 50, 20, is_priority=True, lane="urgent")
            )
            await _watched(figures, worker, reached.count)
            await urgent
            late = await arrivals.all(20)
    figures.add("recovery: priority p99", percentile(late, 0.99))


async def _watched(
    figures: Figures, worker: subprocess.Popen[bytes], count: Callable[[], int]
) -> None:
    """Rates and memory of a worker until everything is delivered."""
    marks: list[Mark] = []
    while not marks or marks[-1][1] < RECOVERED:
        await asyncio.sleep(0.5)
        marks.append((time.perf_counter(), count(), memory(worker.pid)))
    early = next(size for _, seen, size in marks if seen > RECOVERED / 10)
    third = len(marks) // 3
    figures.add("recovery: first third", _rate(marks[0], marks[third]))
    figures.add("recovery: last third", _rate(marks[-1 - third], marks[-1]))
    tens = marks[::20]
    figures.add("recovery: slowest", min(map(_rate, tens, tens[1:])))
    figures.add("recovery: rate", _rate(marks[0], marks[-1]))
    figures.add("recovery: memory", memory(worker.pid, "VmHWM"))
    figures.add("flat: growth", marks[-1][2] - early)


def _rate(began: Mark, ended: Mark) -> float:
    return (ended[1] - began[1]) / (ended[0] - began[0])
