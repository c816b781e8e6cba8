"""dramatiq, at its fastest: what was tried is in the README one folder up."""

from __future__ import annotations

import json
import os
import sys
from typing import Any

import dramatiq
import urllib3
from dramatiq.brokers.redis import RedisBroker
from dramatiq.middleware import Retries

dramatiq.set_broker(RedisBroker(url=os.environ["BENCH_REDIS"], middleware=[Retries()]))
POOL = urllib3.PoolManager(maxsize=100, timeout=30, retries=False)


@dramatiq.actor(max_retries=5)
def deliver(url: str, message: dict[str, Any]) -> None:
    response = POOL.request("POST", url, json=message)
    if response.status != 200:
        raise RuntimeError(response.status)


def enqueue(count: int) -> None:
    message = json.loads(os.environ["BENCH_MESSAGE"])
    for _ in range(count):
        deliver.send(os.environ["BENCH_SINK"], message)


if __name__ == "__main__":
    enqueue(int(sys.argv[1]))
