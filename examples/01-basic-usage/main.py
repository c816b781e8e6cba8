"""Basic usage: one message that arrives late, one that does not, and how to send that one again.

Everything is in this process: the program, Rebound on an SQLite file, and a receiver to send to.
"""

import asyncio
import time
from collections import Counter
from tempfile import TemporaryDirectory

from aiohttp import web

from rebound import Config, Destination, Event, Rebound, Task

STARTED = time.monotonic()
ANSWERS = {"/orders": [503, 503, 200], "/refunds": [500, 500, 500, 200], "/dead-letters": [200]}
"""What the receiver answers to the first, second, … request on each path."""


def say(text: str) -> None:
    print(f"{time.monotonic() - STARTED:5.2f} s  {text}", flush=True)


def on_event(event: Event) -> None:
    """Called by Rebound for whatever happens."""
    task, attempt = event.task, event.attempt
    if task is None:
        return
    number, status = (attempt.number, attempt.status) if attempt else (0, None)
    match event.kind:
        case "task scheduled":
            say(f"{task.id}: scheduled")
        case "delivery failed":
            say(f"{task.id}: attempt {number} failed, HTTP {status}")
        case "task delivered":
            say(f"{task.id}: attempt {number} delivered, HTTP {status}")
        case "task dead":
            say(f"{task.id}: given up, {task.dead_reason}")
        case "dead letter delivered":
            say(f"{task.id}: its dead letter was delivered, HTTP {status}")


async def main() -> None:
    receiver, url = await start_receiver()
    with TemporaryDirectory() as folder:
        config = Config(store_url=f"sqlite:///{folder}/rebound.db", on_event=on_event)
        async with Rebound(config) as rebound:
            order = Task(
                id="order-1",
                source="shop",
                destination=Destination(url=f"{url}/orders"),
                delay=0,  # the first attempt at once
                base_delay=0.1,  # the next ones after 0.2 s, 0.4 s, 0.8 s …
                max_retries=5,
                message_data={"order": 1},
            )
            await rebound.create_task(order)
            await rebound.create_task(order)  # the same id and content: one task, one delivery
            await ended(rebound, "order-1")

            refund = Task(
                id="refund-1",
                source="shop",
                destination=Destination(url=f"{url}/refunds"),
                dead_destination=Destination(url=f"{url}/dead-letters"),
                delay=0,
                base_delay=0.1,
                max_retries=3,
                message_data={"refund": 1},
            )
            await rebound.create_task(refund)
            await ended(rebound, "refund-1")

            dead = await rebound.find(state="dead")
            say(f"dead: {[task.id for task in dead.tasks]}. The receiver is repaired: replay")
            await rebound.replay("refund-1")
            await ended(rebound, "refund-1")
    await receiver.cleanup()


async def ended(rebound: Rebound, id_: str) -> None:
    """Return when a task has come to its end. A real program has better things to do."""
    while not (task := await rebound.get_task(id_)) or task.finished_at is None:
        await asyncio.sleep(0.02)


async def start_receiver() -> tuple[web.AppRunner, str]:
    """A web server on a free port, and its address."""
    seen: Counter[str] = Counter()

    async def answer(request: web.Request) -> web.Response:
        answers = ANSWERS[request.path]
        seen[request.path] += 1
        return web.Response(status=answers[min(seen[request.path], len(answers)) - 1])

    app = web.Application()
    app.router.add_post("/{path}", answer)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    host, port = runner.addresses[0]
    return runner, f"http://{host}:{port}"


if __name__ == "__main__":
    asyncio.run(main())
