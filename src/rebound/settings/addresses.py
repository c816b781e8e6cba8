"""Where the store and the HTTP server are, taken from the several ways to say it."""

from __future__ import annotations

import re
from typing import NamedTuple
from urllib.parse import quote, unquote, urlsplit

DEFAULT_REDIS_PORT = 6379
SQLITE_FORMS = "sqlite:///file.db, sqlite:////absolute/file.db or sqlite://:memory:"
REDIS_FORMS = "redis://[[user]:password@]host[:port][/db] or rediss://…"
STORE_FORMS = f"must be {SQLITE_FORMS}; {REDIS_FORMS}"


class RedisAddress(NamedTuple):
    """What a Redis URL says; None where it does not."""

    scheme: str | None = None
    user: str | None = None
    password: str | None = None
    host: str | None = None
    port: int | None = None
    db: int | None = None
    query: str | None = None

    @property
    def shown(self) -> str:
        """Host, port and database only."""
        host = bracketed(self.host or "localhost")
        return f"{host}:{self.port or DEFAULT_REDIS_PORT}/{self.db or 0}"

    @property
    def url(self) -> str:
        """The whole, with the password."""
        login = ""
        if self.user or self.password:
            login = f"{quote(self.user or '', safe='')}:{quote(self.password or '', safe='')}@"
        query = f"?{self.query}" if self.query else ""
        return f"{self.scheme or 'redis'}://{login}{self.shown}{query}"

    def joined(self, other: RedisAddress) -> RedisAddress:
        """What either says. Raises ValueError where both do and differ."""
        said = {name: value for name, value in other._asdict().items() if value is not None}
        if any(getattr(self, name) not in (None, value) for name, value in said.items()):
            raise ValueError
        return self._replace(**said)


def sqlite_path(url: str) -> str | None:
    """The file of an SQLite URL, or `:memory:`; None for another scheme. Raises ValueError."""
    if not url.startswith("sqlite:"):
        return None
    if url in ("sqlite://:memory:", "sqlite:///:memory:"):
        return ":memory:"
    path = url.removeprefix("sqlite:///")
    if path == url or path.strip("/") == "" or "\0" in path:
        raise ValueError(f"must be {SQLITE_FORMS}")
    return path


def redis_address(url: str) -> RedisAddress:
    """A Redis URL taken apart. Raises ValueError, without the value, which may hold a secret."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise ValueError(f"must be {REDIS_FORMS}") from None
    db = parts.path.strip("/")
    if (
        parts.scheme not in ("redis", "rediss")
        or not parts.hostname
        or port == 0
        or parts.fragment
        or not re.fullmatch(r"\d{0,4}", db, re.ASCII)
    ):
        raise ValueError(f"must be {REDIS_FORMS}")
    return RedisAddress(
        parts.scheme, unquote(parts.username or "") or None, unquote(parts.password or "") or None,
        parts.hostname, port or DEFAULT_REDIS_PORT, int(db) if db else None, parts.query or None,
    )  # fmt: skip


def store_url(value: object) -> str:
    """A store's URL, unchanged. Raises ValueError unless it is one."""
    if not isinstance(value, str):
        raise ValueError(STORE_FORMS)
    if sqlite_path(value) is None:
        if not value.startswith(("redis:", "rediss:")):
            raise ValueError(STORE_FORMS)
        redis_address(value)
    return value


def proxy_url(value: object) -> str:
    """A proxy's URL, unchanged. Raises ValueError unless it is one."""
    allowed = "must be http://[user:password@]host:port"
    try:
        parts = urlsplit(value if isinstance(value, str) else "")
        usable = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:
        usable = None
    if not usable:
        raise ValueError(allowed)
    return str(value)


def without_secrets(url: str) -> str:
    """`url` as it may be shown: of anything but a file, only what surely is no password."""
    scheme, separator, _ = url.partition("://")
    if scheme == "sqlite":
        return url
    if not separator:
        return "***" if "@" in url else url
    return f"{scheme}://***"


def host_and_port(text: str) -> tuple[str | None, int | None]:
    """`host:port`, `host`, `:port` or `[::1]:port` taken apart. Raises ValueError."""
    match = re.fullmatch(r"([\w.-]+|\[[0-9A-Fa-f:.%]+\])?(?::(\d{1,5}))?", text)
    if match is None or not (match[1] or match[2]) or int(match[2] or 1) > 65535:
        raise ValueError("must be host:port, host or :port; ports are 1 to 65535")
    return match[1] and match[1].strip("[]"), int(match[2]) if match[2] else None


def address(value: object) -> str:
    """`host:port`, unchanged. Raises ValueError unless it is one."""
    host_and_port(value if isinstance(value, str) else "")
    return str(value)


def broker(value: object) -> str:
    """`host:port` or `host` of a Kafka broker, unchanged. Raises ValueError unless it is one."""
    host, port = host_and_port(value if isinstance(value, str) else "")
    if not host or port == 0:
        raise ValueError
    return str(value)


def bracketed(host: str) -> str:
    """`host` as it stands in a URL."""
    return f"[{host}]" if ":" in host else host
