"""Where Redis is, out of a URL and single settings."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from rebound.settings import addresses
from rebound.settings.addresses import DEFAULT_REDIS_PORT, RedisAddress, host_and_port
from rebound.settings.readers import contradiction

if TYPE_CHECKING:
    from rebound.settings import Config

DEFAULT_POOL: Final = 64
"""Connections of a process at most."""


def given(config: Config) -> list[str]:
    """The names of the settings of Redis that are set: any of them chooses Redis."""
    return [
        name
        for name, value in vars(config).items()
        if name.startswith("redis_") and value is not None
    ]


def address(config: Config) -> RedisAddress:
    """URL and single settings in one. Raises ValidationError where they contradict."""
    if config.store_url and config.sqlite_path:
        raise contradiction(config, "store_url", config.store_url, (*given(config), "redis")[0])
    at = addresses.redis_address(config.store_url) if config.store_url else RedisAddress()
    host, port = host_and_port(config.redis_addr) if config.redis_addr else (None, None)
    for name, part in {
        "redis_addr": RedisAddress(host=host, port=port or DEFAULT_REDIS_PORT if host else port),
        "redis_host": RedisAddress(host=config.redis_host),
        "redis_port": RedisAddress(port=config.redis_port),
        "redis_db": RedisAddress(db=config.redis_db),
        "redis_password": RedisAddress(password=config.redis_password),
    }.items():
        try:
            at = at.joined(part)
        except ValueError:
            other = "store_url" if config.store_url else "redis_addr"
            raise contradiction(config, name, getattr(config, name), other) from None
    return at
