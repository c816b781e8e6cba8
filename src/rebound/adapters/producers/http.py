"""Delivers tasks to `http://` and `https://` destinations with aiohttp."""

from __future__ import annotations

import base64
import codecs
import io
import re
import time
from collections.abc import Collection, Sequence
from functools import lru_cache
from typing import Final, NamedTuple
from urllib.parse import quote_from_bytes, unquote_to_bytes

import aiohttp
from msgspec import UNSET
from yarl import URL

from rebound.adapters.producers.answers import sturdy
from rebound.adapters.producers.exchange import Answer, Exchange
from rebound.adapters.producers.failures import UNSENDABLE, explained, never_sent, too_late
from rebound.adapters.producers.limits import TimeLimits
from rebound.adapters.producers.provenance import VISIBLE, dead_letter
from rebound.adapters.producers.resolver import guarded_socket, resolver
from rebound.domain.attempt import MAX_RESPONSE, Leg
from rebound.domain.destination import DEFAULT_TIMEOUT, Base64
from rebound.domain.errors import DeliveryError, Rejected
from rebound.domain.networks import Guard
from rebound.domain.retry_after import retry_after
from rebound.domain.task import Task
from rebound.domain.validation import message
from rebound.ports import Receipt

MAX_READ: Final = 65536
"""Bytes of a response body that are read; then the connection is closed."""
KEEP_ALIVE: Final = 4.0
"""Seconds an idle connection is kept: just under the 5 s after which Node, uvicorn and Apache
close theirs, because a request that meets such a close is lost and costs the task an attempt."""
STALE: Final = 2
"""How many pooled connections of one attempt may turn out to be closed before anything could be
written to them, as after an answer from a server that closes without saying so."""

_AT_ONCE: Final = 2**20  # bytes above which aiohttp wants to write piece by piece
_READ_BUFFER: Final = 16384
_NO_LIMIT: Final = aiohttp.ClientTimeout()  # the one limit is that of `send`, exact to the ms
_OURS: Final = re.compile(r"host|content-length|transfer-encoding|x-message-key|x-rebound-.*", re.I)


class HttpProducer:
    """A `ports.Producer`. Pools and keeps alive its connections; keeps no cookies."""

    def __init__(
        self,
        *,
        fatal_statuses: Sequence[int | str] = (),
        proxy: str | None = None,
        session: aiohttp.ClientSession | None = None,
        version: str = "dev",
        guard: Guard = Guard(),  # noqa: B008
    ) -> None:
        """`fatal_statuses` hold where a destination names none: 300-599 or `3xx`, `4xx`, `5xx`.

        `proxy` is the URL of an HTTP proxy for every destination; the environment's settings do
        not count. A `session` of the caller is used as it is and never closed. Both look names up
        themselves: then `guard` judges what the URL says, and not the addresses of names.
        """
        self._guard = guard
        self._why_not = lru_cache(maxsize=4096)(guard.url)
        self._fatal: frozenset[int | str] = frozenset(fatal_statuses)
        self._proxy = URL(proxy) if proxy else None
        self._session = session
        self._borrowed = session is not None
        self._exchange: Exchange | None = None
        self._limits = TimeLimits()
        self._user_agent = f"rebound/{version}"

    async def send(self, task: Task, /) -> Receipt:
        """Deliver to `task.target`. Raises DeliveryError or Rejected, and nothing else.

        Only a complete 2xx answer within the destination's time limit counts as delivered; of
        a longer one the first 64 KiB are enough. Where another status was received, that status
        decides, even if its body never ended.
        """
        limit = task.target.timeout or DEFAULT_TIMEOUT
        deadline = self._limits(limit)
        response: Answer | None = None
        failure: DeliveryError | None = None
        kept = bytearray()
        try:
            with deadline:
                response = await self._request(task)
                await _read(response.content, kept)
        except Exception as error:
            failure = too_late(limit) if deadline.expired else explained(error)
        finally:
            if response is not None:
                response.close()
        # Raised out here, so that aiohttp's errors, which hold the whole URL, are not chained.
        if response is not None:
            text = _text(kept)
            if not 200 <= response.status < 300:
                raise self._refusal(task, response, text)
            if failure is None:
                return Receipt(response.status, text)
            failure.status, failure.response = response.status, text
        assert failure is not None
        raise failure

    async def aclose(self) -> None:
        """Close every connection, unless the session is the caller's."""
        exchange, self._exchange = self._exchange, None
        if exchange is not None:
            await exchange.close()
        session = self._session
        if session is not None and not self._borrowed:
            self._session = None
            await session.close()

    async def _request(self, task: Task) -> Answer:
        if why := self._why_not(task.target.address):
            raise Rejected(why)
        address = _address(task.target.address)
        body = message(task)
        headers = self._headers(task, address.authorization, len(body))
        method = task.target.method or "POST"
        ask = self._ask_in_session if self._borrowed or self._proxy else self._ask
        for _ in range(STALE):
            try:
                return await ask(method, address.url, headers, body)
            except aiohttp.ClientConnectionError as error:
                if not never_sent(error):
                    raise
        return await ask(method, address.url, headers, body)

    async def _ask(self, method: str, url: URL, headers: dict[str, str], body: bytes) -> Answer:
        if self._exchange is None:
            self._exchange = Exchange(self._connector(), read_buffer=_READ_BUFFER, most=MAX_READ)
        return await self._exchange.ask(method, url, headers, body)

    async def _ask_in_session(
        self, method: str, url: URL, headers: dict[str, str], body: bytes
    ) -> Answer:
        """By the caller's session with all that was set up there, or through the proxy."""
        return await (self._session or self._open()).request(
            method,
            url,
            data=body if 0 < len(body) <= _AT_ONCE else io.BytesIO(body) if body else None,
            headers=headers,
            skip_auto_headers=("Accept-Encoding",),
            allow_redirects=False,
            raise_for_status=False,
            auto_decompress=False,
            read_bufsize=_READ_BUFFER,
            proxy=self._proxy,
            timeout=_NO_LIMIT,
        )

    def _connector(self) -> aiohttp.BaseConnector:
        guard = None if self._proxy else self._guard  # the operator chose the proxy's address
        return sturdy(
            aiohttp.TCPConnector(
                limit=0,
                keepalive_timeout=KEEP_ALIVE,
                resolver=resolver(guard),
                socket_factory=guarded_socket(guard) if guard else None,
            )
        )

    def _open(self) -> aiohttp.ClientSession:
        self._session = aiohttp.ClientSession(
            connector=self._connector(),
            cookie_jar=aiohttp.DummyCookieJar(),
            trust_env=False,
            max_field_size=MAX_READ,
        )
        # aiohttp repeats a PUT, DELETE or GET whose connection broke. One attempt is one request.
        self._session._retry_connection = False
        return self._session

    def _headers(self, task: Task, authorization: str | None, length: int) -> dict[str, str]:
        given = task.target.headers
        headers: dict[str, str] = {}
        names: set[str] = set()
        if given and isinstance(given, dict):
            headers = {k: v for k, v in given.items() if not _OURS.fullmatch(k)}
            names = {k.lower() for k in headers}
        if "content-type" not in names:
            text = task.message_encoding == "text"
            headers["Content-Type"] = "application/json" if text else "application/octet-stream"
        if "user-agent" not in names:
            headers["User-Agent"] = self._user_agent
        if "accept" not in names:
            headers["Accept"] = "*/*"
        if authorization is not None and "authorization" not in names:
            headers["Authorization"] = authorization
        headers["Content-Length"] = str(length)
        headers["X-Message-Key"] = task.id if task.message_key is UNSET else _key(task)
        headers["X-Rebound-Task-Id"] = task.id
        headers["X-Rebound-Attempt"] = str(task.number)
        if task.leg == Leg.DEAD:
            headers.update((f"X-Rebound-{name}", value) for name, value in dead_letter(task))
        return headers

    def _refusal(self, task: Task, response: Answer, text: str) -> DeliveryError:
        status = response.status
        fatal = task.target.fatal_statuses
        if task.leg != Leg.DEAD and _lists(self._fatal if fatal is None else fatal, status):
            return Rejected(f"HTTP {status}", status=status, response=text)
        wait = None
        if status in (429, 503) and (wish := response.headers.get("Retry-After")) is not None:
            wait = retry_after(wish, response.headers.get("Date"), time.time())
        return DeliveryError(f"HTTP {status}", status=status, response=text, retry_after=wait)


class _Address(NamedTuple):
    url: URL
    authorization: str | None
    """From the userinfo, which `url` no longer has."""


@lru_cache(maxsize=4096)
def _address(url: str) -> _Address:
    """`url` byte for byte, but for userinfo and fragment. Raises Rejected."""
    scheme, _, rest = url.partition("://")
    rest = rest.partition("#")[0]
    end = next((i for i, c in enumerate(rest) if c in "/?"), len(rest))
    userinfo, at, host = rest[:end].rpartition("@")
    try:
        if not host.isascii():
            host = host.encode("idna").decode()
        path = quote_from_bytes(rest[end:].encode(), safe=VISIBLE)
        exact = URL(f"{scheme}://{host}{path}", encoded=True)
        exact.port, exact.raw_host, exact.raw_path_qs  # noqa: B018  yarl parses these lazily
    except ValueError:
        raise Rejected(UNSENDABLE) from None
    if not at:
        return _Address(exact, None)
    name, _, password = userinfo.partition(":")
    pair = unquote_to_bytes(name) + b":" + unquote_to_bytes(password)  # RFC 7617, in UTF-8
    return _Address(exact, f"Basic {base64.b64encode(pair).decode()}")


async def _read(content: aiohttp.StreamReader, kept: bytearray) -> None:
    """Read to the end or to 64 KiB, whichever comes first, and keep the first KiB."""
    total = 0
    while total < MAX_READ and not content.at_eof():
        chunk = await content.readany()
        total += len(chunk)
        if len(kept) < MAX_RESPONSE:
            kept += chunk[: MAX_RESPONSE - len(kept)]


def _text(kept: bytearray) -> str:
    """`kept` as text, without a character that the cut has split."""
    if kept.isascii():
        return kept.decode("ascii")
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    return decoder.decode(bytes(kept), final=len(kept) < MAX_RESPONSE) if kept else ""


def _lists(fatal: Collection[int | str], status: int) -> bool:
    return bool(fatal) and (status in fatal or f"{status // 100}xx" in fatal)


def _key(task: Task) -> str:
    """`X-Message-Key`: what is not visible ASCII is percent-encoded."""
    key = task.message_key
    if isinstance(key, Base64):
        return quote_from_bytes(base64.b64decode(key.base64), safe=VISIBLE)
    if isinstance(key, str):
        return quote_from_bytes(key.encode(errors="surrogatepass"), safe=VISIBLE)
    return task.id
