"""How long to wait before attempt k: strategies by name, and jitter.

Jitter takes its random number as an argument, so that every function here is pure.
Formulas and names: https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Annotated, Literal

from msgspec import Meta, Struct

MAX_DELAY = 604_800.0
"""Default of `backoff.max_delay`: seven days, in seconds."""

Seconds = Annotated[float, Meta(ge=0.001, le=31_536_000)]
Entry = Annotated[float, Meta(ge=0, le=31_536_000)]


class Backoff(Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """The shape of the waiting times. What is None was not given and takes its default."""

    strategy: Annotated[str, Meta(min_length=1, max_length=255)] | None = None
    """`exponential` (default), `linear`, `fixed`, `schedule`, or one of the program's own."""
    factor: Annotated[float, Meta(ge=1, le=100)] | None = None
    """Base of the exponential strategy, default 2."""
    max_delay: Seconds | None = None
    """Longest delay in seconds before jitter, default seven days."""
    jitter: Literal["none", "full", "equal"] | Annotated[float, Meta(ge=0, le=1)] | None = None
    """`none` (default), `full` U(0,d), `equal` d/2+U(0,d/2), or a number p: d·U(1-p,1+p)."""
    schedule: Annotated[list[Entry], Meta(min_length=1, max_length=100)] | None = None
    """Delays in seconds for the strategy `schedule`; the last one repeats past the end."""


DEAD_LEG = Backoff(max_delay=3600)
DEAD_LEG_DELAY = 10.0
"""The dead leg's own policy: at once, then 10 s doubling up to an hour."""

Strategy = Callable[[Backoff, float, int], float]
"""(backoff, base_delay in seconds, k from 1) -> delay in seconds before attempt k."""


def exponential(backoff: Backoff, base_delay: float, k: int) -> float:
    """base_delay * factor^(k-1), never overflowing: stops multiplying at `max_delay`."""
    factor = 2.0 if backoff.factor is None else backoff.factor
    cap = _max_delay(backoff)
    if base_delay >= cap:
        return cap
    if factor > 1 and (k - 1) * math.log(factor) >= math.log(cap / base_delay):
        return cap
    return float(base_delay * factor ** (k - 1))


def linear(backoff: Backoff, base_delay: float, k: int) -> float:
    """base_delay * k"""
    return base_delay * k


def fixed(backoff: Backoff, base_delay: float, k: int) -> float:
    """base_delay"""
    return base_delay


def schedule(backoff: Backoff, base_delay: float, k: int) -> float:
    """schedule[k-1]; past the end the last entry repeats."""
    entries = backoff.schedule or [base_delay]
    return entries[min(k, len(entries)) - 1]


STRATEGIES: Mapping[str, Strategy] = {
    "exponential": exponential,
    "linear": linear,
    "fixed": fixed,
    "schedule": schedule,
}


def delay(
    backoff: Backoff,
    base_delay: float,
    k: int,
    random: float,
    strategies: Mapping[str, Strategy] = STRATEGIES,
) -> float:
    """Seconds before attempt `k`; `random` is a number in [0, 1) that jitter uses.

    A strategy of the program's own that raises, or returns no finite number ≥ 0, is replaced by
    the exponential one: a bug there must not lose the task.
    """
    strategy = strategies.get(backoff.strategy or "exponential", exponential)
    try:
        wait = float(strategy(backoff, base_delay, k))
        if not (math.isfinite(wait) and wait >= 0):
            raise ValueError(wait)
    except Exception:
        wait = exponential(backoff, base_delay, k)
    return jittered(min(wait, _max_delay(backoff)), backoff.jitter, random)


def jittered(wait: float, jitter: str | float | None, random: float) -> float:
    """`wait` seconds, spread by `jitter` with `random` from [0, 1)."""
    match jitter:
        case None | "none":
            return wait
        case "full":
            return wait * random
        case "equal":
            return wait / 2 + wait / 2 * random
        case _:
            return wait * (1 + float(jitter) * (2 * random - 1))


def _max_delay(backoff: Backoff) -> float:
    return MAX_DELAY if backoff.max_delay is None else backoff.max_delay
