"""`rebound import-go`: what waits in the Redis of the Go original, moved into a store of ours.

Each task is in our store before it leaves the set, and its content does not depend on the time: who
repeats the command, or ends it half-way, gets none twice.
"""

# ruff: noqa: T201 - results go to stdout

from __future__ import annotations

import logging
import os
import time
from argparse import Namespace
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from rebound import wiring
from rebound.cli.commands import FAILED, OK, complain
from rebound.domain import meaning, original
from rebound.domain.errors import DuplicateTask, ReboundError, ValidationError
from rebound.domain.task import Task
from rebound.domain.times import rfc3339
from rebound.embedded import Rebound
from rebound.engine import Submitted
from rebound.settings import Config, addresses
from rebound.settings import redis as redis_settings

if TYPE_CHECKING:
    from rebound.adapters.stores.redis_original import RedisOriginal
    from rebound.engine import Engine

PAGE: Final = 100
"""Tasks that are moved together."""
MOST_WAIT: Final = 100 * 365 * 86_400.0
"""Seconds. What is due later is no time that the original reckoned."""
MOVED, KNOWN, LEFT = "moved", "there already", "left"
Members = Sequence[tuple[bytes, float]]


async def import_go(args: Namespace) -> int:
    """Move what waits, a line for each task; 1 where something was left."""
    source = _source(args.source)
    config = Config.for_service(store_url=args.store_url)
    quiet = logging.getLogger("rebound.cli.import_go")
    quiet.disabled = True
    waiting = wiring.make_original(source)
    rebound = Rebound(replace(config, logger=quiet), worker=False)
    try:
        if args.dry_run:
            counts = await _look(rebound.engine, waiting)
        else:
            await rebound.start()
            counts = await _move(rebound.engine, waiting)
    finally:
        await rebound.close()
        await waiting.aclose()
    known = f"{counts[KNOWN]} there already, " if counts[KNOWN] else ""
    moved = "would be moved" if args.dry_run else "moved"
    print(
        f"{counts[MOVED]} {moved}, {known}{counts[LEFT]} left in {waiting.key}"
        f" of {redis_settings.shown(source)}"
    )
    return FAILED if counts[LEFT] else OK


def _source(url: str | None) -> Config:
    """The settings of the original's Redis. Raises ValidationError."""
    if url is not None:
        try:
            addresses.redis_address(url)
        except ValueError as error:
            raise ValidationError(f"--from: {error}") from None
        return Config(store_url=url)
    names = [name for name in os.environ if name.removeprefix("REBOUND_").startswith("REDIS_")]
    config = Config.for_service({name: os.environ[name] for name in names})
    return config if config.store_kind == "redis" else Config(store_url="redis://localhost")


async def _look(engine: Engine, waiting: RedisOriginal) -> Counter[str]:
    """Say what would be moved; what our store has already is not looked at."""
    counts: Counter[str] = Counter()
    seen: dict[str, bytes] = {}
    while page := await waiting.page(counts.total(), PAGE):
        for (member, due), task in zip(page, _read(page, time.time()), strict=True):
            try:
                if isinstance(task, ReboundError):
                    raise task
                meant = meaning.digest(engine.check(task))
                if seen.setdefault(task.id, meant) != meant:
                    raise DuplicateTask(f"another task {task.id} waits before it")
            except ReboundError as error:
                counts[LEFT] += _leave(member, due, error)
            else:
                counts[MOVED] += _say(task, due, "would be moved")
    return counts


async def _move(engine: Engine, waiting: RedisOriginal) -> Counter[str]:
    counts: Counter[str] = Counter()
    while page := await waiting.page(counts[LEFT], PAGE):
        now = await engine.store.time()
        waits = [max(0.0, due - now) for _, due in page]
        done = []
        for (member, due), result in zip(
            page, await engine.submit_many(_read(page, now), waits), strict=True
        ):
            if isinstance(result, Submitted):
                how = MOVED if result.created else KNOWN
                counts[how] += _say(result.task, due, how)
                done.append(member)
            else:
                counts[LEFT] += _leave(member, due, result)
        if done and (gone := len(done) - await waiting.remove(done)):
            complain(
                f"{gone} of these had gone from {waiting.key} meanwhile: somebody else takes tasks"
                " there and delivers them too; stop the original first"
            )
    return counts


def _read(page: Members, now: float) -> list[Task | ReboundError]:
    """What each member is, or why it is none of ours."""
    found: list[Task | ReboundError] = []
    for member, due in page:
        try:
            if not due - now <= MOST_WAIT:
                raise ValidationError(f"its score {due:g} is no time in seconds")
            found.append(original.task_of(member))
        except ReboundError as error:
            found.append(error)
    return found


def _say(task: Task, due: float, what: str) -> int:
    left = task.budget
    print(f"{task.id} {what}: due {rfc3339(max(0.0, due))}, attempts left: {left}", flush=True)
    return 1


def _leave(member: bytes, due: float, why: ReboundError) -> int:
    complain(f"left {original.name_of(member, due)}: {why}")
    return 1
