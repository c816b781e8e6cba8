"""What people would use instead, doing the same work: one folder a peer, settings in README.md."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from hashlib import sha256
from pathlib import Path
from typing import NamedTuple

from redis.asyncio import Redis

from bench.arrivals import Arrivals
from bench.machine import MESSAGE

HERE = Path(__file__).parent
MADE = HERE.parent / ".peers"
DATABASE = 9
"""The Redis database the peers have to themselves: it is emptied before each run."""


class Peer(NamedTuple):
    """A folder beside this file; webhooks that keep its worker busy for two seconds; its worker."""

    folder: str
    count: int
    worker: str


CELERY = "celery -A tasks worker -l ERROR --without-gossip --without-mingle --without-heartbeat -P "
PEERS = {
    "arq": Peer("arq", 3000, "arq tasks.Worker --custom-log-dict tasks.QUIET"),
    "taskiq": Peer(
        "taskiq",
        4000,
        "taskiq worker tasks:broker --workers 1 --log-level ERROR --no-parse"
        " --ack-type when_executed --max-async-tasks 100",
    ),
    "dramatiq": Peer(
        "dramatiq", 4000, "dramatiq-gevent tasks --processes 1 --threads 16 --skip-logging"
    ),
    "Celery, threads": Peer("celery", 1500, CELERY + "threads -c 16"),
    "Celery, gevent": Peer("celery", 1500, CELERY + "gevent -c 100"),
}


def make(folder: str) -> Path:
    """The programs of a peer, in a virtual environment of its own, made once a requirements.txt."""
    wanted = HERE / folder / "requirements.txt"
    home = MADE / folder
    stamp = home / "made-of"
    version = sha256(wanted.read_bytes()).hexdigest()
    if not stamp.exists() or stamp.read_text() != version:
        subprocess.run([sys.executable, "-m", "venv", "--clear", home], check=True)
        pip = [home / "bin" / "python", "-m", "pip", "install", "--quiet"]
        subprocess.run([*pip, "--disable-pip-version-check", "-r", wanted], check=True)
        stamp.write_text(version)
    return home / "bin"


async def deliver(peer: str, redis_url: str, sink_url: str, count: int) -> float:
    """Webhooks a second, from the first that reaches the sink to the last.

    All tasks are stored before the one worker process is started. Raises SystemExit when not
    each of them reaches the sink just once.
    """
    folder, _, worker = PEERS[peer]
    programs = make(folder)
    async with Redis.from_url(f"{redis_url}/{DATABASE}") as client:
        await client.flushdb()
    environment = {
        **os.environ, "BENCH_REDIS": f"{redis_url}/{DATABASE}", "BENCH_SINK": sink_url,
        "BENCH_MESSAGE": json.dumps(MESSAGE),
        "PYTHONWARNINGS": "ignore",  # Celery's about root
    }  # fmt: skip
    there = {"cwd": HERE / folder, "env": environment}
    subprocess.run([programs / "python", "tasks.py", str(count)], check=True, **there)
    sink = Arrivals(sink_url)
    running = subprocess.Popen(
        [programs / worker.split()[0], *worker.split()[1:]],
        stdout=subprocess.DEVNULL, start_new_session=True, **there,
    )  # fmt: skip
    try:
        return await sink.per_second(count)
    finally:
        os.killpg(running.pid, signal.SIGKILL)
        running.wait()
