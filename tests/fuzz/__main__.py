"""`make fuzz`: bad input by the ten thousand; `make fuzz SHORT=1`: the same in a minute."""

from __future__ import annotations

import os
import platform
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.fuzz import configured, described, examples, mutated, service
from tests.fuzz.report import Row

FULL = (1_500, 100_000, 10_000, 60)
SHORT = (8, 2_000, 1_000, 4)
"""Examples for schemathesis and operation, for Hypothesis, mutated bodies, processes."""


def main(arguments: Sequence[str]) -> int:
    """Print a line for each part; 1 where something failed."""
    short = "--short" in arguments
    per_operation, made, bodies, starts = SHORT if short else FULL
    seed = int(os.environ.get("SEED") or (1 if short else time.time()))
    print(
        f"Python {platform.python_version()}, {time.strftime('%Y-%m-%d')}, SEED={seed}", flush=True
    )
    began = time.monotonic()
    with (
        tempfile.TemporaryDirectory() as at,
        service.running(Path(at)) as asked,
        ThreadPoolExecutor(1) as beside,
    ):
        folder = Path(at)
        asking = beside.submit(described.run, asked, folder, per_operation, seed)
        rows = [*show(examples.run(made, seed)), *show([configured.run(folder, starts, seed)])]
        rows += show([asking.result()])
        rows += show(mutated.run(asked, bodies, seed))
        rows += show([Row("errors in the log of the service", 1, asked.bugs)])
    for row in rows:
        for failure in row.failures:
            print(f"\n{row.what}:\n{failure}", file=sys.stderr)
    failed = sum(bool(row.failures) for row in rows)
    print(f"{len(rows) - failed} of {len(rows)} ok, {time.monotonic() - began:.0f} s")
    return 1 if failed else 0


def show(rows: list[Row]) -> list[Row]:
    for row in rows:
        print(row.line(), flush=True)
    return rows


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
