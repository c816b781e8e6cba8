"""`make chaos`: every scenario on its stores, in one table. Exit code 1 where a row failed.

`python -m chaos [--short] [NUMBER ...]`: `14` is all of its parts, `14a` one.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import signal
import sys
import time

import uvloop
from tests.conftest import may_mount

from chaos import page
from chaos.account import Row
from chaos.scenarios import destinations, hostile, processes, redis_nodes, redis_server, sqlite_file
from chaos.stage import Scenario

SCENARIOS: tuple[Scenario, ...] = tuple(
    sorted(
        (
            *processes.SCENARIOS,
            *redis_nodes.SCENARIOS,
            *redis_server.SCENARIOS,
            *sqlite_file.SCENARIOS,
            *destinations.SCENARIOS,
            *hostile.SCENARIOS,
        ),
        key=lambda one: (int(one.number.rstrip("abcdefgh")), one.number),
    )
)
AT_ONCE = 3
"""Rows of the short form that are played at the same time, most of which wait most of the time."""


def main() -> int:
    """Run what was asked for; write the page where that was everything, in its full form."""
    parser = argparse.ArgumentParser(prog="python -m chaos")
    parser.add_argument("--short", action="store_true", help="fewer rounds, for CI")
    parser.add_argument("--store", choices=("sqlite", "redis"), help="only on this one")
    parser.add_argument("numbers", nargs="*", help="which scenarios; all where none is named")
    asked = parser.parse_args()
    wanted = [s for s in SCENARIOS if not asked.numbers or named(s.number, asked.numbers)]
    if (disks := [s for s in wanted if s.mounts]) and not may_mount():
        print(f"not run, for mounting is not allowed here: {', '.join(s.number for s in disks)}")
        wanted = [s for s in wanted if not s.mounts]
    if not wanted:
        parser.error(f"there are {', '.join(s.number for s in SCENARIOS)}")
    began = time.monotonic()
    print("\n".join(page.HEAD), flush=True)
    try:
        rows = uvloop.run(play(wanted, asked.store, short=asked.short))
    except asyncio.CancelledError:
        return 128 + signal.SIGINT
    failed = sum(not row.passed for row in rows)
    print(f"\n{len(rows) - failed} of {len(rows)} rows held, {time.monotonic() - began:.0f} s")
    if not (asked.short or asked.numbers or asked.store):
        page.write(rows)
    return 1 if failed else 0


def named(number: str, numbers: list[str]) -> bool:
    """True where a scenario is one of those asked for."""
    return number in numbers or number.rstrip("abcdefgh") in numbers


async def play(wanted: list[Scenario], only: str | None, *, short: bool) -> list[Row]:
    """Each on its stores; in the short form several at a time, but for what measures lateness."""
    this = asyncio.current_task()
    assert this is not None
    for number in (signal.SIGINT, signal.SIGTERM):  # what was started ends as well
        asyncio.get_running_loop().add_signal_handler(number, this.cancel)
    places = asyncio.Semaphore(AT_ONCE if short else 1)

    async def one(scenario: Scenario, store: str) -> Row:
        taken = AT_ONCE if short and scenario.alone else 1
        async with contextlib.AsyncExitStack() as held:
            async with entering:  # else two that want to be alone wait for each other
                for _ in range(taken):
                    await held.enter_async_context(places)
            return await scenario.run(store, short=short)

    entering = asyncio.Lock()
    runs = [
        asyncio.create_task(one(scenario, store))
        for scenario in wanted
        for store in scenario.stores
        if only in (None, store)
    ]
    for run in runs:
        row = await run
        print(page.line(row), flush=True)
        for problem in row.problems:
            print(f"FAILED: {problem}", flush=True)
    return [run.result() for run in runs]


if __name__ == "__main__":
    sys.exit(main())
