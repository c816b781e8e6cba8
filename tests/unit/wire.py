"""The API behind the real server, and clients that send what they like."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from typing import Any, cast

import uvicorn
from yarl import URL

from rebound.adapters.api.app import Api
from rebound.connections import Connection
from tests.support import until


@asynccontextmanager
async def serving(api: Api, most: int = 1000, **limits: Any) -> AsyncIterator[str]:
    """Origin of a server that runs the API, with these limits of its connections."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        connection = cast("type[asyncio.Protocol]", partial(Connection, most=most, **limits))
        config = uvicorn.Config(
            api, http=connection, ws="none", lifespan="off", log_config=None, access_log=False
        )
        server = uvicorn.Server(config)
        serving = asyncio.create_task(server._serve([listener]))
        await until(lambda: server.started)
        host, port = listener.getsockname()
        yield f"http://{host}:{port}"
        server.should_exit = True
        await serving


async def connected(origin: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    url = URL(origin)
    return await asyncio.open_connection(url.host, url.port)


async def raw(origin: str, *parts: bytes) -> bytes:
    """Send bytes as they are, and return everything until the server closes."""
    reader, writer = await connected(origin)
    for part in parts:
        writer.write(part)
        await writer.drain()
    answer = await reader.read()
    writer.close()
    await writer.wait_closed()
    return answer
