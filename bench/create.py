"""How fast does an embedded Rebound take tasks?"""

from __future__ import annotations

import gc
from collections.abc import Sequence

from msgspec.structs import replace

from bench.figures import Figures
from bench.limit import bare
from bench.machine import LATER, NOWHERE, on_schedule, percentile, rate, store, submitting, task
from rebound import Destination, Task

CALLS, TURNS = 5_000, 10
"""Tasks of the one caller, and by how many turns."""
COUNT = 40_000
"""Tasks that are stored in batches."""


def later(n: int = 0, lanes: int = 1) -> Task:
    return task(delay=LATER, lane=f"lane{n % lanes}")


async def alone(figures: Figures, url: str) -> None:
    """One caller that waits for each answer, by turns with redis-py alone; then one that has to
    begin a thousand a second."""
    async with submitting(url, "bench") as rebound, bare(url, CALLS) as theirs:

        async def ours() -> None:
            await rebound.create_task(later())

        await rate(300, 1, ours)
        seconds = [0.0, 0.0]
        for _ in range(TURNS):
            for who, call in enumerate((theirs, ours)):
                each = CALLS // TURNS
                seconds[who] += each / await rate(each, 1, call)
        for name, took in zip(("bare EVALSHA", "create"), seconds, strict=True):
            figures.add(name, CALLS / took)
        gc.collect()  # of what was measured before; a program has garbage of its own only
        times = await on_schedule(1_000, 6, ours, exact=True)
        figures.add("create: p99", percentile(times, 0.99))


async def alone_among(figures: Figures, url: str, what: str) -> None:
    """The same caller, where a million wait."""
    async with submitting(url, "bench") as rebound:
        await rate(300, 1, lambda: rebound.create_task(later()))
        figures.add(f"create{what}", await rate(CALLS, 1, lambda: rebound.create_task(later())))


async def many(figures: Figures, url: str, what: str = "", lanes: int = 1) -> None:
    """64 callers."""
    numbers = iter(range(10_000_000))
    async with submitting(url, "bench") as rebound:

        async def one() -> None:
            await rebound.create_task(later(next(numbers), lanes))

        await rate(3_000, 64, one)
        figures.add(f"create by 64{what}", await rate(30_000, 64, one))


async def batches(figures: Figures, url: str, what: str = "", lanes: int = 1) -> None:
    """Batches of 500, four under way at once."""
    figures.add(f"create_tasks{what}", await _stored(url, [later(n, lanes) for n in range(COUNT)]))


async def unlike(figures: Figures, url: str) -> None:
    """The same, with terms that no other task has: nothing of one is known from those before."""
    places = (Destination(url=NOWHERE, headers={"X-Order": str(n)}) for n in range(COUNT))
    tasks = [replace(later(), destination=place) for place in places]
    figures.add("create_tasks, unlike", await _stored(url, tasks))


async def _stored(url: str, tasks: Sequence[Task]) -> float:
    """Tasks a second."""
    async with submitting(url, "bench") as rebound:
        await store(rebound, tasks[:2_000])
        gc.collect()
        gc.freeze()  # what waits to be handed over is the caller's, not what is measured
        whole = iter([tasks])
        a_second = len(tasks) * await rate(1, 1, lambda: store(rebound, next(whole)))
        gc.unfreeze()
    return a_second
