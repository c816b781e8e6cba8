"""`rebound demo`: service, store and a flaky receiver in one process, with what happens live."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import sys
import time
from collections.abc import Mapping, Set
from dataclasses import replace
from pathlib import Path
from socket import socket
from tempfile import TemporaryDirectory
from typing import Final

from rebound import __version__, service
from rebound.cli.receiver import receiving
from rebound.domain.destination import Destination
from rebound.domain.task import Task
from rebound.embedded import Rebound
from rebound.ports import Event
from rebound.settings import Config
from rebound.settings.readers import spoken
from rebound.testing.script import Script

TIME_LIMIT: Final = 14.0
"""Seconds after which the demo goes on, whatever has happened."""
PORTS_TRIED: Final = 100
RECEIVER: Final[Mapping[str, tuple[int, ...]]] = {
    "/fine": (200,), "/flaky": (503, 503, 200), "/broken": (500,), "/dead-letters": (200,),
}  # fmt: skip
"""What each message gets in turn, by path."""
COLOURS: Final[Mapping[str, int]] = {
    "accepted": 2, "failed": 33, "delivered": 32, "gave up": 31, "dead letter": 35,
}  # fmt: skip
"""SGR codes by what happened (ECMA-48 section 8.3.117)."""


def run(flags: Mapping[str, str | None]) -> int:
    """Show everything, then keep the service up until a signal.

    Raises ValidationError or CannotServe.
    """
    with TemporaryDirectory(prefix="rebound-demo-") as folder:
        flags = {**flags, "store_url": f"sqlite:///{Path(folder) / 'rebound.db'}"}
        config = replace(  # with what would keep it from its own receiver left out
            Config.for_service(**flags), http_proxy_url=None, fatal_statuses=(),
            allow_private_networks=True, denied_networks=(), allowed_hosts=(), allowed_ports=(),
            https_only=False,
        )  # fmt: skip
        service.require_server(config)
        with _listening(*config.address) as server_socket:
            service.run(_play(config, server_socket))
    print("\nStopped; the demo's store is gone.")
    return 0


def _listening(host: str, port: int) -> socket:
    """A socket on that port, or where it is taken on the next free one. Raises CannotServe."""
    for candidate in range(port, min(port + PORTS_TRIED, 65536)):
        with contextlib.suppress(service.CannotServe):
            return service.listening(host, candidate)
    return service.listening(host, port)


class Screen:
    """Prints what happens to the demo's tasks, a line each, with the time since the start."""

    def __init__(self) -> None:
        self._started = time.monotonic()
        self._coloured = sys.stdout.isatty() and not os.environ.get("NO_COLOR")
        self._ended: set[str] = set()
        self._changed = asyncio.Event()

    def __call__(self, event: Event) -> None:
        """Print `event`, unless another line says the same."""
        told = _told(event)
        if told is None or event.task is None:
            return
        what, how = told
        label = f"{what:<11}"
        if self._coloured:
            label = f"\x1b[{COLOURS[what]}m{label}\x1b[0m"
        elapsed = time.monotonic() - self._started
        print(f"  {elapsed:6.2f} s  {event.task.id:<8} {label}  {how}", flush=True)
        if event.task.finished_at is not None:
            self._ended.add(event.task.id)
            self._changed.set()

    async def until_ended(self, ids: Set[str], stop: asyncio.Event) -> None:
        """Return when the tasks have come to an end, at `stop`, or when it takes too long."""
        stopping = asyncio.create_task(stop.wait())
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(TIME_LIMIT):
                while not ids <= self._ended and not stop.is_set():
                    self._changed.clear()
                    changed = asyncio.create_task(self._changed.wait())
                    await asyncio.wait([changed, stopping], return_when=asyncio.FIRST_COMPLETED)
                    changed.cancel()
        stopping.cancel()


def _told(event: Event) -> tuple[str, str] | None:
    """What happened, and how, in words; None for what needs no line of its own."""
    task, attempt = event.task, event.attempt
    if task is None:
        return None
    tried = f"attempt {attempt.number}" if attempt else ""
    answer = f"HTTP {attempt.status}" if attempt and attempt.status else task.last_error or ""
    match event.kind:
        case "task scheduled":
            return "accepted", f"{task.destination.method or 'POST'} {task.destination.url}"
        case "delivery failed":
            again = ""
            if task.due_at and task.updated_at and task.due_at > task.updated_at:
                again = f", next try in {spoken(round(task.due_at - task.updated_at, 1))}"
            return "failed", f"{tried}: {answer}{again}"
        case "task delivered":
            return "delivered", f"{tried}: {answer}"
        case "task dead":
            letter = "; now its dead letter" if task.dead_destination else ""
            return "gave up", f"{task.dead_reason} after {task.attempt} attempts{letter}"
        case "dead letter delivered":
            to = task.dead_destination
            return "dead letter", f"delivered to {to.url if to else ''}: {answer}"
        case _:
            return None


def _tasks(receiver: str) -> list[Task]:
    """One task that succeeds, one that succeeds late, and one that never does."""

    def task(id_: str, path: str, max_retries: int) -> Task:
        return Task(
            id=id_, source="demo", destination=Destination(url=f"{receiver}{path}"),
            dead_destination=Destination(url=f"{receiver}/dead-letters"), delay=0,
            base_delay=0.5, max_retries=max_retries, message_data={"from": id_},
        )  # fmt: skip

    return [task("smooth", "/fine", 5), task("bumpy", "/flaky", 5), task("doomed", "/broken", 3)]


async def _play(config: Config, server_socket: socket) -> None:
    stop = service.until_signal()
    quiet = logging.getLogger("rebound.cli.demo")
    quiet.disabled = True
    screen = Screen()
    rebound = Rebound(replace(config, on_event=screen, logger=quiet))
    url = service.url_of(server_socket)
    print(f"rebound {__version__} · demo · sqlite in a temporary folder · {url}\n", flush=True)
    scripts = {path: Script(*statuses) for path, statuses in RECEIVER.items()}
    async with receiving(scripts, service.listening("127.0.0.1", 0)) as receiver:

        async def scenes() -> None:
            tasks = _tasks(receiver)
            await rebound.create_tasks(tasks)
            await screen.until_ended({task.id for task in tasks}, stop)
            if not stop.is_set():
                print(_invitation(url, receiver), flush=True)

        await service.serve_until(stop, rebound, server_socket, scenes)


def _invitation(url: str, receiver: str) -> str:
    task = {
        "id": "mine", "source": "me", "destination": {"url": f"{receiver}/flaky"},
        "delay": 0, "base_delay": 0.5, "message_data": "hello",
    }  # fmt: skip
    return f"""
The service stays up; Ctrl-C ends it. Your turn, in another terminal:

  curl -s {url}/tasks -d '{json.dumps(task)}'
  curl -s {url}/tasks/mine

{url}/docs describes the API.
"""
