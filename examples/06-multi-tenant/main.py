"""Many tenants behind one gateway: a lane each, so that one tenant's trouble is nobody else's.

All tenants are reached through the same origin, which would be one lane. `lane=` makes one for
each. Then `initech`, whose receiver never answers, and `globex`, which has a backlog,
do not delay `acme` and `umbrella`. Within a lane, priority goes first.
"""

import asyncio
import time
from tempfile import TemporaryDirectory

from aiohttp import web

from rebound import Config, Destination, Event, Rebound, Task

STARTED = time.monotonic()
TASKS = {"initech": 100, "globex": 400, "globex, urgent": 5, "acme": 10, "umbrella": 10}
"""How many messages each tenant has; they are handed over in this order."""


class Board:
    """When each message was delivered, in seconds since the worker was started."""

    def __init__(self) -> None:
        self.started = time.monotonic()
        self.delivered: dict[str, list[float]] = {tenant: [] for tenant in TASKS}

    def on_event(self, event: Event) -> None:
        if event.kind == "task delivered" and event.task:
            self.delivered[event.task.source].append(time.monotonic() - self.started)

    def show(self) -> None:
        print("tenant          messages  delivered  the first after  the last after")
        for tenant, count in TASKS.items():
            times = self.delivered[tenant]
            span = f"  {times[0]:13.2f} s  {times[-1]:12.2f} s" if times else ""
            print(f"{tenant:14}  {count:8}  {len(times):9}{span}")


async def main() -> None:
    runner, url = await start_gateway()
    board = Board()
    with TemporaryDirectory() as folder:
        config = Config(
            store_url=f"sqlite:///{folder}/rebound.db",
            on_event=board.on_event,
            concurrency=64,  # attempts under way at once
            lane_concurrency=32,  # of these, for one lane
            shutdown_grace=0,
        )
        async with Rebound(config, worker=False) as rebound:
            await rebound.create_tasks(
                message(url, tenant, number)
                for tenant, count in TASKS.items()
                for number in range(count)
            )
        board.started = time.monotonic()
        async with Rebound(config):  # begins with all of it waiting, the troubled tenants in front
            while len(board.delivered["globex"]) < TASKS["globex"]:
                await asyncio.sleep(0.02)
    board.show()
    await runner.cleanup()


def message(url: str, part: str, number: int) -> Task:
    tenant, _, urgent = part.partition(", ")
    return Task(
        id=f"{part.replace(', ', '-')}-{number}",
        source=part,
        client_id=tenant,  # to look for: rebound list --client-id acme
        lane=f"tenant:{tenant}",
        is_priority=bool(urgent),
        destination=Destination(url=f"{url}/{tenant}"),
        delay=0,
        message_data={"number": number},
    )


async def start_gateway() -> tuple[web.AppRunner, str]:
    async def answer(request: web.Request) -> web.Response:
        await asyncio.sleep(3600 if request.path == "/initech" else 0.05)
        return web.Response()

    app = web.Application()
    app.router.add_post("/{tenant}", answer)
    runner = web.AppRunner(app, shutdown_timeout=0.1, handler_cancellation=True)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    host, port = runner.addresses[0]
    return runner, f"http://{host}:{port}"


if __name__ == "__main__":
    asyncio.run(main())
