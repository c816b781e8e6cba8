"""The process around Rebound: socket, signals, HTTP server, and the order of start and stop."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import os
import signal
import socket
import sys
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from functools import partial
from typing import TYPE_CHECKING, Any, Final, cast

from rebound import __version__, supervisor
from rebound.domain.errors import ReboundError, StoreUnavailable, StoreUnusable, ValidationError
from rebound.embedded import Rebound
from rebound.ports import Event
from rebound.settings.access import require_keys
from rebound.settings.addresses import bracketed

if TYPE_CHECKING:
    import uvicorn

    from rebound.adapters.api.access import Access
    from rebound.adapters.producers.call import Handler
    from rebound.settings import Config

STORE_PAUSE: Final = 0.5
"""Seconds between two looks for a store that does not answer at the start."""
LINGER: Final = 1
"""Seconds that requests under way get when the server stops."""
MARGIN: Final = 1.8
"""Seconds after the grace when a process that is ending ends whatever holds it."""
KEEP_ALIVE: Final = 75
"""Seconds that an idle connection is kept: longer than proxies and pools keep theirs."""


class CannotServe(ReboundError):
    """The process cannot do what it was started for."""


def serve(config: Config, *, worker: bool = True) -> None:
    """Run the API, and a worker, until a signal.

    Raises ValidationError, CannotServe or StoreUnusable.
    """
    require_server(config)
    shared = supervisor.inherited()
    with shared or listening(*config.address) as server_socket:
        if shared is None:
            print_line(f"{config.store_shown} · {url_of(server_socket)}")
        run(_serving(config, server_socket, worker=worker))


def work(config: Config, handlers: Iterable[tuple[str, Handler]] = ()) -> None:
    """Run a worker until a signal, with these functions for `call://` destinations by name.

    Raises StoreUnusable, or ValidationError.
    """
    rebound = Rebound(config)
    for name, function in handlers:
        rebound.handler(name)(function)
    if not supervisor.supervised():
        print_line(f"{config.store_shown} · worker without API")
    run(_working(rebound))


def run(main: Coroutine[Any, Any, None]) -> None:
    """Run `main` in a new event loop, uvloop's where it is installed."""
    _collect_rarely()
    _open_many()
    try:
        import uvloop
    except ImportError:
        asyncio.run(main)
    else:
        uvloop.run(main)


def _collect_rarely() -> None:
    """Keep the garbage collector from the thousands of tasks under way, which are no garbage.

    With the defaults it takes a quarter of a worker's time. Only of processes that are ours.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(10_000, 20, 20)


def _open_many() -> None:
    """Take as many files as the system allows: a connection is one, a usual limit is 1024."""
    with contextlib.suppress(ImportError, OSError, ValueError):
        import resource

        _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def listening(host: str, port: int) -> socket.socket:
    """A socket that listens; port 0 takes any free one. Raises CannotServe."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        # `localhost` may be two addresses; most clients mean 127.0.0.1.
        found.sort(key=lambda info: info[0] != socket.AF_INET)
        family, kind, _, _, address = found[0]
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
    try:
        sys.stdout.write(f"rebound {__version__} · {text}\n")
        sys.stdout.flush()
    except OSError:  # such as a full disk: no reason not to work, and not to be tried once more
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)


def until_signal() -> asyncio.Event:
    """An event that SIGTERM or SIGINT sets. A second one ends the process at once, with 1."""
    stop = asyncio.Event()
    signalled = False

    def stopping() -> None:
        # Not where `stop` is set: a supervisor sets it as well, and a group gets a signal besides.
        nonlocal signalled
        if signalled:
            os._exit(1)
        signalled = True
        stop.set()

    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping)
    supervisor.follow(stop)
    return stop


def make_server(rebound: Rebound) -> uvicorn.Server:
    """The HTTP server of `rebound`, without signal handlers and logs of its own."""
    from rebound.adapters.api.app import create_app

    app = create_app(
        rebound.engine,
        config=rebound.config,
        not_ready=rebound.ready_error,
        access=_access(rebound.config),
    )
    return http_server(app, rebound.config.max_connections)


def http_server(app: Any, most: int) -> uvicorn.Server:
    """uvicorn for an ASGI application and at most so many connections."""
    import uvicorn

    from rebound.connections import Connection

    server = uvicorn.Server(
        uvicorn.Config(
            app,
            http=cast("type[asyncio.Protocol]", partial(Connection, most=most)),
            lifespan="off",
            ws="none",
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,
            timeout_keep_alive=KEEP_ALIVE,
            timeout_graceful_shutdown=LINGER,
        )
    )
    server.capture_signals = contextlib.nullcontext  # type: ignore[method-assign,assignment]
    return server


def _access(config: Config) -> Access | None:
    """The keys that the settings name; None where everybody may call."""
    from rebound.adapters.api.access import Access

    if not (config.api_keys or config.api_keys_submit):
        return None
    return Access(
        config.api_keys,
        config.api_keys_submit,
        rate=config.rate_limit_per_key,
        describes=config.environment != "prod",
    )


async def _serving(config: Config, server_socket: socket.socket, *, worker: bool) -> None:
    await serve_until(until_signal(), Rebound(config, worker=worker), server_socket)


async def serve_until(
    stop: asyncio.Event,
    rebound: Rebound,
    server_socket: socket.socket,
    then: Callable[[], Awaitable[None]] | None = None,
) -> None:
    """Run API and worker, `then` whatever is given, and on until `stop`. Raises StoreUnusable."""
    server = make_server(rebound)
    serving = asyncio.create_task(server.serve(sockets=[server_socket]))
    serving.add_done_callback(lambda _: stop.set())
    try:
        await started(rebound, stop)
        if then is not None:
            await then()
        await stop.wait()
        _leave_in_time(rebound.config)
        # The API answers on: load balancers must be able to see that this one is going away.
        draining = asyncio.create_task(rebound.drain())
        await asyncio.wait([draining], timeout=rebound.config.shutdown_grace)
        # What it cancels from here on are clients that dawdle, which is no error of ours.
        logging.getLogger("uvicorn.error").disabled = True
        server.should_exit = True
        await draining
    finally:
        server.should_exit = True
        try:
            await serving
        finally:
            await rebound.close()


async def _working(rebound: Rebound) -> None:
    stop = until_signal()
    try:
        await started(rebound, stop)
        await stop.wait()
        _leave_in_time(rebound.config)
    finally:
        await rebound.close()


def _leave_in_time(config: Config) -> None:
    """End the process even if a store or a name server never answers; leases see to the rest."""
    asyncio.get_running_loop().call_later(config.shutdown_grace + MARGIN, os._exit, 0)


async def started(rebound: Rebound, stop: asyncio.Event) -> None:
    """Wait for the store, unless `stop` comes first. Raises StoreUnusable."""
    stopping = asyncio.create_task(stop.wait())
    waiting = False
    while not stop.is_set():
        starting = asyncio.create_task(rebound.start())
        await asyncio.wait([starting, stopping], return_when=asyncio.FIRST_COMPLETED)
        if not starting.done():
            starting.cancel()
        try:
            await starting
        except StoreUnusable:
            raise
        except StoreUnavailable as error:
            if not waiting:
                rebound.engine.emit(Event("store unavailable", detail=str(error)))
            waiting = True
            await asyncio.wait([stopping], timeout=STORE_PAUSE)
        except asyncio.CancelledError:
            break
        else:
            supervisor.report_up()
            if waiting:
                rebound.engine.emit(Event("store back"))
            break
    stopping.cancel()


def require_server(config: Config) -> None:
    """Raise ValidationError where the HTTP server is not installed, or would be too open."""
    require_keys(config)
    try:
        import uvicorn  # noqa: F401
    except ImportError:
        raise ValidationError(
            "the HTTP service needs an extra: pip install 'rebound-retry[server]'"
        ) from None
