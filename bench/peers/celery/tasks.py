"""Celery, at its fastest: what was tried is in the README one folder up."""

from __future__ import annotations

import json
import os
import sys
from typing import Any

import urllib3
from celery import Celery

app = Celery("tasks", broker=os.environ["BENCH_REDIS"])
app.conf.update(
    task_acks_late=True,
    task_ignore_result=True,
    worker_prefetch_multiplier=16,
    worker_disable_rate_limits=True,
    worker_enable_remote_control=False,
    worker_send_task_events=False,
    broker_connection_retry_on_startup=True,
)
POOL = urllib3.PoolManager(maxsize=100, timeout=30, retries=False)


@app.task(autoretry_for=(Exception,), max_retries=5, retry_backoff=True)
def deliver(url: str, message: dict[str, Any]) -> None:
    response = POOL.request("POST", url, json=message)
    if response.status != 200:
        raise RuntimeError(response.status)


def enqueue(count: int) -> None:
    message = json.loads(os.environ["BENCH_MESSAGE"])
    with app.producer_pool.acquire() as producer:
        for _ in range(count):
            deliver.apply_async((os.environ["BENCH_SINK"], message), producer=producer)


if __name__ == "__main__":
    enqueue(int(sys.argv[1]))
