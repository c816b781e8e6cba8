"""What is read of a request, with the limits that hold for everybody."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from enum import StrEnum
from typing import Any, Final, TypeVar
from urllib.parse import parse_qsl, unquote_to_bytes

from rebound.adapters.api.answer import JSON, Forbidden, UnsupportedMediaType
from rebound.domain.attempt import Leg, State
from rebound.domain.errors import NotFound, PayloadTooLarge, ValidationError
from rebound.ports import Filter

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

Choice = TypeVar("Choice", bound=StrEnum)

MAX_DROPPED: Final = 32 * 1_048_576
"""Bytes of an unwanted body that are read, so that its sender sees the answer."""
QUERY: Final = ("state", "leg", "source", "client_id", "limit", "cursor")
_JSON = re.compile(rb"\s*application/(json|[\w.!#$&^-]+\+json|x-www-form-urlencoded)\s*(;|$)", re.I)
_NOT_ENCODED = re.compile(rb"%(?![0-9A-Fa-f]{2})")
_VISIBLE = re.compile(r"[!-~]{1,255}")
_QUOTED = re.compile(r'"((?:[ !#-\[\]-~]|\\["\\])*)"(?: *;.*)?')  # RFC 8941 section 3.3.3
_LIMIT = re.compile(r"[1-9][0-9]{0,3}")


class Disconnected(Exception):
    """The client went away before its request was complete."""


class Request:
    """One request; its body is read at most once."""

    __slots__ = ("_dropped", "_receive", "_unread", "headers", "method", "query", "truncated")

    def __init__(self, scope: Scope, receive: Receive) -> None:
        self.method: str = scope["method"]
        self.query: bytes = scope["query_string"]
        self.headers: Mapping[bytes, bytes] = dict(scope["headers"])
        self.truncated = False
        """True where the body went on after all that is read of an unwanted one."""
        self._unread = True
        self._dropped = 0
        self._receive = receive

    def require_same_site(self) -> None:
        """Raise Forbidden where a browser says that another site sent this."""
        site = self.headers.get(b"sec-fetch-site")
        if site is not None and site.lower() not in (b"same-origin", b"none"):
            raise Forbidden
        origin = self.headers.get(b"origin")
        if origin is None:
            return
        scheme, _, authority = origin.lower().partition(b"://")
        host = self.headers.get(b"host", b"").lower()
        port = {b"http": b":80", b"https": b":443"}.get(scheme)
        if port is None or authority.removesuffix(port) != host.removesuffix(port):
            raise Forbidden

    def key(self) -> bytes:
        """The API key that it came with; empty where there is none."""
        scheme, _, key = self.headers.get(b"authorization", b"").partition(b" ")
        if scheme.lower() == b"bearer":
            return key.strip()
        return self.headers.get(b"x-api-key", b"").strip()

    async def json(self, limit: int) -> bytes:
        """The body. Raises PayloadTooLarge above `limit` bytes, or UnsupportedMediaType.

        Clients name all sorts of types where there is no body.
        """
        data = await self.body(limit)
        kind = self.headers.get(b"content-type")
        if kind and data and kind != JSON[1] and not _JSON.match(kind):
            raise UnsupportedMediaType(
                "Content-Type: must be application/json, application/*+json or"
                " application/x-www-form-urlencoded, with a body in JSON"
            )
        return data

    async def body(self, limit: int) -> bytes:
        """The body. Raises PayloadTooLarge above `limit` bytes, after dropping what is sent."""
        parts: list[bytes] = []
        size = int(self.headers.get(b"content-length", 0))
        left = limit
        while size <= limit:
            part = await self._part()
            left -= len(part)
            if left < 0:
                self._dropped = -left
                break
            if not self._unread:
                return part if not parts else b"".join((*parts, part))
            parts.append(part)
        parts.clear()
        await self.drop()
        raise PayloadTooLarge(f"the body has more than the {limit} bytes allowed here")

    async def drop(self) -> None:
        """Read what is left of the body, at most MAX_DROPPED bytes."""
        while self._unread and self._dropped < MAX_DROPPED:
            self._dropped += len(await self._part())
        self.truncated = self._unread

    async def _part(self) -> bytes:
        message = await self._receive()
        if message["type"] == "http.disconnect":
            raise Disconnected
        self._unread = message.get("more_body", False)
        part: bytes = message.get("body", b"")
        return part

    def idempotency_key(self) -> str:
        """The header of that name, bare or as RFC 8941 string; empty where there is none.

        Raises ValidationError where it cannot be an id.
        """
        value = self.headers.get(b"idempotency-key")
        if value is None:
            return ""
        key = value.decode("latin-1").strip(" \t")
        if key.startswith('"'):
            quoted = _QUOTED.fullmatch(key)
            key = re.sub(r"\\(.)", r"\1", quoted[1]) if quoted else ""
        if not _VISIBLE.fullmatch(key):
            raise ValidationError(
                "Idempotency-Key: must be 1 to 255 visible ASCII characters, bare or quoted",
                field="Idempotency-Key",
            )
        return key

    def wanted(self) -> tuple[Filter, int, str | None]:
        """Filter, limit and cursor of a listing. Raises ValidationError."""
        given = _parameters(self.query)
        limit = given.get("limit", "100")
        if not _LIMIT.fullmatch(limit) or int(limit) > 1000:
            raise ValidationError("limit: must be an integer from 1 to 1000", field="limit")
        found = Filter(
            state=_one_of(State, "state", given.get("state")),
            leg=_one_of(Leg, "leg", given.get("leg")),
            source=given.get("source"),
            client_id=given.get("client_id"),
        )
        return found, int(limit), given.get("cursor")


def segments(raw_path: bytes) -> list[str]:
    """The path's parts, decoded one by one: an id may contain `%2F`. Raises NotFound."""
    return [_decoded(part) for part in raw_path[1:].split(b"/")]


def task_id(segment: str) -> str:
    """An id that a task can have. Raises NotFound."""
    if not _VISIBLE.fullmatch(segment):
        raise NotFound("no task has such an id")
    return segment


def _decoded(part: bytes) -> str:
    if b"%" in part:
        if _NOT_ENCODED.search(part):
            raise NotFound("the path is not percent-encoded correctly")
        part = unquote_to_bytes(part)
    try:
        return part.decode("ascii")
    except UnicodeDecodeError:
        raise NotFound("nothing is known by this path") from None


def _parameters(query: bytes) -> dict[str, str]:
    """What is given, once each; an empty value counts as absent."""
    try:
        pairs = parse_qsl(query.decode(), keep_blank_values=True, errors="strict")
    except ValueError:
        raise ValidationError("the query is not UTF-8, percent-encoded") from None
    given: dict[str, str] = {}
    for name, value in pairs:
        if name not in QUERY:
            known = ", ".join(QUERY)
            raise ValidationError(
                f"{name[:300]}: unknown parameter; known are {known}", field=name[:300]
            )
        if name in given:
            raise ValidationError(f"{name}: is given more than once", field=name)
        given[name] = value
    return {name: value for name, value in given.items() if value}


def _one_of(choices: type[Choice], name: str, value: str | None) -> Choice | None:
    if value is None:
        return None
    try:
        return choices(value)
    except ValueError:
        known = ", ".join(choices)
        raise ValidationError(f"{name}: must be one of {known}", field=name) from None
