"""Looks host names up without asyncio's shared threads."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import TypeVar, cast

from aiohttp.abc import AbstractResolver, ResolveResult

_T = TypeVar("_T")


def resolver() -> AbstractResolver:
    """What `TCPConnector(resolver=…)` takes."""
    return cast("AbstractResolver", Resolver())


class Resolver:
    """getaddrinfo, each look-up in a daemon thread of its own.

    asyncio would run it in its shared pool of a few threads, which a few names with a dead name
    server occupy: then they delay every other lane, and the end of the process.
    """

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        """The addresses of `host`. Raises OSError."""

        def look_up() -> list[ResolveResult]:
            found = socket.getaddrinfo(
                host, port, family, socket.SOCK_STREAM, flags=socket.AI_ADDRCONFIG
            )
            numeric = socket.AI_NUMERICHOST | socket.AI_NUMERICSERV
            return [
                ResolveResult(
                    hostname=host, host=str(address[0]), port=port, family=kind, proto=protocol,
                    flags=numeric,
                )
                for kind, _, protocol, _, address in found
            ]  # fmt: skip

        return await _in_daemon(look_up)

    async def close(self) -> None:
        """Nothing is held."""


async def _in_daemon(call: Callable[[], _T]) -> _T:
    """What `call` returns or raises, from a thread that nobody waits for at exit."""
    loop = asyncio.get_running_loop()
    answer: asyncio.Future[_T] = loop.create_future()

    def settle(result: _T | None, error: Exception | None) -> None:
        if answer.done():
            return
        if error is not None:
            answer.set_exception(error)
        else:
            answer.set_result(result)  # type: ignore[arg-type]

    def run() -> None:
        result, failure = None, None
        try:
            result = call()
        except Exception as error:
            failure = error
        with suppress(RuntimeError):  # the loop may be closed by now
            loop.call_soon_threadsafe(settle, result, failure)

    threading.Thread(target=run, name="rebound-dns", daemon=True).start()
    return await answer
