"""`SyncRebound`: the embedded package for programs without an event loop."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Coroutine, Iterable
from functools import partial
from types import TracebackType
from typing import Any, Self, TypeVar

from rebound.background import Background
from rebound.domain.attempt import State
from rebound.domain.errors import Closed
from rebound.domain.task import Task
from rebound.embedded import Function, Rebound
from rebound.ports import Found
from rebound.settings import Config

Result = TypeVar("Result")


class SyncRebound:
    """A `Rebound` in a background thread, with the same methods, for any number of threads.

    Use it with `with`, or call `start` and `close`. After a fork every process that uses it calls
    `start` itself. Inside a running event loop use `Rebound`.
    """

    def __init__(self, config: Config | None = None, *, worker: bool = True) -> None:
        """As `Rebound`. Raises ValidationError."""
        self._rebound = Rebound(config, worker=worker)
        self._worker = worker
        self._background = Background("SyncRebound", "Rebound")
        self._starting = threading.Lock()
        self._closed = False
        self._made_in = os.getpid()
        self._of_parent: list[object] = []
        self._handlers: dict[str, Callable[[Task], object]] = {}

    def start(self) -> None:
        """Open the store and begin to work, in this process. Raises what `Rebound.start` does."""
        with self._starting:
            if self._closed:
                raise Closed
            if self._background.running:
                return
            if self._made_in != os.getpid():
                # What the parent opened is the parent's: it is kept untouched, never closed.
                self._of_parent += [self._rebound, self._background]
                self._rebound = self._made_anew()
                self._background = Background("SyncRebound", "Rebound")
                self._made_in = os.getpid()
            self._background.start(self.close)
            try:
                self._background.call(self._rebound.start)
            except BaseException:
                self._background.call(self._rebound.close)
                self._background.stop()
                self._rebound = self._made_anew()
                raise

    def _made_anew(self) -> Rebound:
        made = Rebound(self._rebound.config, worker=self._worker)
        for name, function in self._handlers.items():
            made.handler(name)(function)
        return made

    def handler(self, name: str) -> Callable[[Function], Function]:
        """See `Rebound.handler`."""

        def register(function: Function) -> Function:
            self._rebound.handler(name)(function)
            self._handlers[name] = function
            return function

        return register

    def close(self) -> None:
        """Finish what is under way within the grace, then let everything go. Can be repeated."""
        self._background.refuse_inside_a_loop()
        with self._starting:
            self._closed = True
            if self._background.running:
                self._background.call(self._rebound.close)
                self._background.stop()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    # -- tasks -------------------------------------------------------------------------------

    def check(self, task: Task) -> None:
        """See `Rebound.check`."""
        self._rebound.check(task)

    def create_task(self, task: Task) -> Task:
        """See `Rebound.create_task`."""
        return self._call(self._rebound.create_task, task)

    def create_tasks(self, tasks: Iterable[Task]) -> list[Task]:
        """See `Rebound.create_tasks`."""
        return self._call(self._rebound.create_tasks, list(tasks))

    def get_task(self, id_: str) -> Task | None:
        """See `Rebound.get_task`."""
        return self._call(self._rebound.get_task, id_)

    def find(
        self,
        *,
        state: State | str | None = None,
        leg: str | None = None,
        source: str | None = None,
        client_id: str | None = None,
        limit: int = 100,
        cursor: str | None = None,
    ) -> Found:
        """See `Rebound.find`."""
        return self._call(
            partial(
                self._rebound.find,
                state=state,
                leg=leg,
                source=source,
                client_id=client_id,
                limit=limit,
                cursor=cursor,
            )
        )

    def replay(self, id_: str) -> Task:
        """See `Rebound.replay`."""
        return self._call(self._rebound.replay, id_)

    def cancel(self, id_: str) -> Task:
        """See `Rebound.cancel`."""
        return self._call(self._rebound.cancel, id_)

    def delete(self, id_: str) -> None:
        """See `Rebound.delete`."""
        self._call(self._rebound.delete, id_)

    def _call(
        self, function: Callable[..., Coroutine[Any, Any, Result]], *values: object
    ) -> Result:
        if self._closed:
            raise Closed
        return self._background.call(function, *values)
