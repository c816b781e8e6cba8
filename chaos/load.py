"""Open-loop load: so many tasks a second, whatever becomes of the ones before."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

import aiohttp
import msgspec

from chaos.account import seconds
from chaos.receiver import BROKEN, Receiver, failing, slow

SOURCE = "chaos"
PATIENCE = 60.0
"""Seconds for which a client repeats a POST that was not answered with 2xx."""

Make = Callable[[int], dict[str, Any]]


class Load:
    """POSTs tasks one by one and remembers which were accepted. Repeats with the same id what
    was not confirmed, as a client should."""

    def __init__(self, url: Callable[[], str], make: Make, prefix: str = "t") -> None:
        """`url()` is where the service is just now; `make(n)` the n-th task without its id."""
        self._url = url
        self._make = make
        self._prefix = prefix
        self.planned = 0
        self.accepted: list[str] = []
        self.waits: list[float] = []
        """Seconds from its planned time to the acceptance of each."""
        self.due: dict[str, float] = {}
        """Id -> when it was first due by the answer, seconds since the epoch."""
        self.answers: Counter[int] = Counter()
        """Status -> how often; 0 is a connection that broke or did not come about."""
        self.refused: dict[str, str] = {}
        """Id -> answer, of what the service will not take: never expected."""
        self.repeated: set[str] = set()
        self._stop = asyncio.Event()

    async def run(self, rate: float, seconds: float) -> None:
        """Send `rate` tasks a second for so long, or until `stop`; return when all are answered."""
        connector = aiohttp.TCPConnector(limit=64)
        timeout = aiohttp.ClientTimeout(total=10)
        async with aiohttp.ClientSession(connector=connector, timeout=timeout) as session:
            under_way: set[asyncio.Task[None]] = set()
            began, first = time.monotonic(), self.planned
            for n in range(int(rate * seconds)):
                await asyncio.sleep(max(0.0, began + n / rate - time.monotonic()))
                if self._stop.is_set():
                    break
                self.planned += 1
                one = asyncio.create_task(self._submit(session, first + n))
                under_way.add(one)
                one.add_done_callback(under_way.discard)
            await asyncio.gather(*under_way)

    @property
    def sent(self) -> list[str]:
        """Ids of all that were planned so far, answered or not."""
        return [f"{self._prefix}{n}" for n in range(self.planned)]

    def stop(self) -> None:
        """Plan nothing more."""
        self._stop.set()

    async def _submit(self, session: aiohttp.ClientSession, n: int) -> None:
        id_, began = f"{self._prefix}{n}", time.monotonic()
        task = {"id": id_, "source": SOURCE, "delay": 0, **self._make(n)}
        while time.monotonic() < began + PATIENCE:
            status, text = await self._post(session, task)
            self.answers[status] += 1
            if status in (200, 201):
                self.accepted.append(id_)
                due = msgspec.json.decode(text)["next_attempt_at"]
                if due is not None:
                    self.due[id_] = seconds(due)
                self.waits.append(time.monotonic() - began)
                return
            if status not in (0, 503):
                self.refused[id_] = f"{status} {text}"
                return
            self.repeated.add(id_)
            await asyncio.sleep(0.2)

    async def _post(self, session: aiohttp.ClientSession, task: dict[str, Any]) -> tuple[int, str]:
        try:
            async with session.post(f"{self._url()}/tasks", json=task) as answer:
                return answer.status, await answer.text()
        except (aiohttp.ClientError, TimeoutError) as error:
            return 0, repr(error)


def mixed(receiver: Receiver, seed: int = 1, lanes: int = 8) -> Make:
    """Of ten tasks eight are taken within 0.1 s, one at the second attempt, one never: a dead
    letter."""
    receiver.answers["/slow"] = slow(0.1, seed)
    receiver.answers["/flaky"] = failing(1)
    receiver.answers["/broken"] = BROKEN

    def make(n: int) -> dict[str, Any]:
        host = 1 + n // 10 % lanes
        path = {8: "/flaky", 9: "/broken"}.get(n % 10, "/slow")
        task = {"destination": {"url": receiver.url(path, host)}, "base_delay": 1, "max_retries": 2}
        if path == "/broken":
            task["dead_destination"] = {"url": receiver.url("/dead", host)}
        return task

    return make
