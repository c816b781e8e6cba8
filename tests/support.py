"""Short ways to say what tests say often."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

import msgspec
from msgspec.structs import replace

from rebound.domain import meaning, validation
from rebound.domain.attempt import Attempt, Leg, Outcome, ended
from rebound.domain.destination import Destination
from rebound.domain.errors import DeliveryError
from rebound.domain.task import Task
from rebound.ports import Added, Claimed, Store, Submission

DAY = 86_400.0
_nonces = iter(range(10**9))


def task(id_: str = "t", lane: str = "one", **fields: Any) -> Task:
    """A valid task to http://<lane>.test, due at once unless told otherwise."""
    fields.setdefault("destination", Destination(url=f"http://{lane}.test/hook"))
    fields.setdefault("delay", 0)
    return validation.from_python(Task(id=id_, source="tests", **fields))


def submission(one: Task, *, delay: float | None = None, nonce: str | None = None) -> Submission:
    checked = validation.check(one, max_payload=64 * 1024 * 1024)
    accepted = checked.accepted()
    return Submission(
        accepted,
        accepted.first_wait(0.5) if delay is None else delay,
        msgspec.json.encode(replace(checked, id="", attempt=0)),
        meaning.digest(checked),
        nonce or f"n{next(_nonces)}",
        accepted.queue,
    )


async def put(store: Store, *tasks: Task) -> Sequence[Added]:
    return [s.added for s in await store.add([submission(t) for t in tasks])]


async def claim(store: Store, limit: int = 100, **options: Any) -> Claimed:
    options.setdefault("free", max(limit, 1000))
    options.setdefault("slots", options["free"])
    options.setdefault("kinds", ["http"])
    options.setdefault("lease", 60.0)
    options.setdefault("lane_limit", 100)
    options.setdefault("random", 0.5)
    return await store.claim(limit, **options)


async def claimed(store: Store, limit: int = 100, **options: Any) -> list[Task]:
    return list((await claim(store, limit, **options)).tasks)


def ids(tasks: Sequence[Task]) -> list[str]:
    return [t.id for t in tasks]


def tried(one: Task, now: float, error: str | None = None, **known: Any) -> Attempt:
    failure = None if error is None else DeliveryError(error, **known)
    return ended(one.leg or Leg.MAIN, one.number, now, 0.01, failure)


def succeed(one: Task, now: float) -> Task:
    return one.succeeded(tried(one, now), now)


def fail(one: Task, now: float, **options: Any) -> Task:
    options.setdefault("random", 0.5)
    options.setdefault("dead_letter_ttl", 7 * DAY)
    return one.failed(tried(one, now, "HTTP 500", status=500), now, **options)


def cut(one: Task, now: float) -> Task:
    leg = one.leg or Leg.MAIN
    return one.cut_short(Attempt(leg, one.number, now, 1.0, Outcome.CUT_SHORT), now)


async def until(condition: Callable[[], Any], seconds: float = 20.0) -> None:
    """Wait for a condition, not for a time."""
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.005)
