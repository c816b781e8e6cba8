"""What the engine needs from outside: the contracts that adapters fulfil.

Every call of `Store` is a batch and one round trip. What goes into a store is relative (delay,
lease, hold, in seconds); the store's own clock makes it absolute, so that workers' clocks need not
agree.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from enum import StrEnum
from typing import NamedTuple, Protocol

from msgspec import Struct

from rebound.domain.attempt import Attempt, State
from rebound.domain.finding import Finding
from rebound.domain.task import Task


class Added(StrEnum):
    """What `Store.add` found."""

    CREATED = "created"
    SAME = "same"
    """The id is known with the same content."""
    DIFFERENT = "different"
    """The id is known with other content."""


class Stored(NamedTuple):
    """What `Store.add` answers for one submission."""

    added: Added
    now: float
    """When it was found, or created, by the store's clock; seconds since the epoch."""


class Submission(NamedTuple):
    """A valid task on its way into the store."""

    task: Task
    """With id, `state` and `leg`."""
    delay: float
    """Seconds until it is first due."""
    body: bytes
    """The caller's fields as JSON, id left out."""
    digest: bytes
    """Sixteen bytes, equal for the same content."""
    nonce: str
    """Of this call: a repeat after a lost reply answers `created` again."""
    queue: str
    """The task's."""


class Claimed(NamedTuple):
    """What `Store.claim` hands out."""

    tasks: Sequence[Task]
    """`delivering`, each with its `lease`, and `lost` as often as its lease was lost in a row."""
    now: float
    """The store's clock, seconds since the epoch."""
    next_due: float | None
    """When another claim is worth while by what the store knows: `<= now` means at once."""
    blocked: bool
    """Due tasks were left because of the limits: look again when a slot becomes free."""
    buried: Sequence[Task] = ()
    """Records that cannot be read, set aside as dead."""


class Found(NamedTuple):
    """One page of `Store.find`."""

    tasks: Sequence[Task]
    cursor: str | None
    """Hand it in for the next page; None at the end."""


class Filter(NamedTuple):
    """What to find. None means any."""

    state: State | None = None
    leg: str | None = None
    source: str | None = None
    client_id: str | None = None

    def accepts(self, task: Task) -> bool:
        """True where every given member matches."""
        return (
            (self.state is None or task.state == self.state)
            and (self.leg is None or task.leg == self.leg)
            and (self.source is None or task.source == self.source)
            and (self.client_id is None or task.client_id == self.client_id)
        )


class Retention(NamedTuple):
    """How long finished tasks stay, in seconds, and at most how many."""

    succeeded: float = 3600.0
    """Readable whole; after that a stub (id, digest, state, times) stays until `dedup`."""
    dedup: float = 86400.0
    dead: float = 2_592_000.0
    """For cancelled tasks and dead ones whose dead letter was delivered."""
    max_succeeded: int = 100_000
    max_stubs: int = 1_000_000


class Store(Protocol):
    """Where tasks live. Every call may raise StoreUnavailable; then nothing is confirmed."""

    name: str
    """`sqlite` or `redis`."""

    async def open(self) -> Sequence[str]:
        """Check that the store can be used; return warnings about its durability, a line each.

        Raises StoreUnavailable where waiting may help, StoreUnusable where it will not.
        """
        ...

    async def add(self, submissions: Sequence[Submission], /) -> Sequence[Stored]:
        """Store each, or find it there already. In order; within one call, first come first."""
        ...

    async def claim(
        self,
        limit: int,
        /,
        *,
        free: int,
        slots: int,
        kinds: Collection[str],
        lease: float,
        lane_limit: int,
        random: float,
    ) -> Claimed:
        """Lease at most `limit` due tasks that one of `kinds` serves, fair over their lanes.

        A lane gets no further slot when it has `lane_limit` in flight, over all workers, or what
        `domain.fairness.most` says: the caller, who has `slots` in all and so many `free`, keeps
        1/(n+1) of them free however n hanging lanes come. Its share of a claim is `limit` divided
        by the number of all due lanes. Priority tasks go first within their lane, and over lanes
        within three quarters of `limit` while others are due. At most 8 MiB of bodies, at least
        one task.

        A lease that has expired is due again within the same limits: the first time at once, then
        after 2^lost s × (0.5 + `random`), `random` in [0, 1).
        """
        ...

    async def settle(self, tasks: Sequence[Task], /) -> Sequence[str]:
        """Write the tasks back as they now are and end their leases.

        Only the token decides, never the clock. Returns the ids whose token no longer matched;
        nothing was written for those. A repeat of the same call answers the same.
        """
        ...

    async def extend(self, tasks: Sequence[Task], /, *, lease: float) -> Sequence[str]:
        """Let the leases expire `lease` seconds from now. Returns the ids that were lost."""
        ...

    async def hold(self, queue: str, /, *, seconds: float | None) -> None:
        """Hand out nothing of `queue` (`<served by>|<lane>`) for `seconds`; None releases it."""
        ...

    async def limit(self, queue: str, /, *, in_flight: int | None) -> None:
        """Give `queue` its own limit in place of `lane_limit`; None takes it back."""
        ...

    async def get(self, id_: str, /) -> Task | None:
        """The task, `delivering` while it is leased; of a stub only id, state and times."""
        ...

    async def find(self, wanted: Filter, /, *, limit: int, cursor: str | None = None) -> Found:
        """Newest first by creation. May return fewer than `limit` and still a cursor."""
        ...

    async def swap(self, before: Task, after: Task | None, /) -> bool:
        """Write `after` (None: forget the task) if it still is as `before`; else False."""
        ...

    async def time(self) -> float:
        """The store's clock, seconds since the epoch."""
        ...

    async def watch(self, kinds: Collection[str], wake: Callable[[], None], /) -> None:
        """Call `wake` whenever something of `kinds` may be due earlier than was known.

        Runs until cancelled. Wakes may be lost; polling stays the truth.
        """
        ...

    async def ping(self) -> None:
        """Return if the store answers."""
        ...

    async def aclose(self) -> None:
        """Release every connection, file and thread."""
        ...


class Examined(NamedTuple):
    """What `Examiner.examine` saw."""

    tasks: int
    lanes: int
    findings: Sequence[Finding]


class Examiner(Protocol):
    """Looks a store over while workers use it. Calls may raise StoreUnavailable."""

    async def surroundings(self) -> Sequence[Finding]:
        """What is wrong with the server, or with the file and the disk that it is on."""
        ...

    async def examine(self, *, repair: bool) -> Examined:
        """Hold every record against the lists, lanes and leases that it should be in.

        With `repair` each is put where its record says it belongs, in one step that changes
        nothing if a worker was there first. No record is ever removed.
        """
        ...

    async def aclose(self) -> None:
        """Release every connection and file."""
        ...


class Receipt(NamedTuple):
    """What a producer knows of a delivery that succeeded."""

    status: int | None = None
    response: str | None = None


class Producer(Protocol):
    """Delivers to one kind of outside system."""

    async def send(self, task: Task, /) -> Receipt:
        """Deliver to `task.target` within its time limit.

        Returning means delivered. Any exception means not: DeliveryError with what is known,
        Rejected for good, Deferred for an attempt that did not take place.
        """
        ...

    async def aclose(self) -> None:
        """Release every connection."""
        ...


class Event(Struct, frozen=True, gc=False):
    """Something happened to a task, or (`task` None) to the worker or the store."""

    kind: str
    """Such as `task delivered`: what the log line of the event says."""
    task: Task | None = None
    attempt: Attempt | None = None
    detail: str | None = None


Listener = Callable[[Event], None]
"""Is never awaited; what it raises is logged and goes no further."""
