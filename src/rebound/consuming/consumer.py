"""`RetryingConsumer`: reads Kafka topics, and what its handler fails on becomes a task."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import inspect
import logging
import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Self

from rebound.consuming.handling import Handling
from rebound.consuming.storing import Storing
from rebound.domain import redelivery
from rebound.domain.destination import Destination
from rebound.domain.errors import ReboundError, ValidationError
from rebound.domain.progress import Partition
from rebound.domain.record import Record
from rebound.domain.redelivery import Redelivery, RetryPolicy
from rebound.domain.task import Task
from rebound.embedded import Rebound
from rebound.settings import kafka as kafka_settings
from rebound.settings import networks, readers

if TYPE_CHECKING:
    from rebound.adapters.consumers.kafka import Poller

Handler = Callable[[Record], Awaitable[object]]
MAX_GROUP: Final = 255
_OURS: Final = (
    "bootstrap.servers", "metadata.broker.list", "group.id", "enable.auto.commit",
    "auto.commit.enable", "enable.auto.offset.store", "on_commit", "error_cb",
)  # fmt: skip
"""Properties that `config` must not have."""
MARGIN: Final = 5.0
"""Seconds beyond the grace after which the poller no longer waits for a loop that is stuck."""


class RetryingConsumer:
    """Hands each record of some topics to a handler; what that raises never blocks the topic.

    Use it with `async with`, or `await run()`. An offset is committed when the handler has
    succeeded on every record before it, or they are stored as tasks: a crash repeats records and
    skips none. Up to `concurrency` records are handled at once, those of a partition with the same
    key in order; a record that comes back has been overtaken by later ones.

    A record whose handler raised comes back to its topic after the policy's delay, with the count
    of failures in its header `rebound-failures`; after `max_retries` failures, or at once when the
    handler raises `Reject`, it goes to the dead topic. Consumers of other groups skip what came
    back because of this one.
    """

    def __init__(
        self,
        rebound: Rebound,
        *,
        group: str,
        topics: Sequence[str] | str,
        handler: Handler,
        brokers: Sequence[str] | str | None = None,
        retry: RetryPolicy | Task | Mapping[str, object] | None = None,
        dead_topic: str | None = None,
        concurrency: int = 64,
        config: Mapping[str, Any] | None = None,
    ) -> None:
        """`brokers` as in `host:9092`, default the setting; `retry` a policy like a Task's.

        `config` are librdkafka properties of a consumer beside those of KAFKA_CONFIG. Without
        `dead_topic` dead records stay in the store. Raises ValidationError.
        """
        call = getattr(handler, "__call__", None)  # noqa: B004 - of an object that is called
        if not inspect.iscoroutinefunction(handler) and not inspect.iscoroutinefunction(call):
            raise ValidationError("handler: must be an async function of a Record", field="handler")
        if not isinstance(concurrency, int) or not 1 <= concurrency <= 100_000:
            raise ValidationError("concurrency: must be 1 to 100000", field="concurrency")
        self._rebound = rebound
        self._topics = _topics(topics, dead_topic)
        self._settings = rebound.config
        self._logger = self._settings.logger or logging.getLogger("rebound")
        servers = _brokers(brokers)
        self._redelivery = Redelivery(
            _group(group), ",".join(servers), redelivery.policy(retry), dead_topic,
            self._settings.all_strategies,
        )  # fmt: skip
        self._check()
        self._properties = _properties(self._settings, config) | {
            "bootstrap.servers": ",".join(servers or self._settings.kafka_brokers),
            "group.id": group,
        }
        self._handler = handler
        self._storing = Storing(rebound, self._redelivery, self._logger)
        self._handling = Handling(self._process, concurrency, self._crash)
        self._poller: Poller | None = None
        self._ended: asyncio.Future[None] | None = None
        self._failure: BaseException | None = None
        self._closed = False

    def _check(self) -> None:
        """Find out now rather than at the first failure whether failures can become tasks."""
        if "kafka" not in self._rebound.engine.producers:
            raise ValidationError(
                "RetryingConsumer needs an extra: pip install 'rebound-retry[kafka]'"
            )
        self._redelivery.check([t for t in self._topics if not t.startswith("^")] or ["any"])
        to = Destination(url=f"kafka://{self._redelivery.brokers}/any")
        if why := networks.refusal(self._settings)(to):
            raise ValidationError(f"brokers: {why}", field="brokers")

    # -- life --------------------------------------------------------------------------------

    async def start(self) -> None:
        """Join the group and begin. Raises ValidationError for `config` that is not valid."""
        if self._poller is not None:
            return
        from rebound.adapters.consumers.kafka import Poller

        loop = asyncio.get_running_loop()
        self._ended = loop.create_future()
        grace = self._settings.shutdown_grace
        calls = _Calls(loop, self._handling, self._ended, grace)
        try:
            self._poller = Poller(self._properties, self._topics, calls, self._logger)
        except ValueError as error:
            raise ValidationError(f"config: {error}", field="config") from None
        self._poller.start()
        self._logger.info("consumer started", extra={"source": self._redelivery.group})

    async def run(self) -> None:
        """Consume until cancelled, or closed. Raises what else ends it."""
        await self.start()
        assert self._ended is not None
        try:
            await asyncio.shield(self._ended)
        finally:
            await self.close()
        self._raise()

    async def close(self) -> None:
        """Finish what is under way within the grace, commit, and leave. Can be repeated."""
        if self._poller is None or self._ended is None:
            return
        self._poller.stop()
        with contextlib.suppress(Exception):  # `run` and `async with` raise it
            await asyncio.shield(self._ended)
        self._poller.join()
        if not self._closed:
            self._closed = True
            self._logger.info("consumer stopped", extra={"source": self._redelivery.group})

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()
        if error is None:
            self._raise()

    def _raise(self) -> None:
        if self._failure is not None:
            raise self._failure
        if self._ended is not None and self._ended.done():
            self._ended.result()

    def _crash(self, error: BaseException) -> None:
        """What cannot be stored must not be committed either: the consumer ends."""
        if self._failure is None and self._poller is not None:
            self._failure = error
            self._logger.error("consumer failed", extra={"error": _said(error)})
            self._poller.stop()

    # -- one record --------------------------------------------------------------------------

    async def _process(self, record: Record) -> None:
        if self._redelivery.is_foreign(record):
            return
        try:
            await self._handler(record)
        except Exception as error:
            failure: BaseException = error
        except asyncio.CancelledError as error:
            current = asyncio.current_task()
            if current is None or current.cancelling():
                raise
            failure = error
        else:
            return
        await self._storing.store(record, failure)


class _Calls:
    """What the poller's thread tells the event loop."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        handling: Handling,
        end: asyncio.Future[None],
        grace: float,
    ) -> None:
        self._loop = loop
        self._handling = handling
        self._end = end
        self._grace = grace

    def records(self, batch: Sequence[tuple[Partition, Record]]) -> None:
        self._loop.call_soon_threadsafe(self._handling.take, batch)

    def drain(self, partitions: Sequence[Partition], *, lost: bool) -> None:
        draining = self._handling.drain(partitions, self._grace, lost=lost)
        try:
            done = asyncio.run_coroutine_threadsafe(draining, self._loop)
        except RuntimeError:  # the loop is closed, and everything in it over
            draining.close()
            return
        with contextlib.suppress(concurrent.futures.TimeoutError):
            done.result(self._grace + MARGIN)

    def ended(self, error: BaseException | None) -> None:
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._end_with, error)

    def _end_with(self, error: BaseException | None) -> None:
        if self._end.done():
            return
        if error is None:
            self._end.set_result(None)
        else:
            self._end.set_exception(ReboundError(f"the consumer ended: {_said(error)}"))


def _said(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}"


def _group(given: str) -> str:
    if not isinstance(given, str) or not 1 <= len(given) <= MAX_GROUP or not given.isprintable():
        raise ValidationError(
            f"group: must have 1 to {MAX_GROUP} characters, no control characters", field="group"
        )
    return given


def _brokers(given: Sequence[str] | str | None) -> tuple[str, ...]:
    """Empty for those of the setting."""
    if given is None:
        return ()
    try:
        return readers.brokers(given)
    except ValueError as error:
        raise ValidationError(f"brokers: {error}", field="brokers") from None


def _topics(given: Sequence[str] | str, dead_topic: str | None) -> list[str]:
    topics = [given] if isinstance(given, str) else list(given)
    if not topics or not all(isinstance(t, str) and t for t in topics):
        raise ValidationError("topics: must be a list of names", field="topics")
    for topic in topics:
        if not topic.startswith("^"):
            Destination(url=f"kafka:///{topic}").check("topics")
        same = re.search(topic, dead_topic or "") if topic.startswith("^") else topic == dead_topic
        if dead_topic and same:
            raise ValidationError(
                f"dead_topic: {dead_topic!r} is one of the topics, so nothing would leave them",
                field="dead_topic",
            )
    return topics


def _properties(settings: Any, given: Mapping[str, Any] | None) -> dict[str, Any]:
    from_settings = kafka_settings.security(settings)
    for name in _OURS:
        if name in (given or {}):
            raise ValidationError(f"config: must not have {name}", field="config")
    return {**from_settings, **(given or {})}
