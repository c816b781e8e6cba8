"""`make chaos`: every scenario on its stores, in one table. Exit code 1 where a row failed.

`python -m chaos [--short] [NUMBER ...]`: `14` is all of its parts, `14a` one.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import time

from chaos import page
from chaos.account import Row
from chaos.scenarios import destinations, hostile, processes
from chaos.stage import Scenario

SCENARIOS: tuple[Scenario, ...] = (
    *processes.SCENARIOS,
    *destinations.SCENARIOS,
    *hostile.SCENARIOS,
)


def main() -> int:
    """Run what was asked for; write the page where that was everything, in its full form."""
    parser = argparse.ArgumentParser(prog="python -m chaos")
    parser.add_argument("--short", action="store_true", help="fewer rounds, for CI")
    parser.add_argument("--store", choices=("sqlite", "redis"), help="only on this one")
    parser.add_argument("numbers", nargs="*", help="which scenarios; all where none is named")
    asked = parser.parse_args()
    wanted = [s for s in SCENARIOS if not asked.numbers or named(s.number, asked.numbers)]
    if not wanted:
        parser.error(f"there are {', '.join(s.number for s in SCENARIOS)}")
    began = time.monotonic()
    print("\n".join(page.HEAD), flush=True)
    rows = asyncio.run(play(wanted, asked.store, short=asked.short))
    failed = sum(not row.passed for row in rows)
    print(f"\n{len(rows) - failed} of {len(rows)} rows held, {time.monotonic() - began:.0f} s")
    if not (asked.short or asked.numbers or asked.store):
        page.write(rows)
    return 1 if failed else 0


def named(number: str, numbers: list[str]) -> bool:
    """True where a scenario is one of those asked for."""
    return number in numbers or number.rstrip("abcdefgh") in numbers


async def play(wanted: list[Scenario], only: str | None, *, short: bool) -> list[Row]:
    """Each on its stores; in the short form on both at the same time, unless it measures time."""
    rows: list[Row] = []
    for scenario in wanted:
        stores = [store for store in scenario.stores if only in (None, store)]
        together = len(stores) if short and not scenario.alone else 1
        for at in range(0, len(stores), together):
            runs = [scenario.run(store, short=short) for store in stores[at : at + together]]
            for row in await asyncio.gather(*runs):
                rows.append(row)
                print(page.line(row), flush=True)
                for problem in row.problems:
                    print(f"FAILED: {problem}", flush=True)
    return rows


if __name__ == "__main__":
    sys.exit(main())
