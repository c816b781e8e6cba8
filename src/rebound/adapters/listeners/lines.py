"""How a line of a service's log looks, as text or JSON, and how it comes to stderr."""

from __future__ import annotations

import asyncio
import json
import logging
import re
import select
import time
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, Final, TextIO

import msgspec

from rebound.domain.times import rfc3339

FIELDS: Final = (
    "task_id", "source", "destination_type", "lane", "attempt", "state", "error", "duration_ms",
)  # fmt: skip
"""What a line may have beside level, ts and msg; attributes of the log record."""
PIECE: Final = getattr(select, "PIPE_BUF", 512)
"""Bytes that reach a pipe in one piece, whoever else writes to it."""

_UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")
_PLAIN = re.compile(r"[^\s\"=]+")
_encode = msgspec.json.Encoder(enc_hook=str).encode


class JsonFormatter(logging.Formatter):
    """One JSON object a line: level, ts, msg and those of the FIELDS that apply."""

    def line(self, level: int, at: float, text: str, found: Mapping[str, Any]) -> str:
        """`text` at `at`, seconds since the epoch, with what of the FIELDS is `found`, in order."""
        line = {"level": _name(level), "ts": rfc3339(at), "msg": text, **found}
        try:
            return _encode(line).decode()
        except UnicodeEncodeError:  # a lone surrogate, such as in the name of a file
            return json.dumps(line, default=str)

    def format(self, record: logging.LogRecord) -> str:
        """The record as one line."""
        found = _found(record)
        if record.exc_info:
            found["exception"] = self.formatException(record.exc_info)
        return self.line(record.levelno, record.created, record.getMessage(), found)


class TextFormatter(logging.Formatter):
    """Time, level and message, then the FIELDS as `name=value`."""

    def line(self, level: int, at: float, text: str, found: Mapping[str, Any]) -> str:
        """Likewise."""
        parts = [rfc3339(at), f"{_name(level):<7}", text]
        parts += [f"{name}={_word(value)}" for name, value in found.items()]
        line = " ".join(parts)
        if line.isprintable():
            return line
        return _UNPRINTABLE.sub(lambda found: repr(found[0])[1:-1], line)

    def format(self, record: logging.LogRecord) -> str:
        """The record as one line; a traceback follows on further ones."""
        line = self.line(record.levelno, record.created, record.getMessage(), _found(record))
        if record.exc_info:
            line = f"{line}\n{self.formatException(record.exc_info)}"
        return line


class Lines(logging.Handler):
    """Writes a service's log to a stream, info lines of one turn of the event loop together.

    A warning or worse is written at once, behind what waits. Else lines wait no longer than the
    turn, and no more of them than PIECE bytes: so much may be lost by `kill -9`, and by the end at
    once that a second signal asks for. Each write is of whole lines, and other processes on the
    same stream do not get into it.
    """

    def __init__(self, stream: TextIO, form: JsonFormatter | TextFormatter) -> None:
        super().__init__()
        self.setFormatter(form)
        self._form = form
        self._lock: Any = self.lock  # the one that `handle` holds around `emit`
        self._stream = stream
        self._waiting: list[str] = []
        self._size = 0
        self._turn: asyncio.AbstractEventLoop | None = None

    def stands_for(self, logger: logging.Logger) -> bool:
        """True where nothing else would see a record of `logger`, so that none need be made."""
        others = logger.propagate or logger.filters or self.filters or self.level
        return logger.handlers == [self] and self.formatter is self._form and not others

    def tell(self, level: int, text: str, found: Mapping[str, Any]) -> None:
        """What `emit` does, without a record."""
        line = self._form.line(level, time.time(), text, found)
        with self._lock:
            self._add(level, line)

    def emit(self, record: logging.LogRecord) -> None:
        """Write the record, or have it wait."""
        try:
            self._add(record.levelno, self.format(record))
        except Exception:
            self.handleError(record)

    def flush(self) -> None:
        """Write what waits."""
        with self._lock:
            self._turn = None
            self._write()

    # -- their parts, which the lock guards ---------------------------------------------------

    def _add(self, level: int, line: str) -> None:
        size = len(line.encode(errors="replace")) + 1
        if self._size + size > PIECE:
            self._write()
        self._waiting.append(line)
        self._size += size
        if level >= logging.WARNING or not self._written_later():
            self._write()

    def _written_later(self) -> bool:
        """Have the lines written when this turn is over; False outside of an event loop."""
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            return False
        if self._turn is not loop:
            self._turn = loop
            loop.call_soon(self.flush)
        return True

    def _write(self) -> None:
        if not self._waiting:
            return
        text = "\n".join(self._waiting) + "\n"
        self._waiting.clear()
        self._size = 0
        try:
            self._stream.write(text)
            self._stream.flush()
        except Exception:  # such as a full disk; it goes where logging has it go
            self.handleError(logging.makeLogRecord({"msg": "lines of the log"}))


@lru_cache(maxsize=64)
def _name(level: int) -> str:
    return logging.getLevelName(level).lower()


def _found(record: logging.LogRecord) -> dict[str, Any]:
    known = record.__dict__
    return {name: known[name] for name in FIELDS if name in known}


def _word(value: object) -> str:
    text = str(value)
    if _PLAIN.fullmatch(text):
        return text
    return msgspec.json.encode(text).decode()
