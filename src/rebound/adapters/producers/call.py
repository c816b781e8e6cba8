"""Delivers the tasks of one `call://` destination to a function of the program."""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections.abc import Awaitable, Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextvars import Context, copy_context
from typing import Any, Final

from rebound.adapters.producers.limits import TimeLimits
from rebound.domain.errors import Abandoned, Deferred, DeliveryError, Reject, Rejected
from rebound.domain.task import Task
from rebound.domain.validation import with_values
from rebound.ports import Receipt

Handler = Callable[[Task], object]
"""Takes a task: an async function, or one that runs in a thread. What it returns is ignored."""
LOG: Final = logging.getLogger("rebound")
TIMEOUT: Final = 300.0
"""Seconds, where the destination names no other time limit."""
PAUSE: Final = 1.0
"""Seconds before a task is looked at again whose function still runs here."""


def is_async(function: Handler) -> bool:
    """Whether it is to be awaited; an object that is called may be, too."""
    called = getattr(function, "__call__", None)  # noqa: B004
    return inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(called)


class CallProducer:
    """A `ports.Producer` for one function.

    An async function is cancelled at its time limit. One in a thread cannot be: its task keeps its
    lease until it returns, and is not started beside itself.
    """

    def __init__(self, name: str, function: Handler, threads: int) -> None:
        """`name` as in `call://name`; at most `threads` run a function that is not async."""
        self._name = name
        self._function: Callable[[Task], Any] = function
        self._async = is_async(function)
        self._threads = threads
        self._pool: ThreadPoolExecutor | None = None
        self._running: set[str] = set()
        self._limits = TimeLimits()

    async def send(self, task: Task, /) -> Receipt:
        """Call the function. Raises DeliveryError, Rejected, Deferred, or Abandoned."""
        limit = task.target.timeout or TIMEOUT
        try:
            if self._async:
                await self._awaited(with_values(task), limit)
            else:
                await self._in_a_thread(with_values(task), limit)
        except Reject as error:
            raise Rejected(str(error)) from error
        except (DeliveryError, Abandoned):
            raise
        except Exception:
            LOG.warning("task %s: call://%s raised", task.id, self._name, exc_info=True)
            raise
        return Receipt()

    async def aclose(self) -> None:
        """Let the threads go: at once, but for one whose function has not returned."""
        pool, self._pool = self._pool, None
        if pool is not None:
            pool.shutdown(wait=not self._running, cancel_futures=True)

    async def _awaited(self, task: Task, limit: float) -> None:
        deadline = self._limits(limit)
        try:
            with deadline:
                try:
                    await self._function(task)
                except (Exception, asyncio.CancelledError, KeyboardInterrupt, GeneratorExit):
                    raise
                except BaseException as error:  # SystemExit would end the event loop, for one
                    raise DeliveryError(f"{type(error).__name__}: {error}") from error
        except TimeoutError as error:
            if deadline.expired:
                raise DeliveryError(f"took longer than {limit:g} s", timed_out=True) from None
            raise DeliveryError(f"TimeoutError: {error}") from error

    def _run(self, job: Future[Any], context: Context, task: Task) -> None:
        """In the thread: let `job` have what the function returns or raises."""
        if not job.set_running_or_notify_cancel():
            return
        try:
            result = context.run(self._function, task)
        except BaseException as error:
            if isinstance(error, Exception) and not isinstance(error, StopIteration):
                job.set_exception(error)
            else:  # asyncio's futures do not take the one; the others would end the event loop
                job.set_exception(DeliveryError(f"{type(error).__name__}: {error}"))
        else:
            job.set_result(result)

    async def _in_a_thread(self, task: Task, limit: float) -> None:
        if task.id in self._running:  # its lease was lost while it went on
            raise Deferred(f"call://{self._name} still runs", retry_after=PAUSE)
        if self._pool is None:
            self._pool = ThreadPoolExecutor(self._threads, f"rebound-call-{self._name}")
        job: Future[Any] = Future()
        self._running.add(task.id)
        job.add_done_callback(lambda _: self._running.discard(task.id))
        try:
            self._pool.submit(self._run, job, copy_context(), task)
        except RuntimeError as error:  # no further thread can be had, or the program ends
            if job.cancel():  # else one that there is has taken it all the same
                raise Deferred(f"call://{self._name}: {error}", retry_after=PAUSE) from None
        result = asyncio.wrap_future(job)
        try:
            await asyncio.wait([result], timeout=limit)
            if not result.done():
                LOG.warning(
                    "task %s: call://%s has not returned after %g s; waiting on",
                    task.id, self._name, limit,
                )  # fmt: skip
                await asyncio.wait([result])
        except asyncio.CancelledError:
            if job.cancel() or job.done():
                raise
            result.add_done_callback(lambda ended: ended.cancelled() or ended.exception())
            raise Abandoned(f"call://{self._name} has not returned") from None
        if isinstance(returned := result.result(), Awaitable):
            if inspect.iscoroutine(returned):
                returned.close()
            raise DeliveryError(f"the handler of call://{self._name} must be an async function")
