"""An event loop in a thread of its own, for programs that have none."""

from __future__ import annotations

import asyncio
import atexit
import concurrent.futures
import os
import selectors
import threading
import weakref
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any, Final, TypeVar

from rebound.domain.errors import Closed, ReboundError

Result = TypeVar("Result")


CANCELLING: Final = 1.0
"""Seconds after which what does not let itself be cancelled is left behind."""


class Background:
    """Runs coroutines for any number of threads. A process that was forked starts its own."""

    def __init__(self, name: str, twin: str) -> None:
        """For errors the names of the class that it serves and of its asynchronous twin."""
        self._name = name
        self._twin = twin
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._pid = 0
        self._stop: Callable[[], None] | None = None

    @property
    def running(self) -> bool:
        """True between `start` and `stop` in this process."""
        return self._loop is not None and self._pid == os.getpid()

    def start(self, stop: Callable[[], None]) -> None:
        """Start the loop; `stop` is called at the end of a program that forgets to do so.

        Raises ReboundError inside a running event loop.
        """
        self.refuse_inside_a_loop()
        ready = threading.Event()
        loop = asyncio.new_event_loop()

        def run() -> None:
            asyncio.set_event_loop(loop)
            loop.call_soon(ready.set)
            loop.run_forever()

        self._thread = threading.Thread(target=run, name="rebound-loop", daemon=True)
        self._thread.start()
        ready.wait()
        self._loop, self._pid, self._stop = loop, os.getpid(), stop
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=partial(_cut_off, weakref.ref(loop)))
        atexit.register(stop)

    def call(self, function: Callable[..., Coroutine[Any, Any, Result]], *values: Any) -> Result:
        """What `function` returns or raises, in the loop. An interrupt cancels it.

        Raises ReboundError before the start, after a fork and inside a running event loop.
        """
        with self._lock:  # or `stop` could come between, and nobody would ever answer
            loop = self._usable()
            result = asyncio.run_coroutine_threadsafe(function(*values), loop)
        try:
            return result.result()
        except concurrent.futures.CancelledError:
            raise Closed from None
        except BaseException:
            result.cancel()
            raise

    def stop(self) -> None:
        """End the loop and its thread; calls that are still under way raise Closed."""
        if not self.running or self._loop is None or self._thread is None:
            return
        if self._stop is not None:
            atexit.unregister(self._stop)
        with self._lock:
            loop, self._loop = self._loop, None
        asyncio.run_coroutine_threadsafe(_cancel_the_others(), loop).result()
        loop.call_soon_threadsafe(loop.stop)
        self._thread.join()
        loop.run_until_complete(loop.shutdown_default_executor())
        loop.close()

    def refuse_inside_a_loop(self) -> None:
        """Raise ReboundError where waiting would block a running event loop."""
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            return
        raise ReboundError(
            f"{self._name} would block the running event loop; there use {self._twin}"
        )

    def _usable(self) -> asyncio.AbstractEventLoop:
        self.refuse_inside_a_loop()
        if self._loop is None:
            raise ReboundError(f"{self._name} is not started: use `with`, or call start() first")
        if self._pid != os.getpid():
            raise ReboundError(
                f"{self._name} was started before this process was forked;"
                " call start() in each process, with gunicorn in post_fork"
            )
        return self._loop


def _cut_off(parents: weakref.ref[asyncio.AbstractEventLoop]) -> None:
    """In a forked child: let nothing that it drops or closes, at its end at the latest, be felt.

    The two share one epoll: a connection that goes here would fall silent there.
    """
    loop = parents()
    if isinstance(loop, asyncio.SelectorEventLoop):
        loop._selector = selectors.SelectSelector()  # type: ignore[attr-defined]


async def _cancel_the_others() -> None:
    """Or threads would wait for ever for what the loop does not go on with."""
    others = asyncio.all_tasks() - {asyncio.current_task()}
    for task in others:
        task.cancel()
    if others:
        await asyncio.wait(others, timeout=CANCELLING)
