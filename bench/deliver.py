"""How fast do worker processes deliver over HTTP what is due?"""

from __future__ import annotations

import os
from contextlib import AbstractContextManager
from pathlib import Path

from bench.arrivals import Arrivals
from bench.figures import Figures
from bench.machine import store, submitting, task
from bench.servers import redis as server
from bench.servers import work
from bench.sink import sink as receiver

COUNT = 24_000
SQLITE = 10_000
LANES = 4


async def clocked(sink: str, count: int, worker: AbstractContextManager[object]) -> float:
    """Deliveries a second of a worker; its start is left out, for all that are compared alike."""
    arrivals = Arrivals(sink)
    with worker:
        return await arrivals.per_second(count)


async def due(
    url: str, sink: str, count: int = COUNT, lanes: int = LANES, delay: float = 0
) -> None:
    async with submitting(url, "bench") as rebound:
        tasks = (task(sink, delay=delay, lane=f"lane{n % lanes}") for n in range(count))
        await store(rebound, tasks)


async def redis(
    figures: Figures, url: str, sink: str, what: str = "", *,
    lanes: int = LANES, workers: int = 1, log: Path | None = None,
) -> None:  # fmt: skip
    """Tasks are stored first, then `rebound work` delivers them."""
    # Several workers are there before it falls due, or the first would be measured alone.
    await due(url, sink, lanes=lanes, delay=3 if workers > 1 else 0)
    settings = {"log_level": "info", "log_format": "json"} if log else {}
    one = work(url, "bench", *_several(workers), log=log, **settings)
    figures.add(f"deliver{what}", await clocked(sink, COUNT, one))
    if log and log.read_text().count("task delivered") != COUNT:
        raise SystemExit(f"{log} has not a line for each task")


async def on_one_core(figures: Figures) -> None:
    """One worker, its Redis and its receiver share one core: half of what two of them have here."""
    cores = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(cores)})  # what is started from here on has no other either
    try:
        with server() as url, receiver() as sink:
            await redis(figures, url, sink, ", on one core")
    finally:
        os.sched_setaffinity(0, cores)


async def sqlite(figures: Figures, folder: Path, sink: str) -> None:
    url = f"sqlite:///{folder}/deliver.db"
    await due(url, sink, SQLITE)
    figures.add("deliver, SQLite", await clocked(sink, SQLITE, work(url, "bench")))


def _several(workers: int) -> tuple[str, ...]:
    return ("--processes", str(workers)) if workers > 1 else ()
