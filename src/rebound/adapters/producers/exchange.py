"""One HTTP/1.1 request and its answer on a connection of aiohttp's pool.

aiohttp connects, resolves, secures, pools and parses; what its session does for a request besides
(redirects, cookies, uploads in pieces, a task that writes) nobody needs here, and it is half of
what a delivery costs.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, Final, Protocol

import aiohttp
from aiohttp.connector import Connection
from yarl import URL

_NO_LIMIT: Final = aiohttp.ClientTimeout()
_COPIED: Final = 65536
"""Bytes of a body up to which it goes with the head in one write."""


class Answer(Protocol):
    """What came back: an `Exchanged` or an aiohttp.ClientResponse."""

    @property
    def status(self) -> int: ...

    @property
    def headers(self) -> Mapping[str, str]: ...

    @property
    def content(self) -> aiohttp.StreamReader: ...

    def close(self) -> None:
        """Let the connection go: back to the pool where nothing is left to read or to write."""
        ...


class Exchanged:
    """An `Answer` whose head has come."""

    def __init__(
        self,
        connection: Connection,
        status: int,
        headers: Mapping[str, str],
        content: aiohttp.StreamReader,
    ) -> None:
        self.status = status
        self.headers = headers
        self.content = content
        self._connection = connection

    def close(self) -> None:
        transport = self._connection.transport
        written = transport is None or not transport.get_write_buffer_size()
        if written and self.content.at_eof():
            self._connection.release()
        else:
            _abort(self._connection)


class Exchange:
    """Sends requests over the connections of `connector`, which it closes in the end."""

    def __init__(self, connector: aiohttp.BaseConnector, *, read_buffer: int, most: int) -> None:
        """`read_buffer` bytes of an answer wait at most; `most` bytes a header field may have."""
        self._connector = connector
        self._parsing: dict[str, Any] = {
            "read_until_eof": True, "auto_decompress": False, "read_bufsize": read_buffer,
            "max_field_size": most,
        }  # fmt: skip
        self._origin = lru_cache(maxsize=4096)(_origin)

    async def ask(self, method: str, url: URL, headers: Mapping[str, str], body: bytes) -> Answer:
        """Send the request; return when the head of the answer is there.

        Raises ClientConnectionResetError where nothing was written yet because the connection was
        closed meanwhile, ValueError for a header with a line break, or what aiohttp raises.
        """
        head = _head(method, url, headers)
        origin = self._origin(url.scheme, url.raw_authority)  # with the dot that ends a host
        connection = await self._connector.connect(origin, [], _NO_LIMIT)
        try:
            await asyncio.sleep(0)  # in which the loop sees that a kept connection has ended
            protocol, transport = connection.protocol, connection.transport
            if (
                protocol is None or transport is None
                or transport.is_closing() or protocol.should_close
            ):  # fmt: skip
                raise aiohttp.ClientConnectionResetError("closed, or it said something unasked")
            protocol.set_response_params(**self._parsing)
            if len(body) <= _COPIED:
                transport.write(head + body)
            else:
                transport.write(head)
                transport.write(body)
            while True:
                message, content = await protocol.read()
                if message.code // 100 != 1 or message.code == 101:  # not an interim one
                    return Exchanged(connection, message.code, message.headers, content)
        except BaseException:
            _abort(connection)
            raise

    async def close(self) -> None:
        """Close every connection."""
        await self._connector.close()


def _head(method: str, url: URL, headers: Mapping[str, str]) -> bytes:
    """The request line and the headers. Raises ValueError where a value would end its line."""
    fields = "".join([f"{name}: {value}\r\n" for name, value in headers.items()])
    if not fields.count("\r") == fields.count("\n") == len(headers) or "\0" in fields:
        raise ValueError("a header has a line break or a NUL")
    host = url.host_port_subcomponent
    text = f"{method} {url.raw_path_qs} HTTP/1.1\r\nHost: {host}\r\n{fields}\r\n"
    return text.encode()


def _origin(scheme: str, authority: str) -> aiohttp.ClientRequest:
    """Where to connect, as a connector wants to be told."""
    url = URL(f"{scheme}://{authority}", encoded=True)
    return aiohttp.ClientRequest("GET", url, loop=asyncio.get_running_loop())


def _abort(connection: Connection) -> None:
    """Close it; what is still to be written is dropped, or a peer that hangs would keep it."""
    transport = connection.transport
    if transport is not None and transport.get_write_buffer_size():
        transport.abort()
    connection.close()
