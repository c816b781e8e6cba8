"""A connection to the HTTP server: one write an answer, and an end to what floods or dawdles."""

from __future__ import annotations

import asyncio
from typing import Any, Final

import httptools
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from rebound.adapters.api.view import Code, Error, encode

MAX_HEAD: Final = 65_536
"""Bytes of a request beside its body."""
MAX_HEADERS: Final = 100
MAX_AHEAD: Final = 1000
"""Requests that a client may send before the first of them is answered."""
PATIENCE: Final = 30.0
"""Seconds within which a head has to arrive, and a body or reader has to get on."""
LEAST: Final = 16_384
"""Bytes of a body that are getting on, in half of that time."""
LINGER: Final = 1.0
"""Seconds before the connection of a client that is still sending is closed."""

Why = tuple[int, Code, str]
NO_HTTP: Final[Why] = (400, "BAD_REQUEST", "the request is not HTTP/1.1")
TOO_SLOW: Final[Why] = (408, "REQUEST_TIMEOUT", "the request did not arrive in time")
TOO_LARGE: Final[Why] = (
    431,
    "HEADERS_TOO_LARGE",
    f"a request may have {MAX_HEADERS} headers and {MAX_HEAD} bytes of them",
)
AHEAD: Final[Why] = (429, "RATE_LIMITED", f"{MAX_AHEAD} requests wait for their answers")
TOO_MANY: Final[Why] = (503, "TOO_MANY_CONNECTIONS", "there are MAX_CONNECTIONS connections")


class Corked:
    """A transport that writes once a turn of the loop.

    uvicorn writes a head and a body, and each write is a call of the system: a seventh of what a
    small request costs.
    """

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        self._transport = transport
        self._loop = loop
        self._parts: list[bytes] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def write(self, data: bytes) -> None:
        """Write `data` with whatever else is written in this turn."""
        if not self._parts:
            self._loop.call_soon(self._flush)
        self._parts.append(data)

    def close(self) -> None:
        """Write what is left, and close."""
        self._flush()
        self._transport.close()

    def _flush(self) -> None:
        if self._parts and not self._transport.is_closing():
            self._transport.write(b"".join(self._parts))
        self._parts.clear()


class Parser:
    """Reads a request that offers another protocol like any other (RFC 9110 section 7.8).

    httptools takes the body of one, which Java's client sends first of all, for that protocol.
    """

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._begin()

    def feed_data(self, data: bytes) -> None:
        """Parse `data`; whatever follows an offer is read as if nothing had been before it."""
        while True:
            try:
                self._feed(data)
                return
            except httptools.HttpParserUpgrade as upgrade:
                head = self._connection.offer_declined()
                if head is None:
                    raise
                data = head + data[upgrade.args[0] :]
                self._begin()

    def _begin(self) -> None:
        parser = httptools.HttpRequestParser(self._connection)
        parser.set_dangerous_leniencies(lenient_data_after_close=True)  # as uvicorn does
        self._feed = parser.feed_data
        self.should_upgrade = parser.should_upgrade
        self.should_keep_alive = parser.should_keep_alive
        self.get_method = parser.get_method
        self.get_http_version = parser.get_http_version


class Connection(HttpToolsProtocol):
    """uvicorn's, with limits. A request costs it a few counts and no timer."""

    def __init__(
        self, *arguments: Any, most: int, patience: float = PATIENCE, **further: Any
    ) -> None:
        """`most` is how many connections there may be, `patience` in seconds."""
        super().__init__(*arguments, **further)
        self._most = most
        self._pause = patience / 2
        self._linger = min(LINGER, patience)
        self._timer: asyncio.TimerHandle | None = None
        self._why = NO_HTTP
        self._refused = False
        self._received = 0
        self._useful = 0
        """What of that was parsed as heads and bodies."""
        self._before: tuple[object, int, int] = (None, 0, 0)
        self._offers = False
        """The head that was parsed last offers another protocol, and its request did not begin."""
        self.parser = Parser(self)  # type: ignore[assignment]

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Take the connection, or say that there are too many."""
        full = len(self.connections) >= self._most
        super().connection_made(transport)
        self.transport = Corked(transport, self.loop)  # type: ignore[assignment]
        if full:
            self._refuse(TOO_MANY)
        else:
            self._timer = self.loop.call_later(self._pause, self._look)

    def connection_lost(self, exc: Exception | None) -> None:
        """Let go of everything."""
        super().connection_lost(exc)
        if self._timer is not None:
            self._timer.cancel()

    def data_received(self, data: bytes) -> None:
        """Parse, and refuse what goes on without becoming a request."""
        if self._refused:
            return
        self._received += len(data)
        super().data_received(data)
        if self._received - self._useful > MAX_HEAD:
            self._refuse(TOO_LARGE)

    def on_headers_complete(self) -> None:
        """Begin the request, unless its head is too large or too many wait."""
        if len(self.pipeline) >= MAX_AHEAD:
            self._why = AHEAD
            raise httptools.HttpParserError  # which stops the parser
        if len(self.headers) > MAX_HEADERS or (
            self._received - self._useful > MAX_HEAD
            and len(self.url) + sum(len(k) + len(v) + 4 for k, v in self.headers) > MAX_HEAD
        ):
            self._why = TOO_LARGE
            raise httptools.HttpParserError
        self._useful = self._received
        self._offers = self.parser.should_upgrade() and any(
            k == b"upgrade" for k, _ in self.headers
        )
        if not self._offers:
            super().on_headers_complete()

    def on_message_complete(self) -> None:
        """End the request, if it began."""
        if not self._offers:
            super().on_message_complete()

    def offer_declined(self) -> bytes | None:
        """The head that offers another protocol, without that; None where there is none."""
        if not self._offers:
            return None
        self._offers = False
        line = b"%b %b HTTP/%b" % (
            self.parser.get_method(), self.url, self.parser.get_http_version().encode(),
        )  # fmt: skip
        fields = [b"%b: %b" % header for header in self.headers if header[0] != b"upgrade"]
        return b"\r\n".join((line, *fields, b"", b""))

    def on_body(self, body: bytes) -> None:
        """Take a part of the body."""
        self._useful = self._received
        super().on_body(body)

    def send_400_response(self, msg: str) -> None:
        """Answer what could not be parsed."""
        self._refuse(self._why)

    def _unsupported_upgrade_warning(self) -> None:
        """Log nothing: uvicorn would advise to install what is of no use here."""

    def _look(self) -> None:
        """Send away a client that has not got on since the last look."""
        self._timer = self.loop.call_later(self._pause, self._look)
        unread = self.transport.get_write_buffer_size()
        awaited = self._awaited()
        before, received, unread_before = self._before
        self._before = (awaited, self._received, unread)
        if unread and unread >= unread_before > 0:
            self.transport.abort()
        elif awaited is not None and awaited is before and self._received - received < LEAST:
            if awaited is self or (awaited is self.cycle and self.cycle.response_started):
                self.transport.close()
            else:
                self._refuse(TOO_SLOW)

    def _awaited(self) -> object:
        """What the client has begun and not finished: a connection, a head or a body; or None."""
        if self.transport.is_closing() or self.flow.read_paused:
            return None
        if self.scope is None:
            return self
        if self.cycle is None or self.cycle.scope is not self.scope:
            return self.scope
        return self.cycle if self.cycle.more_body else None

    def _refuse(self, why: Why) -> None:
        """Say why, and end the connection; who is still sending gets time to read it."""
        if self._refused:
            return
        status, code, text = why
        body = encode(Error(text, code))
        headers = [
            *self.server_state.default_headers,
            (b"content-type", b"application/json"),
            (b"content-length", b"%d" % len(body)),
            (b"connection", b"close"),
        ]
        lines = [STATUS_LINE[status], *(b"%s: %s\r\n" % header for header in headers)]
        self.transport.write(b"".join((*lines, b"\r\n", body)))
        self._refused = True
        if why in (TOO_LARGE, TOO_SLOW):
            self.loop.call_later(self._linger, self.transport.close)
        else:
            self.transport.close()
