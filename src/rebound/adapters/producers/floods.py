"""Connections that do not let a receiver fill the memory with responses nobody asked for."""

from __future__ import annotations

from typing import Final

import aiohttp
from aiohttp.client_proto import ResponseHandler
from aiohttp.http_exceptions import BadHttpMessage

MOST_WAITING: Final = 20
"""Responses of one connection that may wait to be read; interim ones (1xx) count as well."""
PIECE: Final = 4096
"""Bytes that are parsed before the waiting responses are counted again."""


def without_floods(connector: aiohttp.BaseConnector) -> aiohttp.BaseConnector:
    """`connector`, whose connections end when too many responses wait.

    aiohttp turns all bytes that have come into responses before anybody reads the first, also
    while the connection is idle in the pool, and skips any number of interim ones: 256 KiB of
    `100 Continue` become 15 MiB.
    """
    make = connector._factory

    def guarded() -> ResponseHandler:
        handler = make()
        received = handler.data_received

        def data_received(data: bytes) -> None:
            for at in range(0, len(data) or 1, PIECE):
                received(data[at : at + PIECE])
                if len(handler) > MOST_WAITING:
                    handler.abort()
                    handler.set_exception(BadHttpMessage("too many responses"))
                    return

        handler.data_received = data_received  # type: ignore[method-assign]
        return handler

    connector._factory = guarded  # type: ignore[assignment]
    return connector
