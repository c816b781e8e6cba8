"""Payments, the hybrid: quick tries while the customer waits, durable ones when that fails.

tenacity repeats the call for a moment, in memory. When the provider is really away, the payment
becomes a task, and the customer is told "pending". The payment's id is the task's id and the
provider's idempotency key, so nobody is charged twice, whatever is repeated.
"""

import asyncio
import time
from tempfile import TemporaryDirectory
from typing import Any

import aiohttp
from aiohttp import web
from tenacity import retry, retry_if_exception_type, stop_after_attempt, wait_exponential

from rebound import Config, Destination, Rebound, Reject, Task

STARTED = time.monotonic()
Payment = dict[str, Any]


def say(text: str) -> None:
    print(f"{time.monotonic() - STARTED:5.2f} s  {text}", flush=True)


# -- the shop --------------------------------------------------------------------------------


class Away(Exception):
    """The provider does not answer, or not sensibly: worth another try."""


class Declined(Exception):
    """The provider has answered, and it is no."""


class Payments:
    def __init__(self, session: aiohttp.ClientSession, provider: str, rebound: Rebound) -> None:
        self._session, self._provider, self._rebound = session, provider, rebound
        rebound.handler("charge")(self.charge_later)
        rebound.handler("payment-failed")(self.tell_customer)

    async def checkout(self, payment: Payment) -> str:
        """What to tell the customer, within a second."""
        try:
            await self.charge_quickly(payment)
        except Declined:
            return "declined"
        except Away:
            task = Task(
                id=payment["id"],
                source="checkout",
                destination=Destination(url="call://charge", timeout=10),
                dead_destination=Destination(url="call://payment-failed"),
                base_delay=0.5,  # rather 60 in earnest
                ttl=86400,  # a day later nobody wants to be charged any more
                message_data=payment,
            )
            await self._rebound.create_task(task)  # on disk when this returns
            return "pending"
        return "paid"

    @retry(
        retry=retry_if_exception_type(Away),
        stop=stop_after_attempt(3),
        wait=wait_exponential(multiplier=0.05),
        reraise=True,
    )
    async def charge_quickly(self, payment: Payment) -> None:
        await self.charge(payment)

    async def charge_later(self, task: Task) -> None:
        """One attempt of a task; when there is another one, Rebound decides."""
        payment: Any = task.message_data
        try:
            await self.charge(payment)
        except Declined as error:
            raise Reject(str(error)) from error
        say(f"shop      {task.id}: paid after all")

    async def charge(self, payment: Payment) -> None:
        headers = {"Idempotency-Key": payment["id"]}
        url = f"{self._provider}/charges"
        try:
            async with self._session.post(url, json=payment, headers=headers) as answer:
                if answer.status == 402:
                    raise Declined("card declined")
                if not answer.ok:
                    raise Away(f"HTTP {answer.status}")
        except (aiohttp.ClientError, TimeoutError) as error:
            raise Away(str(error)) from error

    async def tell_customer(self, task: Task) -> None:
        say(f"shop      {task.id}: the customer is told: {task.dead_reason}, {task.last_error}")


async def main() -> None:
    provider = Provider()
    runner, url = await start(provider)
    with TemporaryDirectory() as folder:
        rebound = Rebound(Config(store_url=f"sqlite:///{folder}/rebound.db"))
        async with aiohttp.ClientSession() as session:
            payments = Payments(session, url, rebound)
            async with rebound:
                for payment in (
                    {"id": "blip", "amount": 10},
                    {"id": "outage", "amount": 20},
                    {"id": "no-money", "amount": 30},
                ):
                    answer = await payments.checkout(payment)
                    say(f"customer  {payment['id']}: {answer}")
                    if answer == "pending":
                        await ended(rebound, str(payment["id"]))
    await runner.cleanup()
    print(f"charged: {provider.charged}")


async def ended(rebound: Rebound, id_: str) -> None:
    while not (task := await rebound.get_task(id_)) or task.finished_at is None:
        await asyncio.sleep(0.02)


# -- the provider ----------------------------------------------------------------------------


class Provider:
    """Is out of order at times, and once charges without being able to say so."""

    def __init__(self) -> None:
        self.charged: dict[str, int] = {}
        self._answers = {
            "blip": [503, 201],
            "outage": [503, 503, 503, 500, 201],  # the 500 comes after the charge
            "no-money": [503, 503, 503, 402],
        }

    async def charges(self, request: web.Request) -> web.Response:
        payment, key = await request.json(), request.headers["Idempotency-Key"]
        status = self._answers[key].pop(0)
        known = key in self.charged
        if status in (500, 201) and not known:
            self.charged[key] = payment["amount"]
        say(f"provider  {key}: HTTP {status}{', was charged before' if known else ''}")
        return web.Response(status=status)


async def start(provider: Provider) -> tuple[web.AppRunner, str]:
    app = web.Application()
    app.router.add_post("/charges", provider.charges)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    host, port = runner.addresses[0]
    return runner, f"http://{host}:{port}"


if __name__ == "__main__":
    asyncio.run(main())
