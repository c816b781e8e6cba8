"""How much memory, and how soon is it there?"""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time

import redis.asyncio
from msgspec.json import encode

from bench.figures import Figures
from bench.machine import LATER, store, submitting, task
from bench.servers import environment, free_port, memory, rebound, running, work
from bench.sink import receiver

PENDING, TRIED = 100_000, 20_000
"""Tasks whose memory is measured."""
EMBEDDED = """
import asyncio, sys
from rebound import Config, Destination, Rebound, Task

async def main():
    config = Config(store_url=sys.argv[1], namespace="embedded", log_level="error")
    async with Rebound(config) as rebound:
        sent = [
            await rebound.create_task(Task(source="s", delay=0, destination=sink))
            for sink in [Destination(url=sys.argv[2])] * 100
        ]
        for one in sent:
            while not (await rebound.get_task(one.id)).finished_at:
                await asyncio.sleep(0.01)
        print(next(line for line in open("/proc/self/status") if line.startswith("VmRSS")))

asyncio.run(main())
"""


def embedded(figures: Figures, store_url: str, what: str, sink_url: str) -> None:
    """RSS of a program that has stored and delivered a hundred tasks."""
    command = [sys.executable, "-c", EMBEDDED, store_url, sink_url]
    said = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    figures.add(f"memory: embedded, {what}", int(said.split()[1]) / 1024)


async def pending(figures: Figures, url: str, what: str, lanes: int) -> None:
    """What Redis takes for a task that waits for its first attempt, beside its JSON."""
    async with redis.asyncio.Redis.from_url(url) as client:
        await client.flushall()
        async with submitting(url, "bench") as rebound:
            tasks = [task(delay=LATER, lane=f"lane{n % lanes}") for n in range(PENDING)]
            before = await _used(client)
            await store(rebound, tasks)
            after = await _used(client)
    figures.add(f"memory: Redis, {what}", (after - before) / PENDING - len(encode(tasks[0])))


async def tried(figures: Figures, url: str) -> None:
    """The same for one whose first attempt has failed."""
    count = 0

    def seen(_: bytes) -> bytes:
        nonlocal count
        count += 1
        return b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n"

    async with redis.asyncio.Redis.from_url(url) as client, receiver(seen) as to:
        await client.flushall()
        async with submitting(url, "bench") as rebound:
            before = await _used(client)
            tasks = [
                task(to, delay=0, base_delay=LATER, lane=f"lane{n % (TRIED // 100)}")
                for n in range(TRIED)
            ]
            await store(rebound, tasks)
        with work(url, "bench"):  # whose end settles what was answered
            while count < TRIED:
                await asyncio.sleep(0.02)
        after = await _used(client)
    figures.add("memory: Redis, tried", (after - before) / TRIED - len(encode(tasks[0])))


async def _used(client: redis.asyncio.Redis) -> int:
    return int((await client.info("memory"))["used_memory"])


def start(figures: Figures, url: str) -> None:
    """The help, and a service until it is ready; and what that takes idle."""
    began = time.perf_counter()
    subprocess.run(rebound("--help"), check=True, stdout=subprocess.DEVNULL)
    figures.add("start: --help", time.perf_counter() - began)
    port = free_port()
    command = rebound("serve", "--http-port", str(port))
    began = time.perf_counter()
    env = environment(url, "start")
    with running(*command, port=port, path="/readyz", env=env) as process:
        figures.add("start: serve", time.perf_counter() - began)
        time.sleep(1)
        figures.add("memory: idle service", memory(process.pid))
