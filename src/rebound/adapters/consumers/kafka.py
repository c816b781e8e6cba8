"""One librdkafka consumer, and the thread that drives it."""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Mapping, Sequence
from typing import Any, Final, Protocol

from confluent_kafka import (
    TIMESTAMP_NOT_AVAILABLE,
    Consumer,
    KafkaError,
    KafkaException,
    Message,
    TopicPartition,
)

from rebound.domain.progress import Partition
from rebound.domain.record import Record, record

DEFAULTS: Final[Mapping[str, Any]] = {
    "auto.offset.reset": "earliest",  # a new group misses nothing
    "partition.assignment.strategy": "cooperative-sticky",
    "reconnect.backoff.max.ms": 1000,
    "client.id": "rebound",
    "log_level": 0,  # what librdkafka would write to stderr is logged by error_cb
}
BATCH: Final = 500
PATIENCE: Final = 0.1
"""Seconds that a poll waits for a record."""
SHORT: Final = 0.005
"""The same while partitions are paused, so that they go on as soon as there is room."""
PAUSE_AFTER: Final = 0.2
"""Seconds that a full partition gets to make room: for less a pause, which throws away what has
been fetched ahead, costs more than it is worth."""
COMMIT_EVERY: Final = 1.0
BREATH: Final = 0.002
"""Seconds between two looks for room."""
REPEAT_AFTER: Final = 30.0
"""Seconds after which the same trouble is told again."""

REBALANCING: Final = (KafkaError.ILLEGAL_GENERATION, KafkaError.REBALANCE_IN_PROGRESS)
"""Why a commit may fail that works a moment later."""

Batch = list[tuple[Partition, Record]]


class Loop(Protocol):
    """Whom the poller tells. It calls these in its own thread."""

    def records(self, batch: Batch, /) -> None:
        """Handle these."""
        ...

    def drain(self, partitions: Sequence[Partition], /, *, lost: bool) -> None:
        """Begin nothing more of these, and return when nothing of them is under way.

        `lost`: others have them already.
        """
        ...

    def ended(self, error: BaseException | None, /) -> None:
        """The thread ends, because of `error` or because it was stopped."""
        ...


class Poller:
    """Reads the topics as a member of a group. Made in one thread, runs in another."""

    def __init__(
        self,
        properties: Mapping[str, Any],
        topics: Sequence[str],
        loop: Loop,
        logger: logging.Logger,
    ) -> None:
        """Raises ValueError for properties that librdkafka refuses, with what it says."""
        self._loop = loop
        self._logger = logger
        self._topics = list(topics)
        self._partitions: dict[tuple[str, int], Partition] = {}
        self._paused = False
        self._crowded_since: float | None = None
        self._stopping = False
        self._next_commit = 0.0
        self._told: dict[str, float] = {}
        self._fatal: KafkaError | None = None
        try:
            self._consumer = Consumer(
                {
                    **DEFAULTS, **properties,
                    "enable.auto.commit": False,
                    "enable.auto.offset.store": False,
                    "on_commit": self._on_commit,
                    "error_cb": self._on_error,
                }
            )  # fmt: skip
        except KafkaException as error:
            raise ValueError(error.args[0].str()) from None
        except (ValueError, TypeError) as error:
            raise ValueError(str(error)) from None
        self._thread = threading.Thread(target=self._run, name="rebound-consumer", daemon=True)

    def start(self) -> None:
        """Begin to read."""
        self._thread.start()

    def stop(self) -> None:
        """End soon: drain, commit, leave the group. `Loop.ended` says when that is done."""
        self._stopping = True

    def join(self) -> None:
        """Wait for the thread. Call it after `Loop.ended`."""
        self._thread.join()

    # -- in the thread -----------------------------------------------------------------------

    def _run(self) -> None:
        failure: BaseException | None = None
        try:
            self._consumer.subscribe(
                self._topics, on_assign=self._assigned, on_revoke=self._revoked, on_lost=self._lost
            )
            while not self._stopping:
                self._turn()
        except BaseException as error:
            failure = error
        try:
            self._consumer.close()  # revokes, and thereby drains and commits
        except BaseException as error:
            failure = failure or error
        self._loop.ended(failure)

    def _turn(self) -> None:
        now = time.monotonic()
        if self._has_room(now):
            # `consume` would wait until the batch is full: for the first record only is waited.
            first = self._consumer.poll(SHORT if self._paused else PATIENCE)
            if first is not None:
                self._hand_over([first, *self._consumer.consume(BATCH, 0)])
        else:
            time.sleep(BREATH)
        if self._fatal is not None:
            raise KafkaException(self._fatal)
        if now >= self._next_commit:
            self._commit()
            self._next_commit = now + COMMIT_EVERY

    def _hand_over(self, messages: list[Message]) -> None:
        batch: Batch = []
        for message in messages:
            error = message.error()
            if error is not None:
                self._on_error(error)
                continue
            partition = self._partitions.get((message.topic(), message.partition()))  # type: ignore[arg-type]
            if partition is not None:  # else it was taken away while the batch gathered
                one = _record(message)
                partition.count(one)
                batch.append((partition, one))
        if batch:
            self._loop.records(batch)

    def _has_room(self, now: float) -> bool:
        """False where reading has to wait; partitions that stay full are paused instead."""
        if self._paused:
            self._pause(False, [p for p in self._partitions.values() if not p.filled(0.5)])
        full = [p for p in self._partitions.values() if not p.paused and p.filled()]
        if not full:
            self._crowded_since = None
            return True
        if self._crowded_since is None:
            self._crowded_since = now
        if now < self._crowded_since + PAUSE_AFTER:
            return False
        self._pause(True, full)
        self._crowded_since = None
        return True

    def _pause(self, pause: bool, partitions: list[Partition]) -> None:
        changed = [p for p in partitions if p.paused != pause]
        if changed:
            (self._consumer.pause if pause else self._consumer.resume)([_at(p) for p in changed])
        for partition in changed:
            partition.paused = pause
        self._paused = any(p.paused for p in self._partitions.values())

    # -- offsets -----------------------------------------------------------------------------

    def _commit(self) -> None:
        if offsets := _due(self._partitions.values()):
            self._consumer.commit(offsets=offsets, asynchronous=True)

    def _commit_at_last(self, partitions: Sequence[Partition]) -> None:
        """Wait for the answer: soon another consumer asks where to go on.

        What was sent before and not answered counts for nothing: a rebalance may have made it void.
        """
        for partition in partitions:
            partition.committed = None
        if offsets := _due(partitions):
            try:
                self._consumer.commit(offsets=offsets, asynchronous=False)
            except KafkaException as error:
                self._on_error(error.args[0])

    def _on_commit(self, error: KafkaError | None, offsets: list[TopicPartition]) -> None:
        if error is None:
            return
        if error.code() not in REBALANCING:
            self._on_error(error)
        for offset in offsets:
            if partition := self._partitions.get((offset.topic, offset.partition)):
                partition.committed = None  # so that it is tried again

    # -- what the group says -----------------------------------------------------------------

    def _assigned(self, _: Consumer, partitions: list[TopicPartition]) -> None:
        for at in partitions:
            self._partitions[at.topic, at.partition] = Partition(at.topic, at.partition)

    def _revoked(self, _: Consumer, partitions: list[TopicPartition]) -> None:
        self._commit_at_last(self._drained(partitions, lost=False))

    def _lost(self, _: Consumer, partitions: list[TopicPartition]) -> None:
        """They have another consumer already, which goes on where the last commit was."""
        self._drained(partitions, lost=True)

    def _drained(self, partitions: list[TopicPartition], *, lost: bool) -> list[Partition]:
        keys = [(at.topic, at.partition) for at in partitions]
        gone = [self._partitions.pop(key) for key in keys if key in self._partitions]
        if gone:
            self._loop.drain(gone, lost=lost)
            self._unpause(gone)
        return gone

    def _unpause(self, gone: list[Partition]) -> None:
        """librdkafka would remember, and stay silent if a partition is ever assigned again."""
        with contextlib.suppress(KafkaException):
            self._pause(False, gone)

    def _on_error(self, error: KafkaError) -> None:
        """Log what librdkafka says, which goes on trying, unless it says that it cannot."""
        if error.fatal():
            self._fatal = error
            return
        text, now = f"{error.name()}: {error.str()}", time.monotonic()
        if now >= self._told.get(error.name(), 0.0):
            self._told[error.name()] = now + REPEAT_AFTER
            self._logger.warning("consumer trouble", extra={"error": text})


def _due(partitions: Any) -> list[TopicPartition]:
    """The positions that have not been committed, which from now on they count as."""
    offsets = []
    for partition in partitions:
        position = partition.position
        if position is not None and position != partition.committed:
            offsets.append(TopicPartition(partition.topic, partition.number, position))
            partition.committed = position
    return offsets


def _at(partition: Partition) -> TopicPartition:
    return TopicPartition(partition.topic, partition.number)


def _record(message: Message) -> Record:
    kind, timestamp = message.timestamp()
    return record(
        message.topic(),  # type: ignore[arg-type]
        message.partition(),  # type: ignore[arg-type]
        message.offset(),  # type: ignore[arg-type]
        message.key(),
        message.value(),
        message.headers(),  # type: ignore[arg-type]
        None if kind == TIMESTAMP_NOT_AVAILABLE else timestamp,
    )
