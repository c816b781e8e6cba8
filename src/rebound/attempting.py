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
from rebound.ports import Producer, Receipt


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
        receipt = await _send(task, producers)
    except asyncio.CancelledError:
        cut = Attempt(
            _leg(task), task.number, now,
            round((time.perf_counter() - started) * 1000, 3), Outcome.CUT_SHORT,
            error="cut short by a shutdown",
        )  # fmt: skip
        return task.cut_short(cut, clock())
    except Deferred as deferred:
        return task.deferred(clock(), deferred.retry_after or 1.0)
    except DeliveryError as error:
        return _failed(task, policy, now, time.perf_counter() - started, error, clock())
    record = ended(
        _leg(task), task.number, now, time.perf_counter() - started, None,
        status=receipt.status, response=receipt.response,
    )  # fmt: skip
    return task.succeeded(record, clock())


async def _send(task: Task, producers: Mapping[str, Producer]) -> Receipt:
    """What the producer returns; whatever it raises as DeliveryError."""
    try:
        return await producers[task.place.served_by].send(task)
    except (DeliveryError, Abandoned):
        raise
    except asyncio.CancelledError:
        attempt = asyncio.current_task()
        if attempt is None or attempt.cancelling():
            raise
        raise DeliveryError("CancelledError: the producer was cancelled") from None
    except Exception as error:
        raise DeliveryError(f"{type(error).__name__}: {error}") from error


def _failed(
    task: Task, policy: Policy, started_at: float, took: float, error: DeliveryError, now: float
) -> Task:
    return task.failed(
        ended(_leg(task), task.number, started_at, took, error),
        now,
        random=random(),
        retry_after=min(error.retry_after or 0.0, policy.retry_after_max),
        after=error.after,
        dead_letter_ttl=policy.dead_letter_ttl,
        strategies=policy.strategies,
    )


def _leg(task: Task) -> Leg:
    return task.leg or Leg.MAIN
