"""`Rebound`: the embedded package, and what the service is built around."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Iterable
from types import TracebackType
from typing import Self, TypeVar

from msgspec import UNSET
from msgspec.structs import replace

from rebound import wiring
from rebound.adapters.listeners.log import LogListener, guarded
from rebound.adapters.producers.call import CallProducer, Handler
from rebound.attempting import Policy
from rebound.crew import Crew
from rebound.domain import drafts, validation
from rebound.domain.attempt import Leg, State
from rebound.domain.destination import Place, place
from rebound.domain.drafts import Draft
from rebound.domain.errors import Closed, NotFound, ReboundError, ValidationError
from rebound.domain.task import Task
from rebound.engine import Engine, Submitted
from rebound.ports import Event, Filter, Found, Listener
from rebound.settings import Config, networks
from rebound.worker import Limits


class Rebound:
    """Stores tasks and, unless told otherwise, delivers them in the running event loop.

    Use it with `async with`, or call `start` and `close`. After `close` no thread, task or socket
    of it is left.
    """

    def __init__(self, config: Config | None = None, *, worker: bool = True) -> None:
        """With `worker` False it only submits; other processes on the same store deliver.

        Raises ValidationError for settings that contradict each other or need an extra.
        """
        self.config = config if config is not None else Config()
        logger = self.config.logger or logging.getLogger("rebound")
        listeners: list[Listener] = [LogListener(logger)]
        if self.config.on_event is not None:
            listeners.append(guarded(self.config.on_event, logger))
        self.engine = Engine(
            wiring.make_store(self.config, self.config.clock or time.time),
            wiring.make_producers(self.config),
            Policy(
                max_payload=self.config.max_payload_bytes,
                dead_letter_ttl=self.config.dead_letter_ttl,
                retry_after_max=self.config.retry_after_max,
                strategies=self.config.all_strategies,
            ),
            listeners,
            wiring.missing(self.config, worker=worker),
            networks.refusal(self.config),
        )
        self.engine.closed = True
        self._with_worker = worker
        self._crew: Crew | None = None
        self._closed = False
        self._starting = asyncio.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self.any_loop = False
        self.draining = False

    def handler(self, name: str) -> Callable[[Function], Function]:
        """Decorate the function that takes the tasks of `call://name`, before the start.

        It gets the Task. An async function runs in the event loop, another one in a thread. What it
        raises is a failed attempt; `Retry` and `Reject` say what follows. Raises ValidationError.
        """
        served = _handler_place(name).served_by

        def register(function: Function) -> Function:
            wrong = None
            if not callable(function):
                wrong = "is not callable"
            elif served in self.engine.producers:
                wrong = "is registered already"
            elif self._crew is not None:
                wrong = "must be registered before the start"
            if wrong:
                raise ValidationError(f"handler {name!r}: {wrong}", field="handler")
            producer = CallProducer(name, function, self.config.concurrency)
            self.engine.producers = {**self.engine.producers, served: producer}
            return function

        return register

    # -- life --------------------------------------------------------------------------------

    async def start(self) -> None:
        """Open the store and begin to work.

        Raises StoreUnavailable where waiting may help, StoreUnusable where it will not; Closed
        after `close`.
        """
        async with self._starting:
            if self.engine.closed:
                await self._open()

    async def _open(self) -> None:
        warnings = () if self._closed else await self.engine.store.open()
        if self._closed:  # perhaps while the store was opened
            raise Closed
        for warning in warnings:
            self.engine.emit(Event("store not durable", detail=warning))
        self.engine.closed = False
        self._loop = asyncio.get_running_loop()
        if self._with_worker:
            self._crew = Crew(self.engine, self._budgets(), self.config.clock or time.monotonic)
            self._crew.start()

    def _budgets(self) -> dict[tuple[str, ...], Limits]:
        """Records under way to Kafka wait for a batch, not for a receiver: they have their own."""
        config = self.config
        limits = Limits(
            concurrency=config.concurrency,
            lane_concurrency=config.lane_concurrency,
            lease=config.lease,
            poll_interval=config.poll_interval,
            grace=config.shutdown_grace,
        )
        most = config.kafka_concurrency
        records = limits._replace(concurrency=most, lane_concurrency=most)
        others = tuple(kind for kind in self.engine.producers if kind != "kafka")
        budgets = {others: limits}
        if "kafka" in self.engine.producers:
            budgets["kafka",] = records
        return budgets

    async def drain(self) -> None:
        """Claim nothing more and finish what is under way within the grace; still takes tasks."""
        self.begin_drain()
        if self._crew is not None:
            await self._crew.drain()
            self._crew = None

    async def close(self) -> None:
        """Finish what is under way within the grace, then let everything go. Can be repeated."""
        self._closed = True
        try:
            await self.drain()
        finally:
            await self.engine.aclose()

    def begin_drain(self) -> None:
        """Say by `ready_error` that this instance is going away."""
        self.draining = True

    def ready_error(self) -> str | None:
        """Why this instance should get no requests, or None. Does not ask the store."""
        if self.draining:
            return "shutting down"
        if self.engine.closed:
            return f"{self.engine.store.name} is not connected yet"
        return None

    async def __aenter__(self) -> Self:
        try:
            await self.start()
        except BaseException:
            await self.close()
            raise
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()

    # -- tasks -------------------------------------------------------------------------------

    def check(self, task: Task) -> None:
        """Raise what `create_task` would for a task that is not valid. Nothing is stored."""
        self.engine.check(drafts.of_python(task).task())

    async def create_task(self, task: Task) -> Task:
        """Store a task; it is safe when this returns. Answers the stored task.

        With a known id and the same content it answers what is stored. Raises ValidationError,
        DuplicateTask (same id, other content), StoreUnavailable or Closed.
        """
        draft = drafts.of_python(task)
        self._require_open()
        return _answered(await self.engine.submit(draft), draft)

    async def create_tasks(self, tasks: Iterable[Task]) -> list[Task]:
        """Store many in few round trips; answers them in order.

        Raises the first error; the valid ones are stored all the same.
        """
        checked: list[Draft | ReboundError] = []
        for task in tasks:
            try:
                checked.append(drafts.of_python(task))
            except ValidationError as error:
                checked.append(error)
        self._require_open()
        stored = []
        for draft, result in zip(checked, await self.engine.submit_many(checked), strict=True):
            if isinstance(result, ReboundError):
                raise result
            assert isinstance(draft, Draft)  # an error that goes in comes out
            stored.append(_answered(result, draft))
        return stored

    async def get_task(self, id_: str) -> Task | None:
        """The task, or None where the id is unknown. Raises StoreUnavailable."""
        self._require_open()
        try:
            return validation.with_values(await self.engine.get(id_))
        except NotFound:
            return None

    async def find(
        self,
        *,
        state: State | str | None = None,
        leg: str | None = None,
        source: str | None = None,
        client_id: str | None = None,
        limit: int = 100,
        cursor: str | None = None,
    ) -> Found:
        """A page of tasks, newest first; hand its `cursor` in again for the next one.

        `limit` 1-1000. Raises ValidationError, StoreUnavailable.
        """
        self._require_open()
        wanted = Filter(_one_of(State, state), _one_of(Leg, leg), source, client_id)
        page = await self.engine.find(wanted, limit=limit, cursor=cursor)
        return Found([validation.with_values(task) for task in page.tasks], page.cursor)

    async def replay(self, id_: str) -> Task:
        """Start a dead or cancelled task afresh, due at once. Raises NotFound or WrongState."""
        self._require_open()
        return validation.with_values(await self.engine.replay(id_))

    async def cancel(self, id_: str) -> Task:
        """Give up a scheduled task. Raises NotFound, or WrongState (TaskBusy while delivering)."""
        self._require_open()
        return validation.with_values(await self.engine.cancel(id_))

    async def delete(self, id_: str) -> None:
        """Forget a finished task. Raises NotFound or WrongState."""
        self._require_open()
        await self.engine.delete(id_)

    def _require_open(self) -> None:
        if self.engine.closed:
            raise Closed
        loop, own = asyncio.get_running_loop(), self._loop
        if loop is not own and not self.any_loop:
            ended = own is None or own.is_closed()
            if not ended or self._crew is not None or self.config.store_kind != "sqlite":
                raise ReboundError(
                    "this Rebound was started in another event loop and works only there; start"
                    " one in each, or use SyncRebound"
                )
            self._loop = loop


def _answered(submitted: Submitted, draft: Draft) -> Task:
    """The stored task with its message as the caller gave it."""
    task = submitted.task
    if not submitted.created or draft.value is UNSET:
        return validation.with_values(task)
    return task if draft.value is task.message_data else replace(task, message_data=draft.value)


def _handler_place(name: str) -> Place:
    try:
        return place(f"call://{name}")
    except ValidationError:
        raise ValidationError(
            f"handler {name!r}: must be 1 to 255 visible ASCII characters without slash, ? and #",
            field="handler",
        ) from None


Word = TypeVar("Word", State, Leg)
Function = TypeVar("Function", bound=Handler)


def _one_of(words: type[Word], text: str | None) -> Word | None:
    try:
        return None if text is None else words(text)
    except ValueError:
        field = words.__name__.lower()
        known = ", ".join(words)
        raise ValidationError(f"{field}: {text!r} is none of {known}", field=field) from None
