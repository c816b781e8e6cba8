"""The client for programs without an event loop."""

from __future__ import annotations

import threading
from collections.abc import Callable, Coroutine, Iterable
from functools import partial
from types import TracebackType
from typing import Any, Self, TypeVar

from rebound.background import Background
from rebound.client.asynchronous import AsyncClient
from rebound.domain.errors import Closed
from rebound.domain.task import Task
from rebound.ports import Found

Result = TypeVar("Result")


class Client:
    """An `AsyncClient` for programs without an event loop, for any number of threads.

    Use it with `with`, or call `close`. Processes that are forked may go on with it.
    """

    def __init__(
        self,
        url: str = "http://localhost:8080",
        *,
        api_key: str | None = None,
        timeout: float = 30.0,
        retries: int = 3,
    ) -> None:
        """As `AsyncClient`. Raises ValidationError."""
        self._make = partial(AsyncClient, url, api_key=api_key, timeout=timeout, retries=retries)
        self._client = self._make()
        self._background = Background("Client", "AsyncClient")
        self._starting = threading.Lock()
        self._closed = False
        self._of_parent: list[object] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections. Can be repeated."""
        self._background.refuse_inside_a_loop()
        with self._starting:
            self._closed = True
            if self._background.running:
                self._background.call(self._client.close)
                self._background.stop()

    def create_task(self, task: Task) -> Task:
        """See `AsyncClient.create_task`."""
        return self._call(AsyncClient.create_task, task)

    def create_tasks(self, tasks: Iterable[Task]) -> list[Task]:
        """See `AsyncClient.create_tasks`."""
        return self._call(AsyncClient.create_tasks, list(tasks))

    def get_task(self, id_: str) -> Task | None:
        """See `AsyncClient.get_task`."""
        return self._call(AsyncClient.get_task, id_)

    def find(self, **wanted: Any) -> Found:
        """See `AsyncClient.find`."""
        return self._call(partial(AsyncClient.find, **wanted))

    def replay(self, id_: str) -> Task:
        """See `AsyncClient.replay`."""
        return self._call(AsyncClient.replay, id_)

    def cancel(self, id_: str) -> Task:
        """See `AsyncClient.cancel`."""
        return self._call(AsyncClient.cancel, id_)

    def delete(self, id_: str) -> None:
        """See `AsyncClient.delete`."""
        self._call(AsyncClient.delete, id_)

    def _call(
        self, function: Callable[..., Coroutine[Any, Any, Result]], *values: object
    ) -> Result:
        with self._starting:
            if self._closed:
                raise Closed
            if not self._background.running:  # not yet, or not in this process
                # What a parent opened is the parent's: to drop it would end its connections.
                self._of_parent += [self._client, self._background]
                self._client = self._make()
                self._background = Background("Client", "AsyncClient")
                self._background.start(self.close)
        return self._background.call(function, self._client, *values)
