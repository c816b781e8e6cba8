"""`make bench`: every figure beside its target. Exit code 1 where one is missed."""

from __future__ import annotations

import asyncio
import os
import platform
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable

from bench import backlog, consumer, create, deliver, kafka
from bench.machine import Row, redis, sink

Question = Callable[[str, str], Awaitable[list[Row]]]


def show(rows: list[Row]) -> list[Row]:
    for row in rows:
        print(row.line(), flush=True)
    return rows


async def ask(empty: str, full: str | None, url: str) -> list[Row]:
    """Each question of an empty Redis, and at once of one with a million tasks pending."""
    questions: list[Question] = [
        create.embedded,
        create.over_http,
        lambda store, name: deliver.throughput(store, name, url, 5_000),
        deliver.lateness,
    ]
    rows: list[Row] = []
    for question in questions:
        alone = await question(empty, "bench")
        rows += show(alone)
        if full is not None:
            rows += show(backlog.beside(alone, await question(full, "bench")))
    return rows


async def main() -> int:
    print(
        f"Python {platform.python_version()}, {time.strftime('%Y-%m-%d')}, {os.cpu_count()} cores"
    )
    with (
        redis() as empty,
        redis() as full,
        sink() as url,
        tempfile.TemporaryDirectory() as folder,
    ):
        quick = "--quick" in sys.argv
        if not quick:
            await backlog.fill(full, "bench")
        rows = await ask(empty, None if quick else full, url)
        file = f"sqlite:///{folder}/bench.db"
        rows += show(await deliver.throughput(file, "bench", url, 2_000))
        with kafka.broker() as at:
            topic = f"bench{kafka.TOPICS - 1}"
            consumer.fill(at, topic)
            rows += show(await consumer.passing(at, topic, 10_000))
            rows += show(await kafka.deliveries(empty, "kafka", at, 15_000))
    missed = [row for row in rows if not row.met]
    print(f"{len(rows) - len(missed)} of {len(rows)} targets met")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
