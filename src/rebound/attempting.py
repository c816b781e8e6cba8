"""One attempt: send under its time limit, and turn what came of it into a transition."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from random import random
from typing import NamedTuple

from rebound.domain.attempt import Attempt, Leg, Outcome, ended
from rebound.domain.backoff import STRATEGIES, Strategy
from rebound.domain.errors import Abandoned, Deferred, DeliveryError
from rebound.domain.task import MAX_LOST, Task
from rebound.ports import Producer


class Policy(NamedTuple):
    """The settings that decide about tasks; durations in seconds."""

    max_payload: int = 1_048_576
    dead_letter_ttl: float = 604_800.0
    retry_after_max: float = 86_400.0
    strategies: Mapping[str, Strategy] = STRATEGIES


async def attempt(
    task: Task, producers: Mapping[str, Producer], policy: Policy, clock: Callable[[], float]
) -> Task:
    """Try to deliver a claimed task; return it as it is to be settled.

    `clock` is the store's time in seconds. Cancelled by a shutdown, it counts as cut short; raises
    Abandoned where it cannot be stopped.
    """
    now = clock()
    if len(task.lost) >= MAX_LOST:
        return task.crashed(now)
    expiry = task.expires_at if task.leg == Leg.MAIN else None
    if expiry is not None and now >= expiry - 0.001:  # stores round, and so do floats
        return task.expired(now)
    started = time.perf_counter()
    try:
        receipt = await producers[task.place.served_by].send(task)
    except Abandoned:
        raise
    except (Exception, asyncio.CancelledError) as error:
        return _not_delivered(task, policy, now, time.perf_counter() - started, error, clock())
    took = time.perf_counter() - started
    leg = task.leg or Leg.MAIN
    record = ended(leg, task.number, now, took, None, receipt.status, receipt.response)
    return task.succeeded(record, clock())


def _not_delivered(
    task: Task,
    policy: Policy,
    started_at: float,
    took: float,
    error: Exception | asyncio.CancelledError,
    now: float,
) -> Task:
    """What becomes of a task whose producer raised `error`, whatever that is."""
    leg = task.leg or Leg.MAIN
    if isinstance(error, Deferred):
        return task.deferred(now, error.retry_after or 1.0)
    if isinstance(error, asyncio.CancelledError):
        attempt = asyncio.current_task()
        if attempt is None or attempt.cancelling():
            why = "cut short by a shutdown"
            milliseconds = round(took * 1000, 3)
            cut = Attempt(leg, task.number, started_at, milliseconds, Outcome.CUT_SHORT, error=why)
            return task.cut_short(cut, now)
        error = DeliveryError("CancelledError: the producer was cancelled")
    elif not isinstance(error, DeliveryError):
        error = DeliveryError(f"{type(error).__name__}: {error}")
    return task.failed(
        ended(leg, task.number, started_at, took, error),
        now,
        random=random(),
        retry_after=min(error.retry_after or 0.0, policy.retry_after_max),
        after=error.after,
        dead_letter_ttl=policy.dead_letter_ttl,
        strategies=policy.strategies,
    )
