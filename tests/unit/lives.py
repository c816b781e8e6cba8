"""The whole way of a task, without a store: days of retries in milliseconds."""

from __future__ import annotations

from collections.abc import Callable

from msgspec.structs import replace

from rebound.domain.attempt import (
    DeadLetter,
    DeadReason,
    Lease,
    Leg,
    State,
    ended,
)
from rebound.domain.destination import Destination
from rebound.domain.errors import DeliveryError
from rebound.domain.task import Task
from tests.support import DAY

BORN = 1_800_000_000.0
DEAD = Destination(url="http://dead.test/dlq")
Answer = Callable[[Task], DeliveryError | None]


EXHAUSTED = (State.DEAD, DeadReason.EXHAUSTED, DeadLetter.NONE)


def stored(one: Task, now: float = BORN, random: float = 0.5) -> Task:
    """As the store keeps a new task."""
    one = one.accepted()
    due = now + one.first_wait(random)
    return replace(one, created_at=now, updated_at=now, due_at=due)


def leased(one: Task) -> Task:
    return replace(one, state=State.DELIVERING, lease=Lease("token", one.queue))


def refusing(_: Task) -> DeliveryError | None:
    return DeliveryError("HTTP 500", status=500)


def accepting(_: Task) -> DeliveryError | None:
    return None


def accepting_dead_letters(one: Task) -> DeliveryError | None:
    return None if one.leg == Leg.DEAD else DeliveryError("HTTP 500", status=500)


class Life:
    """The way of a task to its end, as store and engine lead it, without their clocks."""

    def __init__(
        self, one: Task, answer: Answer = refusing, *, took: float = 0.0, most: int = 1000
    ) -> None:
        self.starts: list[tuple[Leg, int, float]] = []
        """Leg, number and seconds since creation of every attempt."""
        self.task = one if one.created_at else stored(one)
        now = BORN
        while self.task.state == State.SCHEDULED and len(self.starts) < most:
            now = max(now, self.task.due_at or 0)
            now = self._step(leased(self.task), answer, now, took)

    def _step(self, one: Task, answer: Answer, now: float, took: float) -> float:
        if one.leg == Leg.MAIN and one.expires_at is not None and now >= one.expires_at:
            self.task = one.expired(now)
            return now
        assert one.leg is not None
        self.starts.append((one.leg, one.number, round(now - BORN, 3)))
        error = answer(one)
        attempt = ended(one.leg, one.number, now, took, error)
        now += took
        if error is None:
            self.task = one.succeeded(attempt, now)
        else:
            self.task = one.failed(
                attempt, now, random=0.5, retry_after=error.retry_after or 0.0,
                dead_letter_ttl=7 * DAY,
            )  # fmt: skip
        return now

    def times(self, leg: Leg = Leg.MAIN) -> list[float]:
        return [at for on, _, at in self.starts if on == leg]

    @property
    def end(self) -> tuple[State | None, DeadReason | None, DeadLetter | None]:
        return self.task.state, self.task.dead_reason, self.task.dead_letter
