"""The process around Rebound: socket, signals, HTTP server, and the order of start and stop."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
from collections.abc import Coroutine
from typing import TYPE_CHECKING, Any, Final

from rebound import __version__
from rebound.addresses import bracketed
from rebound.domain.errors import ReboundError, StoreUnavailable, StoreUnusable
from rebound.embedded import Rebound
from rebound.ports import Event

if TYPE_CHECKING:
    from rebound.settings import Config

STORE_PAUSE: Final = 0.5
"""Seconds between two looks for a store that does not answer at the start."""
LINGER: Final = 1
"""Seconds that requests under way get when the server stops."""
KEEP_ALIVE: Final = 75
"""Seconds that an idle connection is kept: longer than proxies and pools keep theirs."""


class CannotServe(ReboundError):
    """The process cannot do what it was started for."""


def serve(config: Config, *, worker: bool = True) -> None:
    """Run the API, and a worker, until a signal. Raises CannotServe or StoreUnusable."""
    _require_server()
    with listening(*config.address) as server_socket:
        print_line(f"{config.store_shown} · {url_of(server_socket)}")
        run(_serving(config, server_socket, worker=worker))


def work(config: Config) -> None:
    """Run a worker until a signal. Raises StoreUnusable."""
    print_line(f"{config.store_shown} · worker without API")
    run(_working(config))


def run(main: Coroutine[Any, Any, None]) -> None:
    """Run `main` in a new event loop, uvloop's where it is installed."""
    try:
        import uvloop
    except ImportError:
        asyncio.run(main)
    else:
        uvloop.run(main)


def listening(host: str, port: int) -> socket.socket:
    """A socket that listens; port 0 takes any free one. Raises CannotServe."""
    try:
        family, kind, _, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        server = socket.socket(family, kind)
    except OSError as error:
        raise CannotServe(f"cannot listen on {host}: {error.strerror or error}") from None
    try:
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        server.bind(address)
        server.listen(2048)
    except OSError as error:
        server.close()
        reason = error.strerror or str(error)
        where = f"{bracketed(host)}:{port}"
        raise CannotServe(f"cannot listen on {where}: {reason.lower()}") from None
    server.setblocking(False)
    return server


def url_of(server: socket.socket) -> str:
    """The base URL of a listening socket."""
    host, port = server.getsockname()[:2]
    return f"http://{bracketed(host)}:{port}"


def print_line(text: str) -> None:
    """The first line of a process: version, store and address."""
    os.write(1, f"rebound {__version__} · {text}\n".encode())


def until_signal() -> asyncio.Event:
    """An event that SIGTERM or SIGINT sets. A second one ends the process at once, with 1."""
    stop = asyncio.Event()

    def stopping() -> None:
        if stop.is_set():
            os._exit(1)
        stop.set()

    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping)
    return stop


@contextlib.asynccontextmanager
async def http_server(rebound: Rebound, server_socket: socket.socket) -> Any:
    """Serve the API of `rebound` on the socket; at the end let requests under way finish."""


async def _serving(config: Config, server_socket: socket.socket, *, worker: bool) -> None:
    stop = until_signal()
    rebound = Rebound(config, worker=worker)
    server = make_server(rebound)
    serving = asyncio.create_task(server.serve(sockets=[server_socket]))
    serving.add_done_callback(lambda _: stop.set())
    try:
        await _started(rebound, stop)
        await stop.wait()
        await rebound.drain()
    finally:
        server.should_exit = True
        await asyncio.gather(serving, return_exceptions=True)
        await rebound.close()


async def _working(config: Config) -> None:
    stop = until_signal()
    rebound = Rebound(config)
    try:
        await _started(rebound, stop)
        await stop.wait()
    finally:
        await rebound.close()


async def _started(rebound: Rebound, stop: asyncio.Event) -> None:
    """Wait for the store, unless `stop` comes first. Raises StoreUnusable."""
    waiting = False
    while not stop.is_set():
        try:
            await rebound.start()
        except StoreUnusable:
            raise
        except StoreUnavailable as error:
            if not waiting:
                rebound.engine.emit(Event("store unavailable", detail=str(error)))
            waiting = True
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), STORE_PAUSE)
        else:
            if waiting:
                rebound.engine.emit(Event("store back"))
            return
