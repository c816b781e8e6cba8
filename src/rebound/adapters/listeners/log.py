"""One log line per event, as text or JSON; never a payload, never a secret."""

from __future__ import annotations

import json
import logging
import re
import sys
from collections.abc import Mapping
from typing import Any, Final

import msgspec

from rebound.domain.attempt import Leg
from rebound.domain.errors import ValidationError
from rebound.domain.task import Task
from rebound.domain.times import rfc3339
from rebound.ports import Event, Listener

LEVELS: Final[Mapping[str, int]] = {
    "delivery failed": logging.WARNING,
    "lease lost": logging.WARNING,
    "store unavailable": logging.WARNING,
    "store not durable": logging.WARNING,
    "task dead": logging.ERROR,
}
"""Levels of the events that are not `info`."""
FIELDS: Final = (
    "task_id", "source", "destination_type", "lane", "attempt", "state", "error", "duration_ms",
)  # fmt: skip
"""What a line may have beside level, ts and msg; attributes of the log record."""

_UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")
_PLAIN = re.compile(r"[^\s\"=]+")


class LogListener:
    """Logs each event with its kind as the message and the FIELDS as attributes of the record."""

    def __init__(self, logger: logging.Logger) -> None:
        self._logger = logger

    def __call__(self, event: Event) -> None:
        """Log `event`, if its level is wanted at all."""
        level = LEVELS.get(event.kind, logging.INFO)
        if self._logger.isEnabledFor(level):
            self._logger.log(level, event.kind, extra=fields(event))


def fields(event: Event) -> dict[str, Any]:
    """Those of the FIELDS that apply to `event`."""
    task, attempt = event.task, event.attempt
    found: dict[str, Any] = {} if task is None else _of_task(task, event)
    if attempt is not None:
        found["attempt"] = attempt.number
        if attempt.duration_ms is not None:
            found["duration_ms"] = attempt.duration_ms
    elif task is not None and event.kind == "lease lost":
        found["attempt"] = task.number
    error = attempt.error if attempt is not None else None
    if event.kind in LEVELS:
        error = event.detail or error or (None if task is None else task.last_error)
    if error:
        found["error"] = error
    return found


def _of_task(task: Task, event: Event) -> dict[str, Any]:
    """What is known of the task; the place is that of the attempt, not of the one to come."""
    found: dict[str, Any] = {"task_id": task.id, "source": task.source}
    attempt = event.attempt
    dead = (task.leg if attempt is None else attempt.leg) == Leg.DEAD
    target = task.dead_destination if dead and task.dead_destination else task.destination
    try:
        place = target.place
    except ValidationError:  # a record that cannot be read has no destination
        return found
    found["destination_type"] = place.kind
    found["lane"] = place.lane if dead else task.lane or place.lane
    if task.state is not None:
        found["state"] = task.state.value
    return found


def guarded(listener: Listener, logger: logging.Logger) -> Listener:
    """`listener`, with what it raises logged and gone no further."""

    def listen(event: Event) -> None:
        try:
            listener(event)
        except Exception:
            logger.exception("a listener failed at %r", event.kind)

    return listen


class JsonFormatter(logging.Formatter):
    """One JSON object a line: level, ts, msg and those of the FIELDS that apply."""

    def format(self, record: logging.LogRecord) -> str:
        """The record as one line."""
        line: dict[str, object] = {
            "level": record.levelname.lower(),
            "ts": rfc3339(record.created),
            "msg": record.getMessage(),
        }
        line.update(_found(record))
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        try:
            return msgspec.json.encode(line, enc_hook=str).decode()
        except UnicodeEncodeError:  # a lone surrogate, such as in the name of a file
            return json.dumps(line, default=str)


class TextFormatter(logging.Formatter):
    """Time, level and message, then the FIELDS as `name=value`."""

    def format(self, record: logging.LogRecord) -> str:
        """The record as one line; a traceback follows on further ones."""
        parts = [rfc3339(record.created), f"{record.levelname.lower():<7}", record.getMessage()]
        parts += (f"{name}={_word(value)}" for name, value in _found(record).items())
        line = _UNPRINTABLE.sub(lambda found: repr(found[0])[1:-1], " ".join(parts))
        if record.exc_info:
            line = f"{line}\n{self.formatException(record.exc_info)}"
        return line


def configure(level: str, form: str) -> None:
    """Log to stderr: `level` such as `info`, `form` `json` or `text`.

    For processes of Rebound's own; a library leaves this alone. Other libraries' warnings get the
    same form.
    """
    # What no line shows is not looked up: a third of what logging costs. logging's own advice.
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False
    logging._srcfile = None
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter() if form == "json" else TextFormatter())
    ours = logging.getLogger("rebound")
    ours.setLevel(level.upper())
    ours.handlers = [handler]
    ours.propagate = False
    logging.getLogger().handlers = [handler]


def _found(record: logging.LogRecord) -> dict[str, Any]:
    known = record.__dict__
    return {name: known[name] for name in FIELDS if name in known}


def _word(value: object) -> str:
    text = str(value)
    if _PLAIN.fullmatch(text):
        return text
    return msgspec.json.encode(text).decode()
