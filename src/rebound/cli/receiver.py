"""`rebound receiver`: a server that answers by script, with a line for each request."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import AsyncIterator, Callable, Mapping
from datetime import datetime
from typing import Final

from aiohttp import web

from rebound import __version__, service
from rebound.testing.script import Answer, Script, parse

HOST: Final = "127.0.0.1"
ANY: Final = "*"
"""The path of a script that holds for all others."""
MOST: Final = 64 * 1024**2
"""Bytes of a request's body that are read at most."""

Told = Callable[[web.Request, int], None]
"""Called with each request and the status that it gets."""


def run(text: str, port: int) -> int:
    """Answer by the script until a signal. Raises ValidationError or CannotServe."""
    script = Script(*parse(text))
    with service.listening(HOST, port) as server_socket:
        service.run(_answering(script, text, server_socket))
    return 0


async def _answering(script: Script, text: str, server_socket: socket.socket) -> None:
    stop = service.until_signal()
    async with receiving({ANY: script}, server_socket, _print) as url:
        print(f"rebound {__version__} · receiver · {url} · {text}", flush=True)
        await stop.wait()


@contextlib.asynccontextmanager
async def receiving(
    scripts: Mapping[str, Script], server_socket: socket.socket, told: Told = lambda *_: None
) -> AsyncIterator[str]:
    """Answer each path by its script, every message from the beginning; yields the base URL.

    A path without a script, where there is none for `ANY` either, is 404.
    """

    async def answer(request: web.Request) -> web.Response:
        await request.read()
        script = scripts.get(request.path, scripts.get(ANY))
        line = script.next(f"{request.path} {_key(request)}") if script else Answer(404)
        assert isinstance(line, Answer)
        told(request, line.status)
        return web.Response(status=line.status, headers=line.headers, text=line.body)

    app = web.Application(client_max_size=MOST)
    app.router.add_route("*", "/{path:.*}", answer)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=1)
    await runner.setup()
    try:
        await web.SockSite(runner, server_socket).start()
        yield service.url_of(server_socket)
    finally:
        await runner.cleanup()


def _key(request: web.Request) -> str:
    return request.headers.get("X-Message-Key", "")


def _print(request: web.Request, status: int) -> None:
    time = datetime.now().time().isoformat("milliseconds")
    attempt = request.headers.get("X-Rebound-Attempt", "-")
    what = f"{request.method} {request.path_qs}  {_key(request) or '-'}  attempt {attempt}"
    print(f"{time}  {what}  {status}", flush=True)
