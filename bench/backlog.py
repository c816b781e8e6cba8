"""A million tasks that wait: the same figures must come out beside them."""

from __future__ import annotations

import asyncio
import sys

from bench.machine import Row, submitting, task

PENDING = 1_000_000
LANES = 1_000


async def fill(store_url: str, namespace: str, count: int = PENDING) -> None:
    """Store `count` tasks over a thousand lanes, due in a day."""
    async with submitting(store_url, namespace) as rebound:
        for at in range(0, count, 2_000):
            batch = [
                task(f"http://host{n % LANES}.test/hook", delay=86_400 + n % 3600)
                for n in range(at, min(at + 2_000, count))
            ]
            await asyncio.gather(
                *(rebound.create_tasks(batch[i : i + 500]) for i in range(0, len(batch), 500))
            )
            if sys.stderr.isatty():
                print(f"\r{at + len(batch):,} pending", end="", file=sys.stderr)


def beside(empty: list[Row], full: list[Row]) -> list[Row]:
    """Each figure with the backlog, relative to the one without."""
    rows = []
    for one, other in zip(empty, full, strict=True):
        if one.at_least:
            share = other.figure / one.figure
            rows.append(Row(f"{one.what}: with 1,000,000 pending", share, "× empty", 0.8))
        else:
            rows.append(other._replace(what=f"{other.what}: with 1,000,000 pending"))
    return rows
