"""Connections that get along with receivers that send too much, or nonsense behind an answer."""

from __future__ import annotations

import re
from typing import Final

import aiohttp
from aiohttp.client_proto import ResponseHandler
from aiohttp.http_exceptions import BadHttpMessage

MOST_WAITING: Final = 20
"""Responses of one connection that may wait to be read; interim ones (1xx) count as well."""
PIECE: Final = 4096
"""Bytes that are parsed before the waiting responses are counted again."""
_END_OF_HEAD: Final = re.compile(rb"\n\r?\n")


def sturdy(connector: aiohttp.BaseConnector) -> aiohttp.BaseConnector:
    """`connector`, whose connections do not depend on how the receiver's bytes are cut."""
    make = connector._factory

    def made() -> ResponseHandler:
        handler = make()
        handler.data_received = _Pieces(handler).received  # type: ignore[method-assign]
        return handler

    connector._factory = made  # type: ignore[assignment]
    return connector


class _Pieces:
    """What has come on one connection, handed to aiohttp in pieces that end where a head ends.

    aiohttp turns all bytes that have come into responses before anybody reads the first, also
    while the connection is idle in the pool, and skips any number of interim ones: 256 KiB of
    `100 Continue` become 15 MiB. Where bytes are malformed, it drops the response before them that
    came in the same piece, and lets who reads the body of one that came earlier wait for ever.
    """

    def __init__(self, handler: ResponseHandler) -> None:
        self._handler = handler
        self._parse = handler.data_received
        self._before = b""
        """The last bytes of a head that goes on."""

    def received(self, data: bytes) -> None:
        """Parse `data`, which is empty where aiohttp goes on with what it put aside."""
        handler, at = self._handler, 0
        while True:
            end = self._end(data, at)
            self._parse(data[at:end])
            if handler.exception() is not None:
                self._end_body()
                return
            if len(handler) > MOST_WAITING:
                handler.abort()
                handler.set_exception(BadHttpMessage("too many responses"))
                return
            if end >= len(data):
                return
            at = end

    def _end(self, data: bytes, at: int) -> int:
        """Where the piece of `data` that begins `at` ends."""
        end = min(at + PIECE, len(data))
        body = self._handler._payload
        if body is None or body.is_eof():
            before, self._before = self._before, b""
            seen = before + data[at:end]
            if head := _END_OF_HEAD.search(seen):
                return at + head.end() - len(before)
            self._before = seen[-2:]
        return end

    def _end_body(self) -> None:
        body = self._handler._payload
        if body is not None and not body.is_eof():
            body.set_exception(aiohttp.ClientPayloadError("malformed"))
