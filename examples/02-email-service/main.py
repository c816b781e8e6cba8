"""E-mail: a function as the destination, and a mail server that is moody.

`send_email` is a plain function and may block: Rebound runs it in a thread. What it raises decides:
`Retry(after=…)` is another attempt then, `Reject` the end, anything else another attempt by the
task's policy.
"""

import asyncio
import smtplib
import time
from email.message import EmailMessage
from tempfile import TemporaryDirectory
from typing import Any

from rebound import Config, Destination, Rebound, Reject, Retry, Task

try:
    from aiosmtpd.smtp import SMTP, Envelope, Session
except ModuleNotFoundError:
    raise SystemExit("This example plays a mail server: pip install aiosmtpd") from None

STARTED = time.monotonic()


def say(text: str) -> None:
    print(f"{time.monotonic() - STARTED:5.2f} s  {text}", flush=True)


# -- the program -----------------------------------------------------------------------------


class Mailer:
    """Sends what a task says, over SMTP."""

    def __init__(self, host: str, port: int) -> None:
        self._server = (host, port)

    def send_email(self, task: Task) -> None:
        mail: Any = task.message_data
        to = mail["to"]
        message = EmailMessage()
        message["From"], message["To"] = "shop@example.com", to
        message["Subject"] = mail["subject"]
        message["Message-ID"] = f"<{task.id}@example.com>"  # the same on every attempt
        message.set_content("Thank you.")
        try:
            with smtplib.SMTP(*self._server, timeout=5) as server:
                server.send_message(message)
        except smtplib.SMTPRecipientsRefused as error:
            code, text = error.recipients[to]
            if code == 450:  # greylisted: the server wants us to come again
                say(f"{to}: {code} {text.decode()}")
                raise Retry(after=0.5) from error
            raise Reject(f"{code} {text.decode()}") from error
        except OSError as error:
            say(f"{to}: {type(error).__name__}")
            raise


async def tell_support(task: Task) -> None:
    """Gets the dead letters, which are tasks too."""
    mail: Any = task.message_data
    say(f"{mail['to']}: support is told: {task.dead_reason}, {task.last_error}")


def mail(id_: str, to: str) -> Task:
    return Task(
        id=id_,
        source="shop",
        destination=Destination(url="call://send-email"),
        dead_destination=Destination(url="call://tell-support"),
        delay=0,
        base_delay=0.5,
        message_data={"to": to, "subject": "Your order"},
    )


async def main() -> None:
    server = MailServer()
    await server.start()
    mailer = Mailer("127.0.0.1", server.port)
    with TemporaryDirectory() as folder:
        rebound = Rebound(Config(store_url=f"sqlite:///{folder}/rebound.db"))
        rebound.handler("send-email")(mailer.send_email)
        rebound.handler("tell-support")(tell_support)
        async with rebound:
            await rebound.create_task(mail("mail-1", "ada@example.com"))
            await ended(rebound, "mail-1")
            await rebound.create_task(mail("mail-2", "grey@example.com"))
            await ended(rebound, "mail-2")
            await rebound.create_task(mail("mail-3", "nobody@example.com"))
            await ended(rebound, "mail-3")

            await server.stop()
            say("the mail server is down")
            await rebound.create_task(mail("mail-4", "bob@example.com"))
            await attempted(rebound, "mail-4")
            await server.start()
            say("the mail server is up again")
            await ended(rebound, "mail-4")
    await server.stop()


async def attempted(rebound: Rebound, id_: str) -> None:
    while not (task := await rebound.get_task(id_)) or not task.attempts:
        await asyncio.sleep(0.02)


async def ended(rebound: Rebound, id_: str) -> None:
    while not (task := await rebound.get_task(id_)) or task.finished_at is None:
        await asyncio.sleep(0.02)


# -- the mail server -------------------------------------------------------------------------


class MailServer:
    """A real one, on a free port, that keeps nothing. The methods' names are those of aiosmtpd."""

    def __init__(self) -> None:
        self.port = 0
        self._seen: set[str] = set()

    async def start(self) -> None:
        self._server = await asyncio.get_running_loop().create_server(
            lambda: SMTP(self), "127.0.0.1", self.port
        )
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        self._server.close()
        await self._server.wait_closed()

    async def handle_RCPT(  # noqa: N802
        self, _server: SMTP, _session: Session, envelope: Envelope, to: str, _options: list[str]
    ) -> str:
        if to.startswith("nobody@"):
            return "550 no such user"
        if to.startswith("grey@") and to not in self._seen:
            self._seen.add(to)
            return "450 greylisted, come again"
        envelope.rcpt_tos.append(to)
        return "250 OK"

    async def handle_DATA(  # noqa: N802
        self, _server: SMTP, _session: Session, envelope: Envelope
    ) -> str:
        lines = (envelope.original_content or b"").decode().splitlines()
        (id_,) = [line for line in lines if line.startswith("Message-ID")]
        say(f"{envelope.rcpt_tos[0]}: the mail server has {id_}")
        return "250 OK"


if __name__ == "__main__":
    asyncio.run(main())
