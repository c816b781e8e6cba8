"""Where Redis is, out of a URL and single settings."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from rebound.domain.errors import ValidationError
from rebound.settings import addresses
from rebound.settings.addresses import DEFAULT_REDIS_PORT, RedisAddress, host_and_port
from rebound.settings.readers import contradiction

if TYPE_CHECKING:
    from rebound.settings import Config

DEFAULT_POOL: Final = 64
"""Connections of a process at most; in a Cluster, to one of its nodes."""
DEFAULT_SENTINEL_PORT: Final = 26379
MODES: Final = {
    "redis_mode": "",
    "redis_master_name": "sentinel",
    "redis_sentinel_addrs": "sentinel",
    "redis_sentinel_password": "sentinel",
    "redis_cluster_addrs": "cluster",
}
"""The settings that say how Redis is run, and in which mode alone each means something."""
_NEEDED: Final = ("redis_master_name", "redis_sentinel_addrs", "redis_cluster_addrs")
_ONE_SERVER: Final = ("store_url", "redis_addr", "redis_host", "redis_port")
_TLS: Final = {
    "redis_tls_ca": "ssl_ca_certs",
    "redis_tls_cert": "ssl_certfile",
    "redis_tls_key": "ssl_keyfile",
}


def given(config: Config) -> list[str]:
    """The names of the settings of Redis that are set: any of them chooses Redis."""
    return [
        name
        for name, value in vars(config).items()
        if name.startswith("redis_") and value is not None
    ]


def check(config: Config) -> None:
    """Raise ValidationError where the settings of Redis contradict each other."""
    mode = config.redis_mode or "standalone"
    for name, wanted in MODES.items():
        value = getattr(config, name)
        if wanted == mode and not value and name in _NEEDED:
            raise ValidationError(f"{name.upper()}: is needed in {mode} mode", field=name)
        if wanted not in ("", mode) and value is not None:
            raise ValidationError(f"{name.upper()}: needs REDIS_MODE {wanted}", field=name)
    if mode != "standalone":
        for name in _ONE_SERVER:
            if getattr(config, name) is not None:
                raise contradiction(config, name, getattr(config, name), "redis_mode")
    if mode == "cluster" and config.redis_db:
        raise contradiction(config, "redis_db", config.redis_db, "redis_mode")
    if (config.redis_tls_cert is None) != (config.redis_tls_key is None):
        raise ValidationError(
            "REDIS_TLS_CERT: goes with REDIS_TLS_KEY; give both", field="redis_tls_cert"
        )
    address(config)


def address(config: Config) -> RedisAddress:
    """URL and single settings in one. Raises ValidationError where they contradict."""
    if config.store_url and config.sqlite_path:
        raise contradiction(config, "store_url", config.store_url, (*given(config), "redis")[0])
    at = addresses.redis_address(config.store_url) if config.store_url else RedisAddress()
    host, port = host_and_port(config.redis_addr) if config.redis_addr else (None, None)
    schemes = {"on": "rediss", "off": "redis", None: None}
    secure = RedisAddress(scheme="rediss")
    for name, part in {
        "redis_addr": RedisAddress(host=host, port=port or DEFAULT_REDIS_PORT if host else port),
        "redis_host": RedisAddress(host=config.redis_host),
        "redis_port": RedisAddress(port=config.redis_port),
        "redis_db": RedisAddress(db=config.redis_db),
        "redis_username": RedisAddress(user=config.redis_username),
        "redis_password": RedisAddress(password=config.redis_password),
        "redis_tls": RedisAddress(scheme=schemes[config.redis_tls]),
        **{name: secure for name in _TLS if getattr(config, name)},
    }.items():
        try:
            at = at.joined(part)
        except ValueError:
            alone = "redis_tls" if name in _TLS else "redis_addr"
            other = "store_url" if config.store_url else alone
            raise contradiction(config, name, getattr(config, name), other) from None
    return at


def tls(config: Config) -> dict[str, str]:
    """The files of TLS that are given, under the names that redis-py has for them."""
    return {ours: value for name, ours in _TLS.items() if (value := getattr(config, name))}


def nodes(config: Config) -> list[tuple[str, int]]:
    """Host and port of each Sentinel, or of the nodes of a Cluster that are known."""
    if config.redis_sentinel_addrs:
        given, default = config.redis_sentinel_addrs, DEFAULT_SENTINEL_PORT
    else:
        given, default = config.redis_cluster_addrs or (), DEFAULT_REDIS_PORT
    pairs = map(host_and_port, given)
    return [(host or "localhost", port or default) for host, port in pairs]


def shown(config: Config) -> str:
    """Where Redis is in a few words, without any secret."""
    known = ", ".join(f"{addresses.bracketed(host)}:{port}" for host, port in nodes(config))
    if config.redis_mode == "sentinel":
        return f"redis {config.redis_master_name} of the sentinels {known}"
    if config.redis_mode == "cluster":
        return f"redis cluster {known}"
    return f"redis {address(config).shown}"
