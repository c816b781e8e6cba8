"""A receiver in this process that records every request and behaves by path as it is told."""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from pathlib import Path
from random import Random
from typing import NamedTuple

from tests.conftest import free_port

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
BROKEN = b"HTTP/1.1 500 Broken\r\nContent-Length: 6\r\n\r\nbroken"


class Got(NamedTuple):
    """One request."""

    at: float
    """Seconds since the epoch."""
    id: str
    attempt: int
    path: str
    peer: int
    """Port of the sender, which tells whose process it was."""
    transport: asyncio.Transport

    def sent_by(self, pid: int) -> bool:
        """True where the connection that it came over is one of process `pid`."""
        lines = (line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:])
        ours = (f[9] for f in lines if int(f[1].rpartition(":")[2], 16) == self.peer)
        sockets = {f"socket:[{inode}]" for inode in ours}
        with contextlib.suppress(OSError):
            for descriptor in Path(f"/proc/{pid}/fd").iterdir():
                with contextlib.suppress(OSError):
                    if os.readlink(descriptor) in sockets:
                        return True
        return False


Answer = Callable[[Got], Awaitable[bytes | None]]
"""What to answer, when it is time to; None: nothing, or the answer has written it itself."""


class Receiver:
    """Listens on every loopback address, so that each is a lane of its own."""

    def __init__(self) -> None:
        self.port = free_port()
        self.got: list[Got] = []
        self.answers: dict[str, Answer | bytes] = {}
        self.delivered: Counter[str] = Counter()
        """Id -> how often it was answered with 2xx, dead letters apart."""
        self.dead_lettered: Counter[str] = Counter()
        """The same of the paths that begin with `/dead`."""
        self._tasks: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None

    def url(self, path: str = "/ok", host: int = 1) -> str:
        """Address of `path`; each `host` (1 to 65535) is an origin of its own."""
        return f"http://127.0.{host >> 8}.{host & 255}:{self.port}{path}"

    async def start(self) -> None:
        """Listen, also again after `stop`."""
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(
            lambda: _Connection(self), "0.0.0.0", self.port, backlog=4096, reuse_address=True
        )

    async def stop(self) -> None:
        """Listen no more; connections that are open are cut."""
        if self._server is not None:
            self._server.close()
            self._server = None
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for got in self.got[-5000:]:
            got.transport.abort()

    def elsewhere(self) -> Receiver:
        """One on another port, not started, that records in the same book."""
        other = Receiver()
        other.got, other.answers = self.got, self.answers
        other.delivered, other.dead_lettered = self.delivered, self.dead_lettered
        return other

    @property
    def books(self) -> tuple[Counter[str], Counter[str]]:
        """What was delivered, and what as a dead letter."""
        return self.delivered, self.dead_lettered

    def repeats(self) -> Counter[str]:
        """How often a message came again: under a number it had before, or after a 2xx."""
        seen: set[tuple[str, str, int]] = set()
        repeats: Counter[str] = Counter()
        for got in self.got:
            key = (got.id, got.path, got.attempt)
            repeats[got.id] += key in seen
            seen.add(key)
        for book in self.books:
            for id_, count in book.items():
                repeats[id_] = max(repeats[id_], count - 1)
        return +repeats

    def acknowledge(self, got: Got) -> None:
        """Count a request as answered with 2xx."""
        (self.dead_lettered if got.path.startswith("/dead") else self.delivered)[got.id] += 1

    def take(self, got: Got) -> None:
        """Record a request and see to its answer."""
        self.got.append(got)
        answer = self.answers.get(got.path, OK)
        if isinstance(answer, bytes):
            self._write(got, answer)
            return
        task = asyncio.create_task(self._answer(got, answer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _answer(self, got: Got, answer: Answer) -> None:
        said = await answer(got)
        if said is not None:
            self._write(got, said)

    def _write(self, got: Got, answer: bytes) -> None:
        if not got.transport.is_closing():
            if answer.startswith(b"HTTP/1.1 2"):
                self.acknowledge(got)
            got.transport.write(answer)


class _Connection(asyncio.Protocol):
    def __init__(self, receiver: Receiver) -> None:
        self._receiver = receiver
        self._buffer = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport: asyncio.Transport = transport  # type: ignore[assignment]
        self._peer = int(transport.get_extra_info("peername")[1])

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        while (end := self._buffer.find(b"\r\n\r\n")) >= 0:
            first, *lines = self._buffer[:end].decode("latin-1").split("\r\n")
            headers = {k.lower(): v for k, v in (line.split(": ", 1) for line in lines)}
            whole = end + 4 + int(headers.get("content-length", 0))
            if len(self._buffer) < whole:
                return
            self._buffer = self._buffer[whole:]
            self._receiver.take(
                Got(
                    time.time(), headers.get("x-rebound-task-id", ""),
                    int(headers.get("x-rebound-attempt", 0)), first.split(" ")[1], self._peer,
                    self._transport,
                )
            )  # fmt: skip


# -- how a path may behave ---------------------------------------------------------------------


def slow(seconds: float, seed: int = 0, *, least: float = 0.0) -> Answer:
    """200 after `least` and up to so many seconds more, by chance."""
    random = Random(seed)

    async def answer(_: Got) -> bytes:
        await asyncio.sleep(least + random.random() * seconds)
        return OK

    return answer


def failing(times: int, then: Answer | bytes = OK) -> Answer:
    """500 on the first so many attempts of each task."""

    async def answer(got: Got) -> bytes | None:
        if got.attempt <= times:
            return BROKEN
        return then if isinstance(then, bytes) else await then(got)

    return answer


async def hanging(_: Got) -> None:
    """Never an answer; the connection stays open."""
