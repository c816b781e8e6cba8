"""Webhooks: signed, delivered at least once, acted on once, and an endpoint that is gone.

The sender signs the body. The receiver checks the signature and remembers `X-Message-Key`, which
is the same on every attempt, so a message that comes twice is acted on once.
"""

import asyncio
import hashlib
import hmac
import json
import time
from collections import Counter
from tempfile import TemporaryDirectory

from aiohttp import web

from rebound import Config, Destination, Event, Rebound, Task

STARTED = time.monotonic()
SECRET = b"whsec-of-this-customer"
DISABLED: set[str] = set()
"""Endpoints that said that they are gone."""


def say(text: str) -> None:
    print(f"{time.monotonic() - STARTED:5.2f} s  {text}", flush=True)


# -- the sender ------------------------------------------------------------------------------


def signature(body: bytes) -> str:
    return "sha256=" + hmac.new(SECRET, body, hashlib.sha256).hexdigest()


def webhook(id_: str, url: str, event: dict[str, object]) -> Task:
    body = json.dumps(event)  # a string is sent byte for byte, so the signature fits
    return Task(
        id=id_,
        source="shop",
        destination=Destination(
            url=url,
            headers={"X-Signature-256": signature(body.encode())},
            timeout=1,  # second
            fatal_statuses=[410],  # gone: not worth another attempt
        ),
        delay=0,
        base_delay=0.1,
        message_data=body,
    )


def on_event(event: Event) -> None:
    task, attempt = event.task, event.attempt
    if event.kind == "delivery failed" and task and attempt:
        how = f"HTTP {attempt.status}" if attempt.status else attempt.outcome
        say(f"sender    {task.id}: attempt {attempt.number}, {how}")
    elif event.kind == "task delivered" and task and attempt:
        say(f"sender    {task.id}: attempt {attempt.number}, delivered")
    elif event.kind == "task dead" and task and task.dead_reason == "rejected":
        DISABLED.add(task.destination.url or "")
        say(f"sender    {task.id}: {task.dead_reason}, so this endpoint is switched off")


async def main() -> None:
    runner, url = await start_receiver()
    with TemporaryDirectory() as folder:
        config = Config(store_url=f"sqlite:///{folder}/rebound.db", on_event=on_event)
        async with Rebound(config) as rebound:
            for task in (
                webhook("slow-answer", f"{url}/hooks", {"type": "order.paid", "order": 1}),
                webhook("too-many", f"{url}/busy", {"type": "order.paid", "order": 2}),
                webhook("gone", f"{url}/gone", {"type": "order.paid", "order": 3}),
            ):
                await rebound.create_task(task)
                await ended(rebound, str(task.id))
    await runner.cleanup()


async def ended(rebound: Rebound, id_: str) -> None:
    while not (task := await rebound.get_task(id_)) or task.finished_at is None:
        await asyncio.sleep(0.02)


# -- the receiver ----------------------------------------------------------------------------


class Shop:
    """A customer's endpoint. What it remembers belongs in its database."""

    def __init__(self) -> None:
        self.handled: set[str] = set()
        self.requests: Counter[str] = Counter()

    async def hooks(self, request: web.Request) -> web.Response:
        """Acts, but the first time it answers too late."""
        body, key = await request.read(), request.headers["X-Message-Key"]
        if not hmac.compare_digest(request.headers["X-Signature-256"], signature(body)):
            return web.Response(status=401)
        if key in self.handled:
            say(f"receiver  {key}: known, nothing to do")
            return web.Response()
        self.handled.add(key)
        say(f"receiver  {key}: signature good, acts on {json.loads(body)}")
        await asyncio.sleep(2)
        return web.Response()

    async def busy(self, request: web.Request) -> web.Response:
        """Asks for a second of patience."""
        self.requests[request.path] += 1
        if self.requests[request.path] == 1:
            return web.Response(status=429, headers={"Retry-After": "1"})
        return web.Response()

    async def gone(self, request: web.Request) -> web.Response:
        return web.Response(status=410)


async def start_receiver() -> tuple[web.AppRunner, str]:
    shop, app = Shop(), web.Application()
    app.router.add_post("/hooks", shop.hooks)
    app.router.add_post("/busy", shop.busy)
    app.router.add_post("/gone", shop.gone)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    host, port = runner.addresses[0]
    return runner, f"http://{host}:{port}"


if __name__ == "__main__":
    asyncio.run(main())
