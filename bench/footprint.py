"""How much memory, and how soon is it there?"""

from __future__ import annotations

import subprocess
import sys
import time

import msgspec
import redis.asyncio

from bench.figures import Figures
from bench.machine import LATER, store, submitting, task
from bench.servers import environment, free_port, memory, rebound, running

PENDING = 100_000
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
    """What Redis takes for a pending task, beside its JSON."""
    async with redis.asyncio.Redis.from_url(url) as client:
        await client.flushall()
        async with submitting(url, "bench") as store_:
            tasks = [task(delay=LATER, lane=f"lane{n % lanes}") for n in range(PENDING)]
            before = int((await client.info("memory"))["used_memory"])
            await store(store_, tasks)
            after = int((await client.info("memory"))["used_memory"])
    json = len(msgspec.json.encode(tasks[0]))
    figures.add(f"memory: Redis, {what}", (after - before) / PENDING - json)


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
