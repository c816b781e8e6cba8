"""Brings a record whose handler failed into the store, however long that takes."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from typing import Final

from rebound.domain.errors import (
    DeliveryError,
    DuplicateTask,
    Rejected,
    StoreUnavailable,
    ValidationError,
)
from rebound.domain.record import Record
from rebound.domain.redelivery import Redelivery, same_record
from rebound.domain.task import Task
from rebound.embedded import Rebound

PAUSE: Final = 0.1
"""Seconds before the second try to store; doubling."""
LONGEST_PAUSE: Final = 5.0


class Storing:
    """Turns failures into tasks."""

    def __init__(self, rebound: Rebound, redelivery: Redelivery, logger: logging.Logger) -> None:
        self._rebound = rebound
        self._redelivery = redelivery
        self._logger = logger
        self._clock = rebound.config.clock or time.time

    async def store(self, record: Record, error: BaseException) -> None:
        """Return when the record is safe. Raises what keeps it from ever being."""
        task = self._redelivery.task(record, error, self._clock())
        self._logger.warning(
            "handler failed",
            extra={
                "task_id": task.id, "source": task.source, "lane": task.lane_name,
                "attempt": record.failures + 1, "error": f"{type(error).__name__}: {error}",
            },
            exc_info=error,
        )  # fmt: skip
        pause = PAUSE
        while True:
            try:
                return await self._stored(task)
            except StoreUnavailable:
                await asyncio.sleep(pause)  # the engine tells that the store is away
            except ValidationError as reason:
                return await self._bury(record, error, reason)
            pause = min(pause * 2, LONGEST_PAUSE)

    async def _stored(self, task: Task) -> None:
        try:
            await self._rebound.create_task(task)
        except DuplicateTask:
            # Perhaps this record under another policy, perhaps one of another group or cluster.
            stored = await self._rebound.get_task(task.id)
            if stored is None or not same_record(stored, task):
                with contextlib.suppress(DuplicateTask):
                    await self._rebound.create_task(self._redelivery.elsewhere(task))

    async def _bury(self, record: Record, error: BaseException, why: ValidationError) -> None:
        """Bring a record that is no valid task, such as one too large, to the dead topic itself."""
        producer = self._rebound.engine.producers.get("kafka")
        if self._redelivery.dead_topic is None or producer is None:
            raise why
        letter, pause = self._redelivery.buried(record, error, str(why)), PAUSE
        while True:
            try:
                await producer.send(letter)
            except Rejected:
                raise
            except DeliveryError as trouble:
                self._logger.warning(
                    "delivery failed", extra={"task_id": letter.id, "error": str(trouble)}
                )
                await asyncio.sleep(pause)
                pause = min(pause * 2, LONGEST_PAUSE)
            else:
                self._logger.error("task dead", extra={"task_id": letter.id, "error": str(why)})
                return
