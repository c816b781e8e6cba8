"""Where a task goes: one URL, its lane, and how it may be shown."""

from __future__ import annotations

import re
from enum import StrEnum
from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address
from typing import Annotated, NamedTuple
from urllib.parse import urlsplit

from msgspec import Meta, Struct
from msgspec.structs import replace

from rebound.domain.brokers import peers
from rebound.domain.errors import ValidationError
from rebound.domain.fields import unbase64

MAX_URL = 2048
MAX_HEADERS = 64
MAX_HEADER_BYTES = 8192
DEFAULT_TIMEOUT = 30.0
"""Default time limit of one HTTP attempt, in seconds."""

_TOKEN = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+\Z")  # RFC 9110 section 5.6.2
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_NOT_IN_URL = re.compile(r"[\x00-\x20\x7f-\xa0\\\"<>^`{|}]")
_BRACKETS = re.compile(r"(\A|@)([^\[\]@]*|\[[^\[\]@]*:[^\[\]@]*\](:[0-9]*)?)\Z")
"""End of an authority: brackets only around an IPv6 address, and only a port behind them."""
_NUMBER = re.compile(r"[0-9]+|0x[0-9a-f]*", re.I)
"""A last label that makes a host an IPv4 address to many a resolver: 127.1, 0x7f000001, 017.1."""
_SECRET = re.compile(
    r"^(authorization|proxy-authorization|cookie)$|token|secret|key|signature", re.I
)
_OURS = {
    "http": re.compile(
        r"(host|content[-_]length|transfer[-_]encoding|(proxy[-_])?connection|keep[-_]alive|te"
        r"|trailer|upgrade|expect|x[-_]message[-_]key|x[-_]rebound[-_].*)",
        re.I,
    ),
    "kafka": re.compile(r"rebound-(?!(failures|group|expires|error|timestamp)\Z).*", re.I | re.S),
}
"""Headers that Rebound sets itself, by kind of destination. Consumers set those left out.

CGI, and what came after it, reads `_` as `-`."""


class DestinationType(StrEnum):
    """Kind of outside system; compares equal to its string."""

    HTTP = "http"
    KAFKA = "kafka"
    CALL = "call"


class Base64(Struct, frozen=True, forbid_unknown_fields=True):
    """Bytes in a JSON document."""

    base64: str

    @property
    def valid(self) -> bool:
        """True if it can be decoded."""
        try:
            unbase64(self.base64)
        except ValueError:
            return False
        return True


HeaderList = list[tuple[str, str | Base64 | None]]
FatalStatus = Annotated[int, Meta(ge=300, le=599)] | Annotated[str, Meta(pattern=r"\A[345]xx\Z")]
_UNFIT = {
    "http": ("partition", "timestamp"),
    "kafka": ("method", "timeout", "fatal_statuses"),
    "call": ("method", "fatal_statuses", "partition", "timestamp"),
}
"""What a destination of each kind cannot have."""


class Destination(
    Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True
):
    """Where to deliver: `url`, or `host`, `port` and `topic` of a Kafka topic.

    What is None or empty was not given and takes its default.
    """

    url: str = ""
    """`https://…`, `kafka://host:9092/topic` or `call://handler`; at most 2048 characters."""
    host: str = ""
    port: str | int = ""
    topic: str = ""
    method: Annotated[str, Meta(pattern=r"\A(POST|PUT|PATCH|DELETE|GET)\Z")] | None = None
    """HTTP method, default POST."""
    headers: dict[str, str] | HeaderList | None = None
    """HTTP: name to value. Kafka: the same, or a list of [name, value] where names may repeat."""
    timeout: Annotated[float, Meta(ge=0.001, le=300)] | None = None
    """Time limit of one HTTP attempt in seconds, default 30."""
    fatal_statuses: Annotated[list[FatalStatus], Meta(max_length=300)] | None = None
    """HTTP statuses that end the main leg at once: numbers 300-599 or `3xx`, `4xx`, `5xx`."""
    partition: Annotated[int, Meta(ge=0, le=2_147_483_647)] | None = None
    timestamp: Annotated[int, Meta(ge=0, le=9_007_199_254_740_991)] | None = None
    """Kafka record time in milliseconds since the epoch."""

    @property
    def given(self) -> bool:
        """False where every field is empty, which counts as absent."""
        return self != _NOWHERE

    @property
    def address(self) -> str:
        """The one URL, with the original's {host, port, topic} folded into it."""
        if self.url or not self.host:
            return self.url
        port = 9092 if self.port == "" else self.port
        return f"kafka://{self.host}:{port}/{self.topic}"

    @property
    def place(self) -> Place:
        """Kind, lane and origin of `address`. Raises ValidationError for a malformed one."""
        return place(self.address)

    def identity(self) -> tuple[object, ...]:
        """Equal for destinations that mean the same, whatever form they were sent in."""
        headers = self.headers
        pairs = sorted(headers.items()) if isinstance(headers, dict) else headers
        fatal = self.fatal_statuses
        return (
            self.address,
            self.method or "POST",
            pairs or [],
            DEFAULT_TIMEOUT if self.timeout is None else self.timeout,
            None if fatal is None else sorted(map(str, fatal)),
            self.partition,
            self.timestamp,
        )

    def redacted(self) -> Destination:
        """The same with userinfo and the values of secret headers as `***`."""
        headers: dict[str, str] | HeaderList | None = None
        if isinstance(self.headers, dict):
            headers = {k: "***" if _SECRET.search(k) else v for k, v in self.headers.items()}
        elif self.headers is not None:
            headers = [(k, "***" if _SECRET.search(k) else v) for k, v in self.headers]
        return replace(self, url=redact_url(self.url), headers=headers)

    def __repr__(self) -> str:
        shown = self.redacted()
        fields = {f: getattr(shown, f) for f in self.__struct_fields__}
        return f"Destination({', '.join(f'{k}={v!r}' for k, v in fields.items() if v)})"

    def check(self, field: str) -> Place:
        """Its place, or ValidationError, naming `field`, where this cannot be delivered to."""
        if self.url and (self.host or self.topic or self.port != ""):
            raise ValidationError(
                f"{field}: give url, or host, port and topic, not both", field=field
            )
        if not self.url and not (self.host and self.topic):
            raise ValidationError(f"{field}: give a url, or a host and a topic", field=field)
        if self.host and not re.fullmatch("[0-9]{0,5}", str(self.port), re.ASCII):
            raise ValidationError(f"{field}.port: must be from 1 to 65535", field=f"{field}.port")
        try:
            where = self.place
        except ValidationError as error:
            named = f"{field}.url" if self.url else field
            raise ValidationError(f"{named}: {error}", field=named) from None
        _check_headers(self.headers, f"{field}.headers", where.kind)
        for name in _UNFIT[where.kind]:
            if getattr(self, name) is not None:
                refusal = f"{field}.{name}: a {where.kind} destination has no {name}"
                raise ValidationError(refusal, field=f"{field}.{name}")
        return where


_NOWHERE = Destination()


class Place(NamedTuple):
    """What a URL says about where its tasks queue up."""

    kind: str
    """`http`, `kafka` or `call`."""
    served_by: str
    """What a worker must be able to deliver: `http`, `kafka` or `call:<name>`."""
    lane: str
    """The queue: one HTTP origin, one Kafka topic, one handler."""
    origin: str
    """Scheme, host, port and path only, fit for headers and logs."""
    peers: tuple[tuple[str, int], ...] = ()
    """Host, without brackets, and port of whatever may be connected to."""


@lru_cache(maxsize=4096)
def place(url: str) -> Place:
    """Take `url` apart. Raises ValidationError with what is wrong and what is allowed."""
    if len(url) > MAX_URL:
        raise ValidationError(f"is longer than {MAX_URL} characters")
    if _NOT_IN_URL.search(url):
        raise ValidationError("has a space, control or unsafe character; percent-encode it")
    scheme, separator, rest = url.partition("://")
    match scheme.lower() if separator else "":
        case "http" | "https" as web:
            return _http_place(web, url)
        case "kafka":
            return _kafka_place(rest)
        case "call":
            if not re.fullmatch(r"[!-.0-{}~]{1,255}", rest):
                raise ValidationError("a handler is written call://name")
            return Place("call", f"call:{rest}", f"call:{rest}", f"call://{rest}")
        case unknown if re.fullmatch(r"[a-z][a-z0-9+.-]*", unknown):
            raise ValidationError(
                f"unknown scheme {unknown!r}; known are http, https, kafka and call"
            )
        case _:
            raise ValidationError("is not a URL; write https://host/path")


def _http_place(scheme: str, url: str) -> Place:
    try:
        parts = urlsplit(url)
        host, port = _ascii(parts.hostname or ""), parts.port
    except ValueError:  # its text would show what may be a password
        host, port = "", None
    if port == 0 or not _valid_host(host) or not _BRACKETS.search(parts.netloc):
        raise ValidationError("has no valid host or port; write https://host:port/path")
    name = f"[{host}]" if ":" in host else host.lower()
    usual = {"http": 80, "https": 443}[scheme]
    peer = host.lower(), port or usual
    if port is not None and port != usual:
        name = f"{name}:{port}"
    lane = f"{scheme}://{name}"
    return Place("http", "http", lane[:255], f"{scheme}://{name}{parts.path}", (peer,))


def _ascii(host: str) -> str:
    return host if host.isascii() else host.encode("idna").decode()


def _valid_host(host: str) -> bool:
    labels = host.removesuffix(".").split(".")
    try:
        if ":" in host:
            IPv6Address(host.partition("%25")[0])
            return bool(re.fullmatch(r"[0-9a-f:.]+(%25[\w.~-]+)?", host, re.I))
        if _NUMBER.fullmatch(labels[-1]):
            IPv4Address(host)
    except ValueError:
        return False
    return len(host) <= 253 and all(re.fullmatch(r"[\w-]{1,63}", label) for label in labels)


def _kafka_place(rest: str) -> Place:
    brokers, _, topic = rest.partition("/")
    if not re.fullmatch(r"[a-zA-Z0-9._-]{1,249}", topic) or topic in (".", ".."):
        raise ValidationError("a topic has 1 to 249 letters, digits, '.', '_' and '-'")
    for broker in brokers.split(",") if brokers else ():
        match = re.fullmatch(r"([\w.-]+|\[[0-9a-fA-F:.]+\])(?::(\d{1,5}))?", broker, re.ASCII)
        valid = match and (match[1][0] == "[" or _valid_host(match[1]))
        if not match or not valid or not 0 < int(match[2] or 9092) < 65536:
            raise ValidationError("has no valid broker; write host:port, ports are 1 to 65535")
    lane = f"kafka://{','.join(sorted(brokers.lower().split(',')))}/{topic}"
    named = peers(brokers.split(",")) if brokers else ()
    return Place("kafka", "kafka", lane[:255], f"kafka://{brokers}/{topic}", named)


def _check_headers(headers: dict[str, str] | HeaderList | None, field: str, kind: str) -> None:
    if not headers:
        return
    if isinstance(headers, list) and kind == "http":
        raise ValidationError(f"{field}: HTTP headers are an object of strings", field=field)
    pairs = headers if isinstance(headers, list) else list(headers.items())
    if len(pairs) > MAX_HEADERS:
        raise ValidationError(f"{field}: more than {MAX_HEADERS} headers", field=field)
    ours = _OURS.get(kind, _OURS["http"])
    for name, value in pairs:
        text = value.base64 if isinstance(value, Base64) else value or ""
        if len(name.encode()) + len(text.encode()) > MAX_HEADER_BYTES:
            raise ValidationError(f"{field}: a header is longer than 8 KiB", field=field)
        if kind == "http" and (not _TOKEN.match(name) or _CONTROL.search(text.replace("\t", ""))):
            raise ValidationError(
                f"{field}: {name!r} is no header name, or its value has a control character",
                field=field,
            )
        if isinstance(value, Base64) and not value.valid:
            raise ValidationError(f"{field}: {name!r} is not base64", field=field)
        if ours.fullmatch(name):
            raise ValidationError(f"{field}: {name!r} is set by Rebound", field=field)


def redact_url(url: str) -> str:
    """`url` with its userinfo, if any, as `***`."""
    scheme, separator, rest = url.partition("://")
    authority = re.split(r"[/?#]", rest, maxsplit=1)[0]
    if "@" not in authority:
        return url
    return f"{scheme}{separator}***@{authority.rpartition('@')[2]}{rest[len(authority) :]}"
