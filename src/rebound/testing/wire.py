"""Where requests and records end in a test: at a script, in place of a network."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import msgspec
from yarl import URL

from rebound.domain.destination import place
from rebound.domain.errors import DeliveryError, ValidationError
from rebound.domain.task import Task
from rebound.domain.validation import message
from rebound.ports import Receipt
from rebound.testing.script import Answer, Line, Script


class Sent(NamedTuple):
    """One request, or record, that arrived at a destination."""

    at: float
    """By the kit's clock, seconds since the epoch."""
    method: str
    headers: Mapping[str, str]
    """Of a request; a record has none here."""
    body: bytes

    def json(self) -> Any:
        """The body as Python values."""
        return msgspec.json.decode(self.body)


class Wire:
    """Answers by script, and remembers what it was sent."""

    closed = False
    """As an aiohttp session has it."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._scripts: dict[str, Script] = {}
        self._sent: dict[str, list[Sent]] = {}

    def script(self, url: str, script: Script) -> None:
        """From now on `url` answers by this. Raises ValidationError for what is no URL."""
        self._scripts[_same(url)] = script

    def sent(self, url: str) -> list[Sent]:
        """What arrived at `url`, in order. Raises ValidationError for what is no URL."""
        return list(self._sent.get(_same(url), ()))

    def _arrived(self, url: str, id_: str, sent: Sent) -> Answer:
        """What the destination says to it; 200 without a script. Raises a scripted error."""
        self._sent.setdefault(url, []).append(sent)
        script = self._scripts.get(url)
        line: Line = script.next(id_) if script is not None else Answer()
        if isinstance(line, Exception):
            raise line
        return line

    async def request(
        self, method: str, url: URL, *, data: Any, headers: Mapping[str, str], **_: Any
    ) -> Response:
        """What `rebound.adapters.producers.http` asks of an aiohttp session."""
        body = data if isinstance(data, bytes) else data.read() if data else b""
        sent = Sent(self._clock(), method, headers, body)
        return Response(self._arrived(_same(str(url)), headers["X-Rebound-Task-Id"], sent))

    async def send(self, task: Task, /) -> Receipt:
        """As a `ports.Producer` of records: a status other than 2xx is a failure."""
        sent = Sent(self._clock(), "", {}, message(task))
        answer = self._arrived(_same(task.target.address), task.id, sent)
        if answer.status < 300:
            return Receipt()
        raise DeliveryError(f"scripted failure {answer.status}", retry_after=answer.retry_after)

    async def aclose(self) -> None:
        """Nothing is open."""


class Response:
    """What the HTTP producer reads of an aiohttp response; its own `content`, too."""

    def __init__(self, answer: Answer) -> None:
        self.status = answer.status
        self.headers = answer.headers
        self.content = self
        self.closed = False
        self._body = answer.body.encode()

    def at_eof(self) -> bool:
        """True when all of it was read."""
        return not self._body

    async def readany(self) -> bytes:
        """The rest of the body."""
        body, self._body = self._body, b""
        return body

    def close(self) -> None:
        """There is no connection."""
        self.closed = True


def _same(url: str) -> str:
    """Equal for URLs that requests cannot tell apart: without userinfo and fragment."""
    try:
        kind = place(url).kind
    except ValidationError as error:
        raise ValidationError(f"url: {url!r} {error}", field="url") from None
    return str(URL(url).with_user(None).with_fragment(None)) if kind == "http" else url
