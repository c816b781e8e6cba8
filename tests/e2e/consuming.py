"""A program with a RetryingConsumer, to be killed: `python -m tests.e2e.consuming OPTIONS`.

The options are one JSON object. It prints a line `<failures> <value>` for each record it handles.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from typing import Any

from rebound import Config, Event, Rebound, Record, RetryingConsumer


async def main(options: dict[str, Any]) -> None:
    def heard(event: Event) -> None:
        if event.kind == "task scheduled" and options.get("die"):
            os.kill(os.getpid(), signal.SIGKILL)

    async def handle(record: Record) -> None:
        value = (record.value or b"").decode()
        sys.stdout.write(f"{record.failures} {value}\n")
        sys.stdout.flush()
        await asyncio.sleep(options.get("takes", 0))
        if value.startswith("bad") and record.failures == 0:
            raise ValueError(value)

    config = Config(store_url=options["store"], on_event=heard, log_level="error")
    async with Rebound(config, worker=options.get("worker", False)) as rebound:
        consumer = RetryingConsumer(
            rebound, brokers=options["brokers"], group=options["group"], topics=options["topic"],
            handler=handle, retry={"base_delay": 0.1},
            config={"session.timeout.ms": 2000, "heartbeat.interval.ms": 200},
        )  # fmt: skip
        await consumer.run()


if __name__ == "__main__":
    asyncio.run(main(json.loads(sys.argv[1])))
