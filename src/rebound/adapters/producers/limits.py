"""Time limits of the attempts under way, all on one timer of the event loop."""

from __future__ import annotations

import asyncio
import math
from types import TracebackType
from typing import Any, Self


class TimeLimits:
    """Makes time limits that cost little where they are hardly ever reached.

    `asyncio.timeout` sets a timer for each and takes it back, which is most of what it costs.
    """

    def __init__(self) -> None:
        # By their length: those of one length end in the order in which they began.
        self._running: dict[float, dict[TimeLimit, float]] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._rings_at = math.inf
        self._loop: asyncio.AbstractEventLoop | None = None

    def __call__(self, seconds: float) -> TimeLimit:
        """For one `with`."""
        return TimeLimit(self, seconds)

    def begin(self, one: TimeLimit) -> None:
        """From now on."""
        loop = asyncio.get_running_loop()
        if loop is not self._loop:  # another has ended, and its timer rings for nobody any more
            self._loop, self._running, self._timer, self._rings_at = loop, {}, None, math.inf
        at = loop.time() + one.seconds
        alike = self._running.get(one.seconds)
        if alike is None:
            alike = self._running[one.seconds] = {}
        alike[one] = at
        if at < self._rings_at:
            self._ring_at(at)

    def end(self, one: TimeLimit) -> None:
        """What it limits is over. The timer stays: it finds nothing, or sets itself anew."""
        alike = self._running.get(one.seconds)
        if alike is None or alike.pop(one, None) is None:
            return  # it was left behind in another loop
        if not alike:
            del self._running[one.seconds]

    def _ring_at(self, at: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._rings_at = at
        self._timer = asyncio.get_running_loop().call_at(at, self._ring)

    def _ring(self) -> None:
        now, following = asyncio.get_running_loop().time(), math.inf
        for alike in self._running.values():
            for one, at in alike.items():
                if at > now:
                    following = min(following, at)
                    break
                one.expire()
        self._timer, self._rings_at = None, math.inf
        if following < math.inf:
            self._ring_at(following)


class TimeLimit:
    """Raises TimeoutError, as `asyncio.timeout` does, where its block takes longer."""

    __slots__ = ("_cancelling", "_limits", "_task", "expired", "seconds")

    def __init__(self, limits: TimeLimits, seconds: float) -> None:
        self.seconds = seconds
        self.expired = False
        self._limits = limits

    def __enter__(self) -> Self:
        task = asyncio.current_task()
        assert task is not None
        self._task: asyncio.Task[Any] = task
        self._cancelling = task.cancelling()
        self._limits.begin(self)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._limits.end(self)
        # Somebody else may have cancelled the task as well: then it stays cancelled.
        if (
            self.expired
            and self._task.uncancel() <= self._cancelling
            and isinstance(error, asyncio.CancelledError)
        ):
            raise TimeoutError from error

    def expire(self) -> None:
        """End what it limits, once."""
        if not self.expired:
            self.expired = True
            self._task.cancel()
