"""Receivers that answer as a test says, a store that is away when told, and what was heard."""

from __future__ import annotations

import asyncio
import inspect
from collections import Counter
from collections.abc import Callable
from typing import Any

from rebound.domain.attempt import State
from rebound.domain.errors import StoreUnavailable
from rebound.domain.task import Task
from rebound.engine import Engine
from rebound.ports import Event, Receipt, Store
from tests.support import claimed

Answer = Receipt | BaseException | Callable[[Task], Any] | None


class Receiver:
    """A `ports.Producer`: gives its answers in turn, the last one for ever.

    A Receipt or None is a delivery, an exception is raised, a function is called with the task
    and awaited where it gives something to await.
    """

    def __init__(self, *answers: Answer) -> None:
        self.answers = list(answers)
        self.sent: list[Task] = []
        self.under_way = 0
        self.most = 0
        self.closed = False

    async def send(self, task: Task, /) -> Receipt:
        self.sent.append(task)
        self.under_way += 1
        self.most = max(self.most, self.under_way)
        try:
            return await self._answer(task)
        finally:
            self.under_way -= 1

    async def _answer(self, task: Task) -> Receipt:
        answer: Any = self.answers[0] if self.answers else None
        if len(self.answers) > 1:
            del self.answers[0]
        if callable(answer):
            answer = answer(task)
            if inspect.isawaitable(answer):
                answer = await answer
        if isinstance(answer, BaseException):
            raise answer
        return answer or Receipt(200, "ok")

    async def aclose(self) -> None:
        self.closed = True

    @property
    def ids(self) -> list[str]:
        return [task.id for task in self.sent]


async def hanging(_: Task) -> None:
    """An answer that never comes."""
    await asyncio.Event().wait()


class Gate:
    """An answer that comes when the gate is opened."""

    def __init__(self) -> None:
        self.open = asyncio.Event()

    async def __call__(self, _: Task) -> None:
        await self.open.wait()


class Heard:
    """A listener that remembers."""

    def __init__(self) -> None:
        self.events: list[Event] = []

    def __call__(self, event: Event) -> None:
        self.events.append(event)

    @property
    def kinds(self) -> list[str]:
        return [event.kind for event in self.events]

    def of(self, id_: str) -> list[str]:
        return [event.kind for event in self.events if event.task and event.task.id == id_]


class FarStore:
    """A store in front of another, of which calls wait, fail or break by their name."""

    def __init__(self, store: Store) -> None:
        self.behind = store
        self.away: set[str] = set()
        """These raise StoreUnavailable."""
        self.slow: dict[str, asyncio.Event] = {}
        """These wait first."""
        self.breaks: dict[str, Callable[[Any], bool]] = {}
        """These raise another error where their first argument is such."""
        self.calls: list[str] = []
        self.under_way: Counter[str] = Counter()
        """How many there are of each now: time that passes in a claim makes its tasks late."""

    def __getattr__(self, name: str) -> Any:
        method = getattr(self.behind, name)
        if not inspect.iscoroutinefunction(method):
            return method

        async def call(*values: Any, **named: Any) -> Any:
            self.calls.append(name)
            self.under_way[name] += 1
            try:
                if name in self.slow:
                    await self.slow[name].wait()
                if name in self.away:
                    raise StoreUnavailable("the store is away")
                if name in self.breaks and self.breaks[name](values[0]):
                    raise ValueError(f"{name} broke")
                return await method(*values, **named)
            finally:
                self.under_way[name] -= 1

        return call


async def deliver(engine: Engine, clock: Callable[[], float]) -> list[Task]:
    """What a worker does once, without its loop: claim, attempt, settle, tell."""
    settled = []
    for task in await claimed(engine.store, kinds=[*engine.producers]):
        after = await engine.attempt(task, clock)
        assert await engine.store.settle([after]) == []
        engine.settled(task, after)
        settled.append(after)
    return settled


async def deliver_all(engine: Engine, clock: Any, id_: str) -> Task:
    """Deliver and let the time pass until the task has ended."""
    while (task := await engine.get(id_)).state == State.SCHEDULED:
        clock.advance(max(0.0, (task.due_at or 0) - clock()))
        assert await deliver(engine, clock)
    return task


async def state(engine: Engine, id_: str) -> State | None:
    return (await engine.get(id_)).state


async def ended(engine: Engine, id_: str) -> Task:
    """The task, when a worker has brought it to its end."""
    async with asyncio.timeout(20):
        while (found := await engine.get(id_)).state in (State.SCHEDULED, State.DELIVERING):
            await asyncio.sleep(0.002)
    return found


def others_than(known: set[asyncio.Task[Any]]) -> set[asyncio.Task[Any]]:
    """What else runs in this loop."""
    return asyncio.all_tasks() - known - {asyncio.current_task()}  # type: ignore[operator]
