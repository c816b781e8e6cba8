"""One log line per event; never a payload, never a secret."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Mapping
from typing import Any, Final

from rebound.adapters.listeners.lines import JsonFormatter, Lines, TextFormatter
from rebound.domain.attempt import Attempt, Leg
from rebound.domain.errors import ValidationError
from rebound.domain.task import Task
from rebound.ports import Event, Listener

LEVELS: Final[Mapping[str, int]] = {
    "delivery failed": logging.WARNING,
    "lease lost": logging.WARNING,
    "store unavailable": logging.WARNING,
    "store not durable": logging.WARNING,
    "task dead": logging.ERROR,
}
"""Levels of the events that are not `info`."""


class LogListener:
    """Logs each event with its kind as the message and the FIELDS as attributes of the record."""

    def __init__(self, logger: logging.Logger) -> None:
        self._logger = logger

    def __call__(self, event: Event) -> None:
        """Log `event`, if its level is wanted at all."""
        logger, level = self._logger, LEVELS.get(event.kind, logging.INFO)
        if not logger.isEnabledFor(level):
            return
        # A service writes a line per delivery; a record that nobody sees is two thirds of its cost.
        handlers = getattr(logger, "handlers", None)  # a LoggerAdapter has none
        handler = handlers[0] if handlers else None
        if type(handler) is Lines and handler.stands_for(logger):
            handler.tell(level, event.kind, fields(event))
        else:
            logger.log(level, event.kind, extra=fields(event))


def fields(event: Event) -> dict[str, Any]:
    """Those of the FIELDS that apply to `event`, in their order."""
    task, attempt = event.task, event.attempt
    found: dict[str, Any] = {}
    if task is not None:
        found["task_id"] = task.id
        found["source"] = task.source
        if place := _place(task, attempt):
            found["destination_type"], found["lane"] = place
    if attempt is not None:
        found["attempt"] = attempt.number
    elif task is not None and event.kind == "lease lost":
        found["attempt"] = task.number
    if task is not None and task.state is not None:
        found["state"] = task.state.value
    error = attempt.error if attempt is not None else None
    if event.kind in LEVELS:
        error = event.detail or error or (None if task is None else task.last_error)
    if error:
        found["error"] = error
    if attempt is not None and attempt.duration_ms is not None:
        found["duration_ms"] = attempt.duration_ms
    return found


def _place(task: Task, attempt: Attempt | None) -> tuple[str, str] | None:
    """Kind and lane of the attempt, not of the one to come."""
    dead = (task.leg if attempt is None else attempt.leg) == Leg.DEAD
    target = task.dead_destination if dead and task.dead_destination else task.destination
    try:
        place = target.place
    except ValidationError:  # a record that cannot be read has no destination
        return None
    return place.kind, place.lane if dead else task.lane or place.lane


def guarded(listener: Listener, logger: logging.Logger) -> Listener:
    """`listener`, with what it raises logged and gone no further."""

    def listen(event: Event) -> None:
        try:
            listener(event)
        except Exception:
            logger.exception("a listener failed at %r", event.kind)

    return listen


def configure(level: str, form: str) -> None:
    """Log to stderr: `level` such as `info`, `form` `json` or `text`.

    For processes of Rebound's own; a library leaves this alone. Other libraries' warnings get the
    same form.
    """
    handler = Lines(sys.stderr, JsonFormatter() if form == "json" else TextFormatter())
    if hasattr(os, "register_at_fork"):  # or parent and child would both write what waits
        os.register_at_fork(before=handler.flush)
    ours = logging.getLogger("rebound")
    ours.setLevel(level.upper())
    ours.handlers = [handler]
    ours.propagate = False
    logging.getLogger().handlers = [handler]
