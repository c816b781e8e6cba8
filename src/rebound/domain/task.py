"""The one record of the system, and every transition it can make.

A `Task` is what the caller said (immutable) and what became of it (rewritten by transitions, pure
methods that return a new Task). Time comes in as `now`, in seconds since the epoch by the store's
clock, chance as `random`, a number in [0, 1).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Final

from msgspec import UNSET, Meta, Struct, UnsetType
from msgspec.structs import replace

from rebound.domain.attempt import Attempt, DeadLetter, DeadReason, Lease, Leg, Outcome, State
from rebound.domain.backoff import DEAD_LEG, DEAD_LEG_DELAY, STRATEGIES, Backoff, Strategy, delay
from rebound.domain.destination import Base64, Destination, Place
from rebound.domain.errors import TaskBusy, WrongState
from rebound.domain.fields import Json, Text, Visible

MAX_LOST: Final = 5
"""Leases lost in a row that end a leg as `crashed`."""
MAX_ATTEMPTS: Final = 25
"""Newest attempts kept with a task."""
_DEFAULT_BACKOFF: Final = Backoff()
_DEAD: Final = Leg.DEAD  # to look a member up takes Python 3.11 six times as long as to compare it


class Task(
    Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True, gc=False
):  # what is in it is JSON, and that has no cycles
    """One message to deliver, with the policy for retrying it.

    Durations are seconds, `*_at` seconds since the epoch. The fields below `# engine` are set by
    Rebound and refused from callers.
    """

    source: Text
    """The system that hands the task over; 1-255 characters."""
    destination: Destination
    id: Visible = ""
    """1-255 visible ASCII characters; a UUIDv7 where none is given."""
    dead_destination: Destination | None = None
    """Where the message goes when the main leg has ended without success."""
    destination_type: Annotated[str, Meta(pattern=r"\A(http|kafka|call)\Z")] | None = None
    max_retries: Annotated[int, Meta(ge=0, le=100)] = 5
    """How many attempts the main leg gets; 0 and 1 both mean one."""
    base_delay: Annotated[float, Meta(ge=0.001, le=86400)] = 10
    delay: Annotated[float, Meta(ge=0, le=31_536_000)] | None = None
    """Replaces the wait before the first attempt; 0 = at once."""
    backoff: Backoff | None = None
    ttl: Annotated[float, Meta(ge=0.001, le=31_536_000)] | None = None
    """Seconds from creation after which the main leg ends as `expired`."""
    failures: Annotated[int, Meta(ge=0, le=100)] = 0
    """Failures that already happened elsewhere."""
    client_id: Annotated[str, Meta(max_length=255)] = ""
    is_priority: bool = False
    message_data: Json = ""
    """The message: a string is sent as UTF-8, any other value as its JSON text."""
    message_encoding: Annotated[str, Meta(pattern=r"\A(text|base64)\Z")] = "text"
    message_key: str | Base64 | UnsetType | None = UNSET
    """Kafka key and X-Message-Key, at most 1024 bytes; default the id."""
    lane: Visible | None = None
    """Queue of the main leg, default the destination's own."""
    attempt: int = 0
    """Main-leg attempts made. Accepted from callers and ignored."""

    # engine
    state: State | None = None
    leg: Leg | None = None
    created_at: float | None = None
    updated_at: float | None = None
    finished_at: float | None = None
    due_at: float | None = None
    """When the next attempt is due; meaningful while `scheduled`."""
    replayed_at: float | None = None
    """When a person started the task afresh: `ttl` counts from here, `failures` no longer."""
    dead_at: float | None = None
    """When the dead leg began."""
    dead_attempt: int = 0
    """Dead-leg attempts made."""
    dead_reason: DeadReason | None = None
    dead_letter: DeadLetter | None = None
    last_error: str | None = None
    main_error: str | None = None
    """`last_error` when the main leg ended: what the dead letter tells."""
    attempts: tuple[Attempt, ...] = ()
    """The newest 25 of both legs, oldest first."""
    lost: tuple[float, ...] = ()
    """Starts of the attempts since the last settle whose lease was lost."""
    lease: Lease | None = None

    def __repr__(self) -> str:
        return (
            f"Task(id={self.id!r}, source={self.source!r}, destination={self.destination!r},"
            f" state={self.state and self.state.value!r}, attempt={self.attempt})"
        )

    # -- what follows from the fields --------------------------------------------------------

    @property
    def target(self) -> Destination:
        """The destination of the current leg."""
        if self.leg == _DEAD and self.dead_destination is not None:
            return self.dead_destination
        return self.destination

    @property
    def place(self) -> Place:
        """Kind, lane and origin of the current leg's destination."""
        return self.target.place

    @property
    def lane_name(self) -> str:
        """The lane that the current leg queues up in."""
        return self._lane_of(self.place)

    @property
    def queue(self) -> str:
        """`<served by>|<lane>`: the lane's key in the store."""
        place = self.place
        return f"{place.served_by}|{self._lane_of(place)}"

    @property
    def number(self) -> int:
        """Number of the next or running attempt within its leg, from 1."""
        return (self.dead_attempt if self.leg == _DEAD else self.attempt) + 1

    @property
    def budget(self) -> int:
        """How many attempts the main leg gets from Rebound."""
        if self.replayed_at is None and self.failures:
            return self.max_retries - self.failures
        return max(self.max_retries, 1)

    @property
    def expires_at(self) -> float | None:
        """When the main leg ends as `expired`, or None."""
        start = self.replayed_at if self.replayed_at is not None else self.created_at
        return None if self.ttl is None or start is None else start + self.ttl

    def wait(self, random: float, strategies: Mapping[str, Strategy] = STRATEGIES) -> float:
        """Seconds before attempt `self.number` of the current leg by the policy."""
        if self.leg == _DEAD:
            k = self.dead_attempt
            return delay(DEAD_LEG, DEAD_LEG_DELAY, k, random) if k else 0.0
        failures = self.failures if self.replayed_at is None else 0
        policy = self.backoff or _DEFAULT_BACKOFF
        return delay(policy, self.base_delay, failures + self.number, random, strategies)

    def first_wait(self, random: float, strategies: Mapping[str, Strategy] = STRATEGIES) -> float:
        """Seconds from creation until the task is first due."""
        if self.leg == _DEAD:
            return 0.0
        wait = self.wait(random, strategies) if self.delay is None else self.delay
        return wait if self.ttl is None else min(wait, self.ttl)

    # -- transitions -------------------------------------------------------------------------

    def accepted(self) -> Task:
        """A new task, before the store has seen it. Without attempts left it starts dead."""
        if self.failures and self.failures >= self.max_retries > 0:
            error = f"{self.failures} failures before Rebound"
            task = replace(self, attempt=0, last_error=error)
            return task._main_leg_over(DeadReason.EXHAUSTED, None)
        return replace(self, attempt=0, state=State.SCHEDULED, leg=Leg.MAIN)

    def succeeded(self, attempt: Attempt, now: float) -> Task:
        """The receiver took the message."""
        if self.leg == _DEAD:
            letter, task = DeadLetter.DELIVERED, self._counted(attempt, now)
            return replace(task, state=State.DEAD, dead_letter=letter, finished_at=now)
        return replace(  # as `_counted`, at once: of all transitions this is the usual one
            self, attempt=self.attempt + 1, attempts=self._history(attempt), lost=(),
            state=State.SUCCEEDED, updated_at=now, finished_at=now,
        )  # fmt: skip

    def failed(
        self,
        attempt: Attempt,
        now: float,
        *,
        random: float,
        retry_after: float = 0.0,
        after: float | None = None,
        dead_letter_ttl: float,
        strategies: Mapping[str, Strategy] = STRATEGIES,
    ) -> Task:
        """The attempt failed: try again after the policy's delay or `after`, or end the leg."""
        task = replace(self._counted(attempt, now), last_error=attempt.error)
        if attempt.outcome == Outcome.REJECTED:
            return task._leg_over(DeadReason.REJECTED, now)
        if task.leg == Leg.MAIN and task.attempt >= task.budget:
            return task._leg_over(DeadReason.EXHAUSTED, now)
        wait = task.wait(random, strategies) if after is None else after
        due = now + max(wait, retry_after)
        dead_since = task.dead_at or task.created_at or now
        if task.leg == _DEAD and due > dead_since + dead_letter_ttl:
            return task._leg_over(DeadReason.EXHAUSTED, now)
        return replace(task, state=State.SCHEDULED, due_at=task._by_expiry(due))

    def deferred(self, now: float, wait: float) -> Task:
        """The attempt did not take place; it is repeated after `wait` seconds, not counted."""
        return replace(
            self, attempts=self._history(), lost=(), state=State.SCHEDULED,
            due_at=self._by_expiry(now + wait), updated_at=now,
        )  # fmt: skip

    def cut_short(self, attempt: Attempt, now: float) -> Task:
        """A shutdown ended the attempt: repeated at once under the same number, not counted."""
        return replace(
            self, attempts=self._history(attempt), lost=(), state=State.SCHEDULED, due_at=now,
            updated_at=now,
        )  # fmt: skip

    def crashed(self, now: float) -> Task:
        """Its lease was lost too often in a row: the leg ends without a further attempt."""
        error = f"the worker was lost {len(self.lost)} times in a row"
        task = replace(self, attempts=self._history(), lost=(), updated_at=now, last_error=error)
        return task._leg_over(DeadReason.CRASHED, now)

    def expired(self, now: float) -> Task:
        """Its `ttl` is over: the main leg ends without a further attempt."""
        error = self.last_error or "not delivered within its ttl"
        task = replace(self, attempts=self._history(), lost=(), updated_at=now, last_error=error)
        return task._leg_over(DeadReason.EXPIRED, now)

    def cancelled(self, now: float) -> Task:
        """A person does not want it any more. Raises TaskBusy or WrongState."""
        if self.state == State.DELIVERING:
            raise TaskBusy(f"task {self.id} is being delivered; try again when the attempt ended")
        if self.state != State.SCHEDULED:
            raise WrongState(
                f"task {self.id} is {self.state}; only a scheduled task can be cancelled"
            )
        return replace(
            self, attempts=self._history(), lost=(), state=State.CANCELLED, updated_at=now,
            finished_at=now,
        )  # fmt: skip

    def replayed(self, now: float) -> Task:
        """A person starts a dead or cancelled task afresh. Raises WrongState."""
        if self.state not in (State.DEAD, State.CANCELLED):
            raise WrongState(
                f"task {self.id} is {self.state}; only a dead or cancelled task can be replayed"
            )
        if self.dead_reason == DeadReason.UNREADABLE:
            raise WrongState(f"task {self.id} cannot be read, so it cannot be replayed")
        return replace(
            self, state=State.SCHEDULED, leg=Leg.MAIN, attempt=0, dead_attempt=0, attempts=(),
            lost=(), updated_at=now, replayed_at=now, due_at=now, finished_at=None, dead_at=None,
            dead_reason=None, dead_letter=None, last_error=None,
            main_error=None,
        )  # fmt: skip

    # -- their parts -------------------------------------------------------------------------

    def _history(self, *attempts: Attempt) -> tuple[Attempt, ...]:
        """The attempts kept, with those whose lease was lost and `attempts` added."""
        kept = self.attempts
        if self.lost:
            leg = self.leg or Leg.MAIN
            kept += tuple(Attempt(leg, self.number, at, None, Outcome.LOST) for at in self.lost)
        return (kept + attempts)[-MAX_ATTEMPTS:]

    def _by_expiry(self, due: float) -> float:
        return due if self.leg == _DEAD else min(due, self.expires_at or due)

    def _lane_of(self, place: Place) -> str:
        return place.lane if self.lane is None or self.leg == _DEAD else self.lane

    def _counted(self, attempt: Attempt, now: float) -> Task:
        dead = self.leg == _DEAD
        return replace(
            self,
            attempt=self.attempt if dead else self.attempt + 1,
            dead_attempt=self.dead_attempt + 1 if dead else 0,
            attempts=self._history(attempt),
            lost=(),
            updated_at=now,
        )

    def _leg_over(self, reason: DeadReason, now: float) -> Task:
        if self.leg == _DEAD:
            return replace(self, state=State.DEAD, dead_letter=DeadLetter.FAILED, finished_at=now)
        return self._main_leg_over(reason, now)

    def _main_leg_over(self, reason: DeadReason, now: float | None) -> Task:
        if self.dead_destination is None:
            return replace(
                self, state=State.DEAD, leg=Leg.MAIN, dead_reason=reason,
                dead_letter=DeadLetter.NONE, finished_at=now,
            )  # fmt: skip
        return replace(
            self, state=State.SCHEDULED, leg=_DEAD, dead_reason=reason, dead_at=now, due_at=now,
            dead_attempt=0, main_error=self.last_error,
        )  # fmt: skip
