"""`Kit`: the real engine, worker and SQLite store under a clock and destinations of the test."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Coroutine
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType
from typing import Any, Final, NamedTuple, Self

from rebound.domain import durations
from rebound.domain.attempt import DeadLetter
from rebound.domain.errors import Closed, NotFound, ValidationError
from rebound.embedded import Rebound
from rebound.ports import Event, Listener
from rebound.settings import SETTINGS, Config
from rebound.testing.script import Answer, Script
from rebound.testing.wire import Sent, Wire
from rebound.worker import Limits, Worker

START: Final = 1_800_000_000.0
"""When every test begins: 2027-01-15 08:00 UTC."""
FORGOTTEN_AT_ONCE: Final = 100
"""Finished tasks that one look of a worker forgets at most."""


class Clock:
    """Stands still until it is moved. Seconds since the epoch."""

    def __init__(self) -> None:
        self.now = START

    def __call__(self) -> float:
        return self.now


class Step(NamedTuple):
    """One entry of a time line; equal to the tuple `(at, what)`."""

    at: float
    """Seconds since the task was created."""
    what: int | str
    """The status that an attempt got, or its outcome where it got none (`timeout`, `failed`); why
    the main leg ended (`exhausted`, `expired`, `rejected`, `crashed`); `dead letter failed`; or
    `lease lost`."""


class Kit:
    """`rebound` is to be handed to the program under test; nothing is delivered by itself.

    Used with `with`, also in asynchronous tests. Only the clock and the destinations are not real:
    time passes in `fast_forward`, and attempts take none.
    """

    def __init__(self, config: Config | None = None) -> None:
        """`config` is the program's own; its store, session and clock are replaced."""
        config = config if config is not None else Config()
        self.clock = Clock()
        self._wire = Wire(self.clock)
        self._steps: dict[str, list[Step]] = {}
        self._told = config.on_event
        self.rebound = Rebound(_apart(config, self.clock, self._wire, self._hear), worker=False)
        self.rebound.any_loop = True  # a test's and a server's under test take turns
        engine = self.rebound.engine
        if "kafka" in engine.producers:
            engine.producers = {**engine.producers, "kafka": self._wire}

    def __enter__(self) -> Self:
        _run(self.rebound.start())
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        _run(self.rebound.close())

    def script(self, url: str, *answers: int | Answer | Exception) -> None:
        """Let `url` answer so: each message gets all of it in turn, and then the last for ever.

        An answer is a status, an `Answer`, or what the connection raises, such as
        `TimeoutError()`. It replaces what was said before. Without a script a destination answers
        200. Raises ValidationError.
        """
        self._wire.script(url, Script(*answers))

    async def fast_forward(self, duration: str | float) -> None:
        """Let the time pass: `"3d"`, `"1h30m"` or seconds; `0` delivers what is due now.

        The clock stops wherever something is due, the worker does all that there is to do, and so
        on to the end. Raises ValidationError, or Closed.
        """
        target = self.clock.now + _seconds(duration)
        if self.rebound.engine.closed:
            raise Closed
        worker = self._worker()
        while (due := await worker.work_off()) is not None and due <= target:
            self.clock.now = due
        self.clock.now = target
        for _ in range(1 + len(self._steps) // FORGOTTEN_AT_ONCE):
            await worker.work_off()

    def timeline(self, id_: str) -> list[Step]:
        """What happened to the task, oldest first. Raises NotFound for one never created here."""
        if id_ not in self._steps:
            raise NotFound(f"no task {id_} was created; known are: {', '.join(self._steps)}")
        return list(self._steps[id_])

    def sent(self, url: str) -> list[Sent]:
        """What arrived at `url`, in order. Raises ValidationError for what is no URL."""
        return self._wire.sent(url)

    def _worker(self) -> Worker:
        """A new one each time: it needs no loop of its own, and what it knows is in the store."""
        config, engine = self.rebound.config, self.rebound.engine
        limits = Limits(
            concurrency=config.concurrency,
            lane_concurrency=config.lane_concurrency,
            lease=config.lease,
        )
        return Worker(engine, [*engine.producers], limits, self.clock)

    def _hear(self, event: Event) -> None:
        task = event.task
        if task is not None and task.created_at is not None:
            steps = self._steps.setdefault(task.id, [])
            if (what := _what(event)) is not None:
                steps.append(Step(round(self.clock.now - task.created_at, 3), what))
        if self._told is not None:
            self._told(event)


def _what(event: Event) -> int | str | None:
    """The event in one word of a time line; None for those that have no step of their own."""
    match event.kind:
        case "lease lost":
            return "lease lost"
        case "task dead":
            assert event.task is not None
            failed = event.task.dead_letter == DeadLetter.FAILED
            return "dead letter failed" if failed else str(event.task.dead_reason)
        case "delivery failed" | "task delivered" | "dead letter delivered":
            assert event.attempt is not None
            return event.attempt.status or str(event.attempt.outcome)
        case _:
            return None


def _apart(config: Config, clock: Clock, wire: Any, hear: Listener) -> Config:
    """The settings of the program, away from its store, its network and its time."""
    redis: dict[str, Any] = {name: None for name in SETTINGS if name.startswith("redis_")}
    return dataclasses.replace(
        config, **redis, redis=None, store_url="sqlite://:memory:", clock=clock, session=wire,
        on_event=hear,
    )  # fmt: skip


def _seconds(duration: str | float) -> float:
    try:
        length = durations.seconds(duration) if isinstance(duration, str) else float(duration)
    except (TypeError, ValueError) as error:
        raise ValidationError(f"fast_forward: {error}", field="duration") from None
    if not 0 <= length < float("inf"):
        raise ValidationError(f"fast_forward: {duration!r} is not 0 or more", field="duration")
    return length


def _run(work: Coroutine[Any, Any, None]) -> None:
    """Run it to its end in a loop of its own: there may or may not be one in this thread."""
    with ThreadPoolExecutor(1) as apart:
        apart.submit(asyncio.run, work).result()
