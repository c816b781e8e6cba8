"""What is handed over, and what is asked of the machine."""

from __future__ import annotations

import asyncio
import contextlib
import os
import platform
import re
import shutil
import subprocess
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from importlib.metadata import version
from itertools import islice
from pathlib import Path

from rebound import Config, Destination, Rebound, Task

MESSAGE = {"order": 12345, "items": [{"sku": "A-1", "count": 2}], "note": "x" * 220}
"""About 300 bytes of JSON."""
LATER = 86_400.0
"""Seconds until tasks are due that are only to be stored."""
NOWHERE = "http://127.0.0.1:9/hook"


def task(url: str = NOWHERE, **fields: object) -> Task:
    fields = {"message_data": MESSAGE, "source": "bench"} | fields
    return Task(destination=Destination(url=url), **fields)  # type: ignore[arg-type]


@contextlib.asynccontextmanager
async def submitting(store_url: str, namespace: str) -> AsyncIterator[Rebound]:
    config = Config(store_url=store_url, namespace=namespace, log_level="error")
    async with Rebound(config, worker=False) as rebound:
        yield rebound


async def store(rebound: Rebound, tasks: Iterable[Task], at_once: int = 500) -> None:
    """Four calls of `create_tasks` at a time."""
    left = iter(tasks)

    async def some() -> None:
        while batch := list(islice(left, at_once)):
            await rebound.create_tasks(batch)

    await asyncio.gather(*(some() for _ in range(4)))


async def rate(count: int, callers: int, one: Callable[[], Awaitable[object]]) -> float:
    """Calls a second of `count` calls by so many callers at once."""
    left = iter(range(count))

    async def caller() -> None:
        for _ in left:
            await one()

    began = time.perf_counter()
    await asyncio.gather(*(caller() for _ in range(callers)))
    return count / (time.perf_counter() - began)


async def on_schedule(
    a_second: int, seconds: float, one: Callable[[], Awaitable[object]], *, exact: bool = False
) -> list[float]:
    """Open loop: each call begins on time, whatever became of the others; sorted latencies in ms.

    From when a call was to begin until it ended, the first half second left out. `exact` where
    what is measured is in this process: a millisecond, which timers are coarse by, would show.
    """
    clock, times = time.perf_counter, []
    running: set[asyncio.Task[None]] = set()
    began = clock()

    async def timed(due: float) -> None:
        await one()
        times.append((due, clock() - due))

    for n in range(int(a_second * seconds)):
        due = began + n / a_second
        while (early := due - clock()) > 0:
            await asyncio.sleep(early if not exact else early - 0.0015 if early > 0.002 else 0)
        call = asyncio.create_task(timed(due))
        running.add(call)
        call.add_done_callback(running.discard)
    await asyncio.gather(*running)
    return sorted(took * 1000 for due, took in times if due > began + 0.5)


def percentile(values: list[float], share: float) -> float:
    """Of sorted values."""
    return values[min(len(values) - 1, int(len(values) * share))]


def described() -> str:
    """The machine and the versions, in a line of Markdown each."""
    cpu = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
    named = cpu[1] if cpu else platform.processor() or "unknown"
    packages = ("aiohttp", "uvicorn", "uvloop", "redis", "hiredis", "msgspec", "apsw")
    lines = [
        f"Date: {time.strftime('%Y-%m-%d')}",
        f"Machine: {named}, {os.cpu_count()} cores for everything, {platform.system()} "
        f"{platform.release().split('-')[0]}",
        f"Python {platform.python_version()}; "
        + ", ".join(f"{name} {version(name)}" for name in packages),
        ", ".join(filter(None, map(_program, (("redis-server", "--version"), ("nginx", "-v"))))),
    ]
    return "\n".join(f"- {line}" for line in lines if line)


def _program(command: tuple[str, str]) -> str:
    if shutil.which(command[0]) is None:
        return ""
    said = subprocess.run(command, check=True, capture_output=True, text=True)
    found = re.search(r"[\d]+\.[\d.]+", said.stdout + said.stderr)
    return f"{command[0]} {found[0]}" if found else ""
