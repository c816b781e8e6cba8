"""How fast, and how late, is what is due delivered over HTTP by one worker process?"""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time

from aiohttp import web

from bench.machine import Row, environment, free_port, percentile, submitting, task

LANES = 4


async def throughput(store_url: str, namespace: str, url: str, target: float) -> list[Row]:
    """Tasks are stored first, then one `rebound work` delivers them."""
    count = 30_000
    async with submitting(store_url, namespace) as rebound:
        tasks = [task(url, delay=0, lane=f"lane{n % LANES}") for n in range(count)]
        for at in range(0, count, 500):
            await rebound.create_tasks(tasks[at : at + 500])

        async def left() -> bool:
            page = await rebound.find(state="scheduled", source="bench", limit=1)
            return any(t.lane and t.lane.startswith("lane") for t in page.tasks)

        worker = work(store_url, namespace)
        try:
            while not (await rebound.find(state="succeeded", limit=1)).tasks:
                await asyncio.sleep(0.005)
            began = time.perf_counter()
            while await left():
                await asyncio.sleep(0.05)
            took = time.perf_counter() - began
        finally:
            worker.terminate()
            worker.wait()
    name = "sqlite" if store_url.startswith("sqlite") else "redis"
    return [Row(f"claim, deliver, settle: one worker, {name}", count / took, "tasks/s", target)]


async def lateness(store_url: str, namespace: str) -> list[Row]:
    """500 tasks a second, each due half a second after it was handed over."""
    rate, seconds = 500, 8
    due: dict[str, float] = {}
    late: list[float] = []

    async def hook(request: web.Request) -> web.Response:
        now = time.time()
        late.append(now - due[request.headers["X-Rebound-Task-Id"]])
        return web.Response()

    app = web.Application()
    app.router.add_post("/hook", hook)
    runner = web.AppRunner(app)
    await runner.setup()
    port = free_port()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    worker = work(store_url, namespace)
    try:
        async with submitting(store_url, namespace) as rebound:
            began = time.perf_counter()
            pending = set()
            for n in range(rate * seconds):
                await asyncio.sleep(max(0, began + n / rate - time.perf_counter()))
                due[f"{namespace}-{n}"] = time.time() + 0.5
                one = task(f"http://127.0.0.1:{port}/hook", id=f"{namespace}-{n}", delay=0.5)
                pending.add(asyncio.create_task(rebound.create_task(one)))
            await asyncio.gather(*pending)
            while len(late) < rate * seconds:
                await asyncio.sleep(0.05)
    finally:
        worker.terminate()
        worker.wait()
        await runner.cleanup()
    late = sorted(late[rate:])
    return [
        Row(
            "lateness, due to sent, 500 tasks/s, p50", percentile(late, 0.5) * 1000, "ms", 50, False
        ),
        Row(
            "lateness, due to sent, 500 tasks/s, p99",
            percentile(late, 0.99) * 1000,
            "ms",
            50,
            False,
        ),
        Row("earliest attempt before its due time", max(0.0, -late[0]) * 1000, "ms", 1, False),
    ]


def work(store_url: str, namespace: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-m", "rebound", "work"], env=environment(store_url, namespace)
    )
