"""One try to deliver, and the words for what may become of a task."""

from __future__ import annotations

from enum import StrEnum
from typing import Final

from msgspec import Struct

from rebound.domain.errors import DeliveryError, Rejected

MAX_RESPONSE: Final = 1024
"""Characters of a response kept with an attempt."""


class State(StrEnum):
    """Where a task stands; compares equal to its string."""

    SCHEDULED = "scheduled"
    DELIVERING = "delivering"
    SUCCEEDED = "succeeded"
    DEAD = "dead"
    CANCELLED = "cancelled"


class Leg(StrEnum):
    """`main` towards `destination`, `dead` towards `dead_destination`."""

    MAIN = "main"
    DEAD = "dead"


class DeadReason(StrEnum):
    """Why the main leg ended without success."""

    EXHAUSTED = "exhausted"
    EXPIRED = "expired"
    REJECTED = "rejected"
    CRASHED = "crashed"
    UNREADABLE = "unreadable"


class DeadLetter(StrEnum):
    """What became of the dead letter."""

    NONE = "none"
    DELIVERED = "delivered"
    FAILED = "failed"


class Outcome(StrEnum):
    """How one attempt ended."""

    SUCCEEDED = "succeeded"
    FAILED = "failed"
    TIMEOUT = "timeout"
    REJECTED = "rejected"
    CUT_SHORT = "cut_short"
    LOST = "lost"


class Attempt(Struct, frozen=True, array_like=True):
    """One try to deliver, as it is kept with the task."""

    leg: Leg
    number: int
    """From 1, within its leg."""
    started_at: float
    duration_ms: float | None
    outcome: Outcome
    status: int | None = None
    error: str | None = None
    response: str | None = None


class Lease(Struct, frozen=True, array_like=True):
    """A worker's right to attempt the task; the store compares `token` when it is settled."""

    token: str
    queue: str
    """The lane, with what serves it, that the task was claimed from."""


def ended(
    leg: Leg,
    number: int,
    started_at: float,
    duration: float,
    error: DeliveryError | None,
    status: int | None = None,
    response: str | None = None,
) -> Attempt:
    """The record of an attempt that took `duration` seconds and raised `error`, or nothing."""
    outcome, told = Outcome.SUCCEEDED, None
    if error is not None:
        outcome = Outcome.TIMEOUT if error.timed_out else Outcome.FAILED
        outcome = Outcome.REJECTED if isinstance(error, Rejected) else outcome
        status, response, told = error.status, error.response, str(error)[:1024]
    if response is not None:
        response = response[:MAX_RESPONSE]
    milliseconds = round(duration * 1000, 3)
    return Attempt(leg, number, started_at, milliseconds, outcome, status, told, response)
