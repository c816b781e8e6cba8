"""`make bench`: every figure beside its target. Exit code 1 where one is missed."""

from __future__ import annotations

import asyncio
import os
import platform
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable

from bench import backlog, create, deliver
from bench.machine import Row, redis, sink

Question = Callable[[], Awaitable[list[Row]]]


def questions(store_url: str, namespace: str, url: str) -> list[Question]:
    return [
        lambda: create.embedded(store_url, namespace),
        lambda: create.over_http(store_url, namespace),
        lambda: deliver.throughput(store_url, namespace, url, 5_000),
        lambda: deliver.lateness(store_url, namespace),
    ]


async def ask(asked: list[Question]) -> list[Row]:
    rows: list[Row] = []
    for question in asked:
        for row in await question():
            rows.append(row)
            print(row.line(), flush=True)
    return rows


async def main() -> int:
    quick = "--quick" in sys.argv
    print(
        f"Python {platform.python_version()}, {time.strftime('%Y-%m-%d')}, {os.cpu_count()} cores"
    )
    with redis() as store_url, sink() as url, tempfile.TemporaryDirectory() as folder:
        rows = await ask(questions(store_url, "empty", url))
        file = f"sqlite:///{folder}/bench.db"
        rows += await ask([lambda: deliver.throughput(file, "x", url, 2_000)])
        if not quick:
            await backlog.fill(store_url, "full")
            print()
            count = len(rows) - 1
            full = []
            for question in questions(store_url, "full", url):
                full += await question()
            beside = backlog.beside(rows[:count], full)
            for row in beside:
                print(row.line(), flush=True)
            rows += beside
    missed = [row for row in rows if not row.met]
    print(f"{len(rows) - len(missed)} of {len(rows)} targets met")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
