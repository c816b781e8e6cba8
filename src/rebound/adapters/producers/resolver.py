"""Looks host names up without asyncio's shared threads, and connects to allowed addresses only."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final, TypeVar, cast

from aiohttp.abc import AbstractResolver, ResolveResult

from rebound.domain.errors import Deferred, Rejected
from rebound.domain.networks import Guard

_T = TypeVar("_T")

MOST: Final = 1024
"""Look-ups under way. Each has a thread, which an attempt that is over does not end."""

_AddrInfo = tuple[int, int, int, str, tuple[Any, ...]]
"""As `socket.getaddrinfo` returns it."""


def resolver(guard: Guard | None) -> AbstractResolver:
    """What `TCPConnector(resolver=…)` takes."""
    return cast("AbstractResolver", Resolver(guard))


def guarded_socket(guard: Guard) -> Callable[[_AddrInfo], socket.socket]:
    """What `TCPConnector(socket_factory=…)` takes: called with the very address to connect to.

    A resolver sees no literal address, and nothing between it and connect() is trusted.
    """

    def make(info: _AddrInfo) -> socket.socket:
        family, kind, protocol, _, address = info
        if why := guard.address(str(address[0])):
            raise Rejected(f"{address[0]} is {why}")
        return socket.socket(family, kind, protocol)

    return make


class Resolver:
    """getaddrinfo, each look-up in a daemon thread of its own.

    asyncio would run it in its shared pool of a few threads, which a few names with a dead name
    server occupy: then they delay every other lane, and the end of the process.
    """

    def __init__(self, guard: Guard | None = None) -> None:
        """Without `guard` every address is as good as another."""
        self._guard = guard
        self._under_way = 0

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        """The allowed addresses of `host`.

        Raises OSError, Rejected where none is allowed, or Deferred where too many are looked up.
        """

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

        if self._under_way >= MOST:
            raise Deferred(f"{MOST} names are being looked up, which is the most", retry_after=1.0)
        self._under_way += 1
        try:
            found = await _in_daemon(look_up)
        finally:
            self._under_way -= 1
        if self._guard is None:
            return found
        reasons = [self._guard.address(each["host"]) for each in found]
        if reasons and all(reasons):
            # Without the address: names inside are no business of who creates tasks.
            raise Rejected(f"{host} is {reasons[0]}")
        return [each for each, why in zip(found, reasons, strict=True) if why is None]

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
