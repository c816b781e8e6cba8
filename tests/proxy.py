"""A network that misbehaves between workers and Redis."""

from __future__ import annotations

import asyncio
import socket
import struct
from random import Random

from tests.conftest import free_port

MOST = 2**20
"""Bytes of one piece."""
RESET = struct.pack("ii", 1, 0)
"""SO_LINGER that ends a connection with RST in place of FIN."""


class Proxy:
    """Passes TCP on to a port of this host, and hinders it as it is told."""

    def __init__(self, target: int, seed: int = 5) -> None:
        self.port = free_port()
        self.latency = 0.0
        """Seconds that each reply takes longer."""
        self.cut = 0.0
        """Share of the replies that break off: the server has done what it was asked, and the
        connection ends before the whole answer, or any of it, is through."""
        self.cuts = 0
        """How many broke off."""
        self._target = target
        self._random = Random(seed)
        self._passing = asyncio.Event()
        self._passing.set()
        self._writers: set[asyncio.StreamWriter] = set()
        self._serving: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None

    @property
    def url(self) -> str:
        """Where workers find Redis behind it."""
        return f"redis://127.0.0.1:{self.port}"

    async def __aenter__(self) -> Proxy:
        """Listen."""
        self._server = await asyncio.start_server(self._take, "127.0.0.1", self.port, limit=MOST)
        return self

    def stall(self) -> None:
        """Hold back what comes, in both directions; connections stay, and new ones are taken."""
        self._passing.clear()

    def go_on(self) -> None:
        """Pass on what was held back, and what comes."""
        self._passing.set()

    def reset(self) -> None:
        """Break every connection."""
        for writer in list(self._writers):
            writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
            writer.transport.abort()

    async def __aexit__(self, *_: object) -> None:
        """Listen no more and break what stands."""
        if self._server is not None:
            self._server.close()
        for task in self._serving:
            task.cancel()
        await asyncio.gather(*self._serving, return_exceptions=True)

    def _take(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(self._serve(reader, writer))
        self._serving.add(task)
        task.add_done_callback(self._serving.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        both, ways = {writer}, []
        try:
            answers, asks = await asyncio.open_connection("127.0.0.1", self._target, limit=MOST)
            both.add(asks)
            self._writers |= both
            ways.append(asyncio.create_task(self._requests(reader, asks)))
            ways.append(asyncio.create_task(self._replies(answers, writer)))
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        except OSError:
            pass  # Redis is away: to the worker the connection breaks
        finally:
            for way in ways:
                way.cancel()
            await asyncio.gather(*ways, return_exceptions=True)
            self._writers -= both
            for one in both:
                one.close()

    async def _requests(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        while data := await source.read(MOST):
            await self._passing.wait()
            sink.write(data)
            await sink.drain()

    async def _replies(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        while data := await source.read(1):
            await asyncio.sleep(self.latency)
            data += await source.read(MOST)
            await self._passing.wait()
            if self._random.random() < self.cut:
                self.cuts += 1
                sink.write(data[: self._random.choice((0, len(data) // 2, len(data) - 1))])
                return
            sink.write(data)
            await sink.drain()
