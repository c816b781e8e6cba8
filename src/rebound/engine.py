"""What happens to a task between the store and its destination; knows no adapter.

`submit` brings tasks in, `attempt` tries one and says what became of it, the rest is for people.
"""

from __future__ import annotations

import traceback
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from itertools import repeat

from msgspec import Struct
from msgspec.structs import force_setattr

from rebound.accepting import Acceptance
from rebound.attempting import Policy, attempt
from rebound.batcher import Batcher
from rebound.domain import drafts, validation
from rebound.domain.attempt import Outcome, State
from rebound.domain.destination import Destination
from rebound.domain.drafts import Draft
from rebound.domain.errors import (
    Closed,
    DuplicateTask,
    NotFound,
    ReboundError,
    StoreFull,
    StoreUnavailable,
    ValidationError,
    WrongState,
)
from rebound.domain.task import Task
from rebound.ports import (
    Added,
    Event,
    Filter,
    Found,
    Listener,
    Producer,
    Store,
    Stored,
    Submission,
)

FLIGHTS = 2
"""Round trips of adding under way at once: while the store works on one, the next gathers."""
FAILURES = (Outcome.FAILED, Outcome.TIMEOUT, Outcome.REJECTED)
CREATED, DEAD = Added.CREATED, State.DEAD
TERMINAL = (State.SUCCEEDED, State.DEAD, State.CANCELLED)


class Submitted(Struct, frozen=True, gc=False):
    """A task that is in the store."""

    task: Task
    created: bool
    """False where the same content was stored under this id before."""


class Engine:
    """The one way in and the one way through. Made by `rebound.wiring`."""

    def __init__(
        self,
        store: Store,
        producers: Mapping[str, Producer],
        policy: Policy = Policy(),  # noqa: B008
        listeners: Sequence[Listener] = (),
        missing: Mapping[str, str | None] | None = None,
        refusal: Callable[[Destination], str | None] = lambda _: None,
    ) -> None:
        """`producers` by what they serve (`http`, `kafka`, `call:<name>`).

        `missing` says by kind why the others cannot be delivered to, or None for one that other
        processes on the store deliver to.

        `refusal` says why no task may go to a destination, or None.
        """
        self.store = store
        self.producers = producers
        self.policy = policy
        self.closed = False
        self._missing = missing or {}
        self._refusal = refusal
        self._listeners = listeners
        self._accepting = Acceptance(policy, self.check)
        self._failing: set[str] = set()
        self._adding: Batcher[Submission, Stored] = Batcher(
            self._add, size=lambda s: len(s.body) + 200, max_batch=500, flights=FLIGHTS
        )

    # -- in ----------------------------------------------------------------------------------

    async def submit(self, task: Task | Draft) -> Submitted:
        """Store a type-valid task (from `drafts` or `validation`).

        Raises ValidationError, PayloadTooLarge, DuplicateTask, StoreUnavailable or Closed.
        """
        submission = self._prepare(task)
        (stored,) = await self._adding.put([submission])
        if stored.added == CREATED:
            return self._created(submission.task, submission.delay, stored.now)
        return await self._known(submission.task, stored)

    async def submit_many(
        self,
        tasks: Sequence[Task | Draft | ReboundError],
        waits: Iterable[float | None] = repeat(None),
    ) -> list[Submitted | ReboundError]:
        """Likewise, each with its own result in order; an error handed in comes out again.

        `waits` are seconds until each is first due, in place of what the task says, and no part of
        its content. Raises StoreUnavailable where nothing was confirmed, or Closed.
        """
        prepared: list[Submission | ReboundError] = []
        for task, wait in zip(tasks, waits, strict=False):
            try:
                prepared.append(
                    task if isinstance(task, ReboundError) else self._prepare(task, wait)
                )
            except ValidationError as error:
                prepared.append(error)
        fit = [p for p in prepared if isinstance(p, Submission)]
        stored = iter(await self._adding.put_many(fit))
        results: list[Submitted | ReboundError] = []
        for one in prepared:
            if not isinstance(one, Submission):
                results.append(one)
            elif (answer := next(stored)).added == CREATED:
                results.append(self._created(one.task, one.delay, answer.now))
            else:
                try:
                    results.append(await self._known(one.task, answer))
                except DuplicateTask as error:
                    results.append(error)
        return results

    def check(self, task: Task) -> Task:
        """The task as it would be stored. Raises ValidationError or PayloadTooLarge."""
        task = validation.check(
            task, max_payload=self.policy.max_payload, strategies=self.policy.strategies
        )
        if why := self._why_not(task.destination):
            raise ValidationError(f"destination: {why}", field="destination")
        dead = task.dead_destination
        if dead is not None and (why := self._why_not(dead)):
            raise ValidationError(f"dead_destination: {why}", field="dead_destination")
        return task

    def _prepare(self, task: Task | Draft, wait: float | None = None) -> Submission:
        draft = task if isinstance(task, Draft) else drafts.of_task(task)
        submission = self._accepting.submission(draft, wait)
        if self.closed:  # what is wrong with the task comes first
            raise Closed
        return submission

    def _why_not(self, destination: Destination) -> str | None:
        place = destination.place
        if place.served_by in self.producers:
            return self._refusal(destination)
        unknown = f"this service cannot deliver to {place.kind}://"
        return self._missing.get(place.kind, unknown)

    async def _add(self, submissions: Sequence[Submission]) -> Sequence[Stored]:
        try:
            stored = await self.store.add(submissions)
        except StoreUnavailable as error:
            self.store_is("adding", error)
            raise
        self.store_is("adding", None)
        return stored

    def _created(self, task: Task, delay: float, now: float) -> Submitted:
        due, end = (None, now) if task.state == DEAD else (now + delay, None)
        force_setattr(task, "created_at", now)  # it was made here: nobody else has it yet
        force_setattr(task, "updated_at", now)
        force_setattr(task, "due_at", due)
        force_setattr(task, "finished_at", end)
        self.emit(Event("task scheduled", task))
        if task.dead_reason is not None:
            self.emit(Event("task dead", task))
        return Submitted(task, True)

    async def _known(self, task: Task, stored: Stored) -> Submitted:
        if stored.added == Added.DIFFERENT:
            raise DuplicateTask(f"task {task.id} exists already with other content")
        return Submitted(await self.store.get(task.id) or task, False)

    # -- through -----------------------------------------------------------------------------

    def attempt(self, task: Task, clock: Callable[[], float]) -> Awaitable[Task]:
        """Try to deliver a claimed task; return it as it is to be settled.

        `clock` is the store's time in seconds. Cancelled by a shutdown, the attempt counts as cut
        short.
        """
        return attempt(task, self.producers, self.policy, clock)

    def settled(self, before: Task, after: Task) -> None:
        """Tell the listeners what a settled attempt has come to."""
        last = after.attempts[-1] if after.attempts else None
        if last == (before.attempts or (None,))[-1]:
            last = None  # it was not tried
        if last is not None and last.outcome in FAILURES:
            self.emit(Event("delivery failed", after, last))
        if after.state == State.SUCCEEDED:
            self.emit(Event("task delivered", after, last))
        elif after.dead_letter == "delivered":
            self.emit(Event("dead letter delivered", after, last))
        elif after.leg != before.leg or after.state == State.DEAD:
            self.emit(Event("task dead", after, last))
        else:
            self.emit(Event("retry scheduled", after, last))

    def emit(self, event: Event) -> None:
        """Tell every listener. What one raises goes to stderr: logging may be what failed."""
        for listener in self._listeners:
            try:
                listener(event)
            except Exception:
                traceback.print_exc()

    def store_is(self, use: str, error: StoreUnavailable | None) -> None:
        """Tell once that the store went away, and once that every `use` of it works again.

        Where one use works, the store can be reached; but only settling shows that it settles, and
        only adding that a full one has room again.
        """
        failing = len(self._failing)
        if error is not None:
            self._failing.add("room" if isinstance(error, StoreFull) else use)
            if not failing:
                self.emit(Event("store unavailable", detail=str(error)))
            return
        self._failing = {
            other
            for other in self._failing - {use}
            if other.startswith("working") or (other == "room" and use != "adding")
        }
        if failing and not self._failing:
            self.emit(Event("store back"))

    async def ping(self) -> None:
        """Return if the store answers. Raises StoreUnavailable."""
        try:
            await self.store.ping()
        except StoreUnavailable as error:
            self.store_is("asking", error)
            raise
        self.store_is("asking", None)

    async def aclose(self) -> None:
        """Take nothing more, store what was accepted, and let the outside systems go."""
        self.closed = True
        await self._adding.aclose()
        for producer in self.producers.values():
            await producer.aclose()
        await self.store.aclose()

    # -- for people --------------------------------------------------------------------------

    async def get(self, id_: str) -> Task:
        """The task. Raises NotFound."""
        known = isinstance(id_, str) and id_.isascii()  # as every id is
        task = await self.store.get(id_) if known else None
        if task is None:
            raise NotFound(f"no task {id_} is known")
        return task

    async def find(self, wanted: Filter, *, limit: int = 100, cursor: str | None = None) -> Found:
        """A page of tasks, newest first. Raises ValidationError for a bad limit or cursor."""
        if type(limit) is not int or not 1 <= limit <= 1000:
            raise ValidationError("limit: must be 1 to 1000", field="limit")
        return await self.store.find(wanted, limit=limit, cursor=cursor)

    async def replay(self, id_: str) -> Task:
        """Start a dead or cancelled task afresh. Raises NotFound or WrongState."""
        task = await self._change(id_, Task.replayed)
        self.emit(Event("task scheduled", task))
        return task

    async def cancel(self, id_: str) -> Task:
        """Give up a scheduled task. Raises NotFound, TaskBusy or WrongState."""
        return await self._change(id_, Task.cancelled)

    async def delete(self, id_: str) -> None:
        """Forget a finished task. Raises NotFound or WrongState."""
        while True:
            task = await self.get(id_)
            if task.state not in TERMINAL:
                raise WrongState(f"task {id_} is {task.state}; only a finished one can be deleted")
            if await self.store.swap(task, None):
                return

    async def _change(self, id_: str, change: Callable[[Task, float], Task]) -> Task:
        while True:
            before = await self.get(id_)
            after = change(before, await self.store.time())
            if await self.store.swap(before, after):
                return after
