"""What the machine does without Rebound: its limits, and the plainest loop that delivers.

    python -m bench.limit deliver STORE | empty PORT

are the processes that `make bench` measures beside `rebound work` and `rebound serve`.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import sys
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from typing import Any

import aiohttp
import msgspec
import redis.asyncio
import uvloop

from bench.figures import Figures
from bench.machine import LATER, rate, task
from bench.servers import free_port, running
from rebound import Config, service
from rebound.adapters.stores import redis_records as rows
from rebound.adapters.stores.redis_scripts import Script
from rebound.ports import Submission

UNDER_WAY, BATCH = 100, 50
"""Requests at once and claims of the bare loop, where it is at its best: with 1,024 and 200, as a
worker has by default, it does a seventh less."""
ADD = Script.load("add")
CLAIM = """
local now = redis.call('TIME')[1]
local ids = redis.call('ZRANGE', KEYS[1] .. 'due', '-inf', now, 'BYSCORE', 'LIMIT', 0, ARGV[1])
local found = {}
for i, id in ipairs(ids) do
  redis.call('ZREM', KEYS[1] .. 'due', id)
  redis.call('ZADD', KEYS[1] .. 'leases', now + 60, id)
  found[i] = { id, redis.call('HGET', KEYS[1] .. 't:' .. id, 'body') }
end
return found
"""
SETTLE = """
for i = 1, #ARGV, 2 do
  redis.call('ZREM', KEYS[1] .. 'leases', ARGV[i])
  redis.call('HSET', KEYS[1] .. 't:' .. ARGV[i], 'outcome', ARGV[i + 1])
end
"""
PREFIX = "{limit}:"
_NUMBERS = itertools.count()
_BODY = msgspec.json.encode(task(delay=LATER, lane="lane0"))


@contextlib.asynccontextmanager
async def bare(url: str, count: int) -> AsyncIterator[Callable[[], Awaitable[object]]]:
    """What does by redis-py alone, with ready arguments, what `create_task` does; `count` times."""
    async with redis.asyncio.Redis.from_url(url) as client:
        await client.script_load(ADD.text)
        calls = iter(list(_ready(count, 1)))
        yield lambda: client.evalsha(*next(calls))


async def pipelined(figures: Figures, url: str) -> None:
    """The script of `create_task` with ready arguments, by redis-py alone, many sent together."""
    async with redis.asyncio.Redis.from_url(url) as client:
        await client.script_load(ADD.text)
        many, large = list(_ready(20_000, 1)), list(_ready(80, 500))
        figures.add("pipelined EVALSHA", await _paced(client, many, 64, 1))
        figures.add("EVALSHA of 500", 500 * await _paced(client, large, 1, 2))


def _ready(scripts: int, tasks: int) -> Iterator[list[Any]]:
    for _ in range(scripts):
        these = [_submission(f"{next(_NUMBERS):036}") for _ in range(tasks)]
        yield [ADD.sha, 1, "{limit:0}:", 0, *rows.added(these)]


async def _paced(
    client: redis.asyncio.Redis, calls: Sequence[list[Any]], at_once: int, callers: int
) -> float:
    """Scripts a second, so many sent together by each of the callers."""
    left = iter(range(0, len(calls), at_once))

    async def some() -> None:
        first = next(left)
        if at_once == 1:
            await client.evalsha(*calls[first])
            return
        async with client.pipeline(transaction=False) as pipe:
            for call in calls[first : first + at_once]:
                pipe.evalsha(*call)
            await pipe.execute()

    return at_once * await rate(len(calls) // at_once, callers, some)


def _submission(id_: str) -> Submission:
    fields = task(delay=LATER, lane="lane0", id=id_).accepted()
    return Submission(fields, LATER, _BODY, bytes(16), "0.0", fields.queue)


async def fill(url: str, destination: str, message: object, count: int) -> None:
    """Tasks as the bare loop wants them."""
    async with redis.asyncio.Redis.from_url(url) as client:
        body = msgspec.json.encode({"url": destination, "message": message})
        for first in range(0, count, 1_000):
            async with client.pipeline(transaction=False) as pipe:
                for n in range(first, min(count, first + 1_000)):
                    pipe.hset(f"{PREFIX}t:{n:036}", "body", body)
                    pipe.zadd(f"{PREFIX}due", {f"{n:036}": 0})
                await pipe.execute()


class Task(msgspec.Struct):
    url: str
    message: msgspec.Raw


async def deliver(url: str) -> None:
    """Claim, deliver and settle with nothing else: no lanes, no policy, no history, no events."""
    client = redis.asyncio.Redis.from_url(url)
    claim, settle = client.register_script(CLAIM), client.register_script(SETTLE)
    room = asyncio.Semaphore(UNDER_WAY)
    done: deque[tuple[bytes, bytes]] = deque()
    some = asyncio.Event()

    async def one(session: aiohttp.ClientSession, id_: bytes, body: bytes) -> None:
        task = msgspec.json.decode(body, type=Task)
        headers = {"Content-Type": "application/json", "X-Task-Id": id_.decode()}
        async with session.post(task.url, data=bytes(task.message), headers=headers) as response:
            await response.read()
        done.append((id_, msgspec.json.encode({"status": response.status})))
        some.set()
        room.release()

    async def settling() -> None:
        while True:
            await some.wait()
            some.clear()
            while done:
                batch = [done.popleft() for _ in range(min(BATCH, len(done)))]
                await settle(keys=[PREFIX], args=[value for pair in batch for value in pair])

    settler = asyncio.create_task(settling())
    connector = aiohttp.TCPConnector(limit=0)
    running: set[asyncio.Task[None]] = set()
    async with aiohttp.ClientSession(connector=connector) as session:
        while not settler.done():
            for _ in range(BATCH):
                await room.acquire()
            found: list[Any] = await claim(keys=[PREFIX], args=[BATCH])
            for id_, body in found:
                call = asyncio.create_task(one(session, id_, body))
                running.add(call)
                call.add_done_callback(running.discard)
            for _ in range(BATCH - len(found)):
                room.release()
            if not found:
                await asyncio.sleep(0.05)


def empty(port: int) -> None:
    """The HTTP server of the service with a handler that reads the body and answers."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        while (await receive()).get("more_body"):
            pass
        body = b'{"id":"0193a7c0-0000-7000-8000-000000000000","state":"scheduled"}'
        headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
        await send({"type": "http.response.start", "status": 201, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    with service.listening("127.0.0.1", port) as socket:
        service.run(service.http_server(app, Config().max_connections).serve(sockets=[socket]))


def serving() -> tuple[int, Any]:
    """Port and process of the empty server."""
    port = free_port()
    return port, running(sys.executable, "-m", "bench.limit", "empty", str(port), port=port)


def delivering(url: str) -> Any:
    """The process of the bare loop."""
    return running(sys.executable, "-m", "bench.limit", "deliver", url)


if __name__ == "__main__":
    if sys.argv[1] == "empty":
        empty(int(sys.argv[2]))
    else:
        uvloop.run(deliver(sys.argv[2]))
