"""`make bench`: every figure beside what it is compared to. Exit code 1 where a target is missed
for which no reason is listed.

`--quick` is one round without the million, for a look while working; it writes nothing.
"""

from __future__ import annotations

import contextlib
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from typing import NamedTuple

import uvloop

from bench import create, deliver, due, footprint, kafka, limit, peers, posting
from bench.figures import Figures
from bench.machine import store, submitting, task
from bench.report import show
from bench.servers import redis, serve
from bench.sink import sink
from bench.targets import FULL, NARROW, WIDE

ROUNDS = 3
SMALL, MANY = 10_000, 1_000_000
"""Tasks that wait in the two Redis servers."""


class Ground(NamedTuple):
    """Where it is measured."""

    small: str
    full: str
    other: str
    """A third Redis, for the others and for figures of their own."""
    sink: str
    folder: Path


@contextlib.contextmanager
def ground() -> Iterator[Ground]:
    with (
        redis() as small, redis() as full, redis() as other, sink() as receiver,
        tempfile.TemporaryDirectory() as folder,
    ):  # fmt: skip
        yield Ground(small, full, other, receiver, Path(folder))


async def fill(url: str, count: int) -> None:
    """Tasks over a thousand lanes, due in a day."""
    async with submitting(url, "bench") as rebound:
        await store(
            rebound,
            (task(f"http://host{n % 1000}.test/", delay=86_400 + n % 3600) for n in range(count)),
        )


async def taking(figures: Figures, on: Ground) -> None:
    await limit.pipelined(figures, on.other)
    await create.alone(figures, on.small)
    await create.alone_among(figures, on.full, FULL)
    for url, what in ((on.small, ""), (on.full, FULL)):
        await create.many(figures, url, what)
        await create.batches(figures, url, what)
    await create.unlike(figures, on.small)
    await create.many(figures, on.other, WIDE, lanes=10_000)
    await create.batches(figures, on.other, WIDE, lanes=10_000)
    port, empty = limit.serving()
    with empty, serve(on.small, "bench") as small, serve(on.full, "bench") as full:
        figures.add("empty handler", posting.wrk(port, "/tasks", posting.ONE))
        await posting.posts(figures, small)
        await posting.posts(figures, full, FULL)
        await posting.batches(figures, small)
        await posting.open_loop(figures, small)


async def delivering(figures: Figures, on: Ground) -> None:
    await limit.fill(on.other, on.sink, posting.MESSAGE, deliver.COUNT)
    bare = limit.delivering(on.other)
    figures.add("bare loop", await deliver.clocked(on.sink, deliver.COUNT, bare))
    await deliver.redis(figures, on.small, on.sink)
    log = on.folder / "worker.log"
    await deliver.redis(figures, on.small, on.sink, ", logging", log=log)
    await deliver.redis(figures, on.full, on.sink, FULL)
    await deliver.redis(figures, on.small, on.sink, ", 2 processes", workers=2)
    await deliver.on_one_core(figures)
    await deliver.redis(figures, on.other, on.sink, NARROW, lanes=1)
    await deliver.redis(figures, on.other, on.sink, WIDE, lanes=10_000)
    await deliver.sqlite(figures, on.folder, on.sink)


async def being_late(figures: Figures, on: Ground, number: int) -> None:
    await due.lateness(figures, on.small)
    await due.lateness(figures, on.full, FULL)
    await due.isolation(figures, on.other, f"hanging{number}")


async def once(figures: Figures, on: Ground) -> None:
    """What takes too long to repeat."""
    with redis() as url:
        await due.recovery(figures, url, on.sink)


async def measure(figures: Figures, on: Ground, rounds: int) -> None:
    with kafka.broker() as at:
        for number in range(rounds):
            step(f"round {number + 1} of {rounds}: taking tasks")
            await taking(figures, on)
            step("delivering them")
            await delivering(figures, on)
            step("the others")
            for name, peer in peers.PEERS.items():
                one = await peers.deliver(name, on.other, on.sink, peer.count)
                figures.add(f"deliver, {name}", one)
            step("lateness")
            await being_late(figures, on, number)
            step("start and memory")
            footprint.start(figures, on.small)
            footprint.embedded(figures, f"sqlite:///{on.folder}/a.db", "SQLite", on.sink)
            footprint.embedded(figures, on.small, "Redis", on.sink)
            await footprint.pending(figures, on.other, "1,000 lanes", 1_000)
            await footprint.pending(figures, on.other, "a lane each", footprint.PENDING)
            await footprint.tried(figures, on.other)
            step("Kafka")
            await kafka.deliveries(figures, on.other, at)
            await kafka.passing(figures, at)


def step(what: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {what}", file=sys.stderr, flush=True)


async def main() -> int:
    quick = "--quick" in sys.argv
    figures = Figures()
    with ground() as on:
        step("filling, and making the peers' environments")
        for peer in peers.PEERS.values():
            peers.make(peer.folder)
        await fill(on.small, SMALL)
        await fill(on.full, SMALL if quick else MANY)
        await measure(figures, on, 1 if quick else ROUNDS)
        if quick:
            for name, values in figures.everything():
                print(f"{median(values):12,.2f}  {name}")
            return 0
        step("a million due at once")
        await once(figures, on)
    return show(figures)


if __name__ == "__main__":
    sys.exit(uvloop.run(main()))
