"""Counts what reached the sink: the same clock for Rebound and for its peers."""

from __future__ import annotations

import asyncio
import http.client
import time
from urllib.parse import urlsplit


class Arrivals:
    """The requests that reached a sink (`bench.machine.sink`) since this was made."""

    def __init__(self, url: str) -> None:
        self._sink = http.client.HTTPConnection(urlsplit(url).netloc)
        self._before = self._requests()

    def _requests(self) -> int:
        self._sink.request("GET", "/status")
        words = self._sink.getresponse().read().split()
        return int(words[words.index(b"requests") + 3])

    def count(self) -> int:
        self._before += 1  # to ask is a request as well
        return self._requests() - self._before

    async def per_second(self, count: int, within: float = 60) -> float:
        """How many came a second, from when the first was there until `count` were.

        Raises SystemExit when they are not there `within` so many seconds, or are more.
        """
        deadline = time.monotonic() + within
        while (first := self.count()) == 0 and time.monotonic() < deadline:
            await asyncio.sleep(0.002)
        began = time.perf_counter()
        while (came := self.count()) < count and time.monotonic() < deadline:
            await asyncio.sleep(0.02)
        took = time.perf_counter() - began
        if came != count:
            raise SystemExit(f"{came} webhooks reached the sink, not {count}")
        return (count - first) / took
