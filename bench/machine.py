"""What the benchmarks run on: a Redis, a sink for webhooks, and the table."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import NamedTuple
from urllib.request import urlopen

from rebound import Config, Destination, Rebound, Task

MESSAGE = {"order": 12345, "items": [{"sku": "A-1", "count": 2}], "note": "x" * 220}
"""About 300 bytes of JSON."""


class Row(NamedTuple):
    """One measured figure beside its target."""

    what: str
    figure: float
    unit: str
    target: float
    at_least: bool = True

    @property
    def met(self) -> bool:
        return self.figure >= self.target if self.at_least else self.figure <= self.target

    def line(self) -> str:
        sign = "≥" if self.at_least else "≤"
        verdict = "ok" if self.met else "MISSED"
        return (
            f"{self.what:<58}{self.figure:>12,.2f} {self.unit:<9}"
            f"{sign} {self.target:>9,.2f}   {verdict}"
        )


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return int(s.getsockname()[1])


def wait_for(port: int) -> None:
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        with socket.socket() as s:
            if s.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.01)
    raise SystemExit(f"nothing listens on port {port}")


def wait_ready(port: int) -> None:
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        with contextlib.suppress(OSError), urlopen(f"http://127.0.0.1:{port}/readyz"):
            return
        time.sleep(0.01)
    raise SystemExit(f"the service on port {port} does not get ready")


@contextlib.contextmanager
def running(*command: str, port: int, **options: object) -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, **options)  # type: ignore[call-overload]
    try:
        wait_for(port)
        yield process
    finally:
        process.terminate()
        process.wait()


@contextlib.contextmanager
def redis() -> Iterator[str]:
    """A redis-server without persistence, on a free port: its URL."""
    if shutil.which("redis-server") is None:
        raise SystemExit("the benchmarks need redis-server: apt-get install redis-server")
    port = free_port()
    with running(
        "redis-server", "--bind", "127.0.0.1", "--port", str(port), "--save", "",
        "--appendonly", "no", port=port,
    ):  # fmt: skip
        yield f"redis://127.0.0.1:{port}"


@contextlib.contextmanager
def sink() -> Iterator[str]:
    """Answers every request with 200: nginx, or a small server in Python where that is missing."""
    port = free_port()
    with tempfile.TemporaryDirectory() as folder:
        if shutil.which("nginx") is None:
            with running(sys.executable, "-m", "bench.sink", str(port), port=port):
                yield f"http://127.0.0.1:{port}/hook"
            return
        config = Path(folder) / "nginx.conf"
        config.write_text(
            f"daemon off; worker_processes 1; pid {folder}/pid; error_log /dev/null;"
            "events { worker_connections 4096; }"
            "http { access_log off; keepalive_requests 1000000; keepalive_timeout 75;"
            f"client_body_temp_path {folder}/b; server {{ listen 127.0.0.1:{port} backlog=4096;"
            'location / { return 200 "ok"; } } }'
        )
        with running(
            "nginx", "-c", str(config), "-p", folder, port=port, stderr=subprocess.DEVNULL
        ):
            yield f"http://127.0.0.1:{port}/hook"


def task(url: str, **fields: object) -> Task:
    fields.setdefault("message_data", MESSAGE)
    return Task(source="bench", destination=Destination(url=url), **fields)  # type: ignore[arg-type]


@contextlib.asynccontextmanager
async def submitting(store_url: str, namespace: str) -> AsyncIterator[Rebound]:
    config = Config(store_url=store_url, namespace=namespace, log_level="error")
    async with Rebound(config, worker=False) as rebound:
        yield rebound


async def spread(count: int, callers: int, one: Callable[[], object]) -> tuple[float, list[float]]:
    """`count` calls by so many callers at once: calls per second, and sorted seconds a call."""
    times: list[float] = []
    left = iter(range(count))

    async def caller() -> None:
        for _ in left:
            began = time.perf_counter()
            await one()  # type: ignore[misc]
            times.append(time.perf_counter() - began)

    began = time.perf_counter()
    await asyncio.gather(*(caller() for _ in range(callers)))
    return count / (time.perf_counter() - began), sorted(times)


def percentile(values: list[float], share: float) -> float:
    return values[min(len(values) - 1, int(len(values) * share))]


def environment(store_url: str, namespace: str) -> dict[str, str]:
    return {
        **os.environ, "REBOUND_STORE_URL": store_url, "REBOUND_NAMESPACE": namespace,
        "REBOUND_LOG_LEVEL": "error",
    }  # fmt: skip
