"""How to reach Redis: one server, the master that Sentinels name, or a Cluster."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

from redis.asyncio import ConnectionPool, SSLConnection
from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import Sentinel, SentinelConnectionPool
from redis.backoff import NoBackoff

from rebound.adapters.stores.redis_cluster import Address, RedisCluster
from rebound.adapters.stores.redis_server import RedisServer

SENTINEL_TIMEOUT: Final = 0.5
"""Seconds that one Sentinel has to say where the master is, before the next is asked."""


class Place(NamedTuple):
    """Where Redis is, and how to log in."""

    url: str
    """Login, database and scheme; of one server, host and port too."""
    tls: Mapping[str, str] = {}
    """`ssl_ca_certs`, `ssl_certfile` and `ssl_keyfile` of redis-py, as far as they are given."""
    addresses: Sequence[Address] = ()
    """Host and port of each Sentinel, or of nodes of the Cluster to begin with."""
    master: str = ""
    """By which name the Sentinels know the master."""
    sentinel_password: str | None = None


def one_server(place: Place, size: int) -> RedisServer:
    """The server of a URL, with at most `size` connections. Raises ValueError for a bad URL."""
    return RedisServer(ConnectionPool.from_url(place.url, **place.tls), size)


def sentinel(place: Place, size: int) -> RedisServer:
    """Whichever server the Sentinels say is the master when a connection is made."""
    single = ConnectionPool.from_url(place.url, **place.tls)
    options = {k: v for k, v in single.connection_kwargs.items() if k not in ("host", "port")}
    secure = issubclass(single.connection_class, SSLConnection)
    sentinels = Sentinel(  # type: ignore[no-untyped-call]
        list(place.addresses),
        sentinel_kwargs={
            "password": place.sentinel_password,
            "socket_timeout": SENTINEL_TIMEOUT,
            "socket_connect_timeout": SENTINEL_TIMEOUT,
            "retry": Retry(NoBackoff(), 0),
            **({"ssl": True, **place.tls} if secure else {}),
        },
    )
    pool = SentinelConnectionPool(  # type: ignore[no-untyped-call]
        place.master, sentinels, ssl=secure, **options
    )
    return RedisServer(pool, size, sentinels.aclose)


def cluster(place: Place, size: int, prefixes: Sequence[str]) -> RedisCluster:
    """A Cluster, with at most `size` connections to each node; `prefixes` are those of all keys."""
    single = ConnectionPool.from_url(place.url, **place.tls)

    def connect(address: Address) -> RedisServer:
        host, port = address
        options = {**single.connection_kwargs, "host": host, "port": port}
        return RedisServer(ConnectionPool(single.connection_class, **options), size)

    return RedisCluster(connect, place.addresses, prefixes)
