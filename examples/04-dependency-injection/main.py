"""Dependency injection: with dishka, with plain functions, with the test kit in Rebound's place.

`Orders` asks for a `Rebound` and knows nothing of where it comes from. `Config` takes your own
parts too: a Redis client, an aiohttp session, a logger, a clock, a function for events.
"""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from tempfile import TemporaryDirectory

from aiohttp import web
from dishka import Provider, Scope, from_context, make_async_container, provide

from rebound import Config, Destination, Rebound, Task
from rebound.testing import Kit

# -- the program -----------------------------------------------------------------------------


@dataclass(frozen=True)
class Settings:
    store_url: str
    partner: str


class Orders:
    def __init__(self, rebound: Rebound, settings: Settings) -> None:
        self._rebound = rebound
        self._partner = Destination(url=settings.partner)

    async def place(self, number: int) -> str:
        """Accept an order, and see to it that the partner hears of it."""
        task = Task(
            id=f"order-{number}",
            source="shop",
            destination=self._partner,
            delay=0,
            message_data={"order": number},
        )
        return str((await self._rebound.create_task(task)).id)


# -- 1. with dishka --------------------------------------------------------------------------


class Parts(Provider):
    """One of each for the whole program; dishka closes Rebound when the container is closed."""

    scope = Scope.APP
    settings = from_context(Settings)
    orders = provide(Orders)

    @provide
    def config(self, settings: Settings) -> Config:
        return Config(store_url=settings.store_url, logger=logging.getLogger("shop.rebound"))

    @provide
    async def rebound(self, config: Config) -> AsyncIterator[Rebound]:
        async with Rebound(config) as rebound:
            yield rebound


async def with_dishka(settings: Settings) -> None:
    container = make_async_container(Parts(), context={Settings: settings})
    orders = await container.get(Orders)
    id_ = await orders.place(1)
    rebound = await container.get(Rebound)
    print(f"dishka:          {id_} {await ended(rebound, id_)}")
    await container.close()


# -- 2. with plain functions -----------------------------------------------------------------


@asynccontextmanager
async def parts(settings: Settings) -> AsyncIterator[tuple[Orders, Rebound]]:
    """The same without a library: what is opened first is closed last."""
    async with Rebound(Config(store_url=settings.store_url)) as rebound:
        yield Orders(rebound, settings), rebound


async def with_plain_functions(settings: Settings) -> None:
    async with parts(settings) as (orders, rebound):
        id_ = await orders.place(2)
        print(f"plain functions: {id_} {await ended(rebound, id_)}")


# -- 3. in a test ----------------------------------------------------------------------------


class KitInstead(Provider):
    """Overrides one part: the kit's Rebound has a clock and a network that the test rules."""

    scope = Scope.APP

    @provide
    def kit(self) -> Kit:
        return Kit()

    @provide(override=True)
    def rebound(self, kit: Kit) -> Rebound:
        return kit.rebound


async def in_a_test(settings: Settings) -> None:
    container = make_async_container(Parts(), KitInstead(), context={Settings: settings})
    with await container.get(Kit) as kit:
        kit.script(settings.partner, 503, 503, 200)
        orders = await container.get(Orders)
        id_ = await orders.place(3)
        await kit.fast_forward("3d")
        for at, what in kit.timeline(id_):
            print(f"test kit:        {id_} {at:3.0f} s {what}")
    await container.close()


# -- around it -------------------------------------------------------------------------------


async def main() -> None:
    runner, url = await start_partner()
    with TemporaryDirectory() as folder:
        settings = Settings(store_url=f"sqlite:///{folder}/shop.db", partner=f"{url}/orders")
        await with_dishka(settings)
        await with_plain_functions(settings)
        await in_a_test(settings)
    await runner.cleanup()


async def ended(rebound: Rebound, id_: str) -> str:
    """The state in which a task has come to its end."""
    while not (task := await rebound.get_task(id_)) or task.finished_at is None:
        await asyncio.sleep(0.02)
    return str(task.state)


async def start_partner() -> tuple[web.AppRunner, str]:
    async def answer(request: web.Request) -> web.Response:
        print(f"                 the partner got {await request.json()}")
        return web.Response()

    app = web.Application()
    app.router.add_post("/orders", answer)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    host, port = runner.addresses[0]
    return runner, f"http://{host}:{port}"


if __name__ == "__main__":
    asyncio.run(main())
