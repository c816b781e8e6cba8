"""The processes that the benchmarks run on: Redis, `rebound serve`, `rebound work`."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.request import urlopen


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return int(s.getsockname()[1])


@contextlib.contextmanager
def running(
    *command: str, port: int | None = None, path: str = "", **options: Any
) -> Iterator[subprocess.Popen[bytes]]:
    """A process until the end of the block; begins when `port` is open, and `path` answers 200."""
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, **options)
    try:
        if port is not None:
            _wait_for(port, path)
        yield process
    finally:
        process.terminate()
        process.wait()


def _wait_for(port: int, path: str) -> None:
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        with contextlib.suppress(OSError):
            if not path:
                socket.create_connection(("127.0.0.1", port)).close()
                return
            with urlopen(f"http://127.0.0.1:{port}{path}"):
                return
        time.sleep(0.002)
    raise SystemExit(f"nothing answers on port {port}")


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


def environment(store_url: str, namespace: str, **settings: str) -> dict[str, str]:
    own = {"store_url": store_url, "namespace": namespace, "log_level": "error"} | settings
    return os.environ | {f"REBOUND_{name.upper()}": value for name, value in own.items()}


def rebound(*arguments: str) -> tuple[str, ...]:
    return (sys.executable, "-m", "rebound", *arguments)


@contextlib.contextmanager
def work(
    store_url: str, namespace: str, *arguments: str, log: Path | None = None, **settings: str
) -> Iterator[subprocess.Popen[bytes]]:
    """One `rebound work`, with its logs in a file where one is named."""
    with contextlib.ExitStack() as stack:
        stderr = stack.enter_context(log.open("wb")) if log else None
        yield stack.enter_context(
            running(
                *rebound("work", *arguments),
                env=environment(store_url, namespace, **settings),
                stderr=stderr,
            )
        )


@contextlib.contextmanager
def serve(store_url: str, namespace: str) -> Iterator[int]:
    """One `rebound serve` that only takes tasks: its port."""
    port = free_port()
    command = rebound("serve", "--no-worker", "--http-port", str(port))
    env = environment(store_url, namespace)
    with running(*command, port=port, path="/readyz", env=env):
        yield port


def memory(pid: int, what: str = "VmRSS") -> float:
    """MB of a process: VmRSS now, VmHWM at most so far."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(re.search(rf"{what}:\s+(\d+) kB", status)[1]) / 1024  # type: ignore[index]
