"""Whether a healthy destination stays on time beside what is done to others."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

from bench.machine import percentile

from chaos.stage import Stage

ON_TIME = 0.1
"""Seconds after its due time by which 99 of 100 attempts to a healthy destination start."""
BUSY = 0.5
"""The same for the short form, which runs where the machine does other things as well."""
HEALTHY = "/healthy"
ALONE = 4.0
"""Seconds of the load by itself: a machine that is busy with other things shows there."""

T = TypeVar("T")


async def on_time(
    stage: Stage,
    rate: float,
    harm: Callable[[], Awaitable[T]],
    prepare: Callable[[], Awaitable[None]] | None = None,
) -> T:
    """Do harm beside so many tasks a second to a healthy destination, and check their lateness.

    `prepare` comes before the harm and is not measured.
    In the short form what is late before the harm may be so, times three, beside it.
    """
    to = {"destination": {"url": stage.receiver.url(HEALTHY, 999)}, "delay": 0.5}
    await stage.load(lambda _: to, "warm").run(rate, 2)
    before = stage.load(lambda _: to, "before")
    await before.run(rate, ALONE)
    if prepare is not None:
        await prepare()
    beside = stage.load(lambda _: to, "beside")
    loading = asyncio.create_task(beside.run(rate, 3600))
    try:
        came_of_it = await harm()
    finally:
        beside.stop()
        await loading
    loads = (before, beside)
    await stage.until(
        lambda: all(i in stage.receiver.delivered for load in loads for i in load.accepted), 10
    )
    late = {"before": [0.0], "beside": [0.0]}
    for got in stage.receiver.got:
        if got.path == HEALTHY:
            for name, load in zip(late, loads, strict=True):
                if got.id in load.due:
                    late[name].append(got.at - load.due[got.id])
    alone, p99 = (percentile(sorted(values), 0.99) for values in late.values())
    most = max(BUSY, 3 * alone) if stage.short else ON_TIME
    stage.check(p99 < most, f"the healthy one was {p99 * 1000:.0f} ms late (p99)")
    stage.notes.append(
        f"healthy destination: p99 {p99 * 1000:.1f} ms late, {alone * 1000:.1f} ms before"
    )
    return came_of_it
