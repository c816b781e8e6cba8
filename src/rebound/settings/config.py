"""Every setting of Rebound, with its default, its meaning and what it may be."""

# ruff: noqa: RUF009 - a Setting is a descriptor, which a dataclass expects as a default

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from rebound.settings import access, addresses, kafka, networks, parts, readers, variables
from rebound.settings import redis as redis_settings
from rebound.settings.addresses import host_and_port, without_secrets
from rebound.settings.kinds import (
    Number,
    Optional,
    OptionalNumber,
    OptionalSwitch,
    OptionalTexts,
    Properties,
    Seconds,
    Statuses,
    Switch,
    Text,
    Texts,
)
from rebound.settings.readers import Setting, choice, contradiction, duration, size, whole

if TYPE_CHECKING:
    import logging

    import aiohttp
    import redis.asyncio

    from rebound.domain.backoff import Strategy
    from rebound.ports import Listener

DEFAULT_STORE: Final = "sqlite:///rebound.db"
DEFAULT_PORT: Final = 8080


@dataclass(frozen=True, kw_only=True, repr=False)
class Config:
    """Every setting, checked. What is None or empty takes its default.

    Durations are seconds, or text such as `250ms` and `1h30m`. Raises ValidationError, whose
    `field` is the setting's name.
    """

    # fmt: off
    http_host: Text = Text(readers.host, "host or address to listen on", "127.0.0.1")
    http_port: OptionalNumber = OptionalNumber(
        whole(0, 65535), "port to listen on; 0 = any free one", None,
        shown_default=str(DEFAULT_PORT))
    http_addr: Optional = Optional(addresses.address, "the two in one, such as :8080", None)
    store_url: Optional = Optional(
        addresses.store_url, "where tasks live: sqlite:///file.db, redis:// or rediss://", None,
        shown_default=DEFAULT_STORE, show=without_secrets)
    redis_addr: Optional = Optional(
        addresses.address, "host:port of Redis; any redis setting chooses Redis", None,
        shown_default="localhost:6379", show=without_secrets)
    redis_password: Optional = Optional(readers.anything, "password of Redis", None, secret=True)
    redis_db: OptionalNumber = OptionalNumber(
        whole(0, 9999), "number of the database in Redis", None, shown_default="0")
    redis_host: Optional = Optional(readers.host, "host of Redis, in place of redis_addr", None)
    redis_port: OptionalNumber = OptionalNumber(
        whole(1, 65535), "port of Redis, in place of redis_addr", None)
    redis_mode: Optional = Optional(
        readers.mode, "standalone, sentinel or cluster", None, shown_default="standalone")
    redis_username: Optional = Optional(readers.anything, "name to log in to Redis with", None)
    redis_master_name: Optional = Optional(
        readers.anything, "name of the master that the Sentinels watch", None)
    redis_sentinel_addrs: OptionalTexts = OptionalTexts(
        readers.brokers, "host:port of the Sentinels, several with commas", None)
    redis_sentinel_password: Optional = Optional(
        readers.anything, "password of the Sentinels", None, secret=True)
    redis_cluster_addrs: OptionalTexts = OptionalTexts(
        readers.brokers, "host:port of some nodes of the Cluster, several with commas", None)
    redis_wait_replicas: OptionalNumber = OptionalNumber(
        whole(0, 10), "replicas that must have a task before it is confirmed", None,
        shown_default="0")
    redis_tls: Optional = Optional(
        choice({"on": "on", "off": "off"}), "on (as rediss://) or off", None, shown_default="off")
    redis_tls_ca: Optional = Optional(readers.file, "file of the authorities to trust", None)
    redis_tls_cert: Optional = Optional(readers.file, "file of the client's certificate", None)
    redis_tls_key: Optional = Optional(readers.file, "file of the client's private key", None)
    redis_pool_size: OptionalNumber = OptionalNumber(
        whole(1, 10_000), "connections to Redis at most", None,
        shown_default=str(redis_settings.DEFAULT_POOL))
    namespace: Text = Text(
        readers.namespace, "prefix of every key in Redis, one an application", "rebound")
    kafka_brokers: Texts = Texts(
        readers.brokers, "brokers of kafka:///topic, several with commas", ("localhost:9092",))
    kafka_allowed_brokers: OptionalTexts = OptionalTexts(
        readers.allowed_brokers, "the only brokers that tasks may name, or * for any", None,
        shown_default="*, in prod those of kafka_brokers")
    kafka_security_protocol: Optional = Optional(
        kafka.protocol, "plaintext, ssl, sasl_plaintext or sasl_ssl", None,
        shown_default="plaintext")
    kafka_sasl_mechanism: Optional = Optional(
        kafka.mechanism, "PLAIN, SCRAM-SHA-256, SCRAM-SHA-512, OAUTHBEARER or GSSAPI",
        None)
    kafka_sasl_username: Optional = Optional(readers.anything, "name to log in to Kafka with", None)
    kafka_sasl_password: Optional = Optional(
        readers.anything, "password to log in to Kafka with", None, secret=True)
    kafka_ssl_ca_location: Optional = Optional(
        readers.anything, "file or folder of the certificates to trust", None)
    kafka_ssl_certificate_location: Optional = Optional(
        readers.anything, "file of the client's certificate", None)
    kafka_ssl_key_location: Optional = Optional(
        readers.anything, "file of the client's private key", None)
    kafka_config: Properties = Properties(
        kafka.properties, "further librdkafka properties, as a JSON object", None,
        secret=True)
    kafka_concurrency: Number = Number(
        whole(1, 100_000), "records a worker has under way at most, beside concurrency", 5000)
    poll_interval: Seconds = Seconds(
        duration("10ms", "1h"), "longest sleep of a worker without looking", 1.0)
    processes: Number = Number(
        whole(1, 256), "processes of rebound serve or work, which share its port", 1)
    concurrency: Number = Number(
        whole(1, 100_000), "attempts a worker has under way at most", 1024)
    lane_concurrency: Number = Number(
        whole(1, 100_000), "attempts a lane has under way at most, over all workers", 100)
    lease: Seconds = Seconds(
        duration("1s", "1h"), "after how long a silent worker's tasks are taken over", 60.0)
    shutdown_grace: Seconds = Seconds(
        duration("0s", "1h"), "how long a stop waits for attempts under way", 25.0)
    max_payload_bytes: Number = Number(
        size(1, 32 * 1024**2), "size of one decoded message at most", 1024**2)
    max_batch_bytes: Number = Number(
        size(1024, 32 * 1024**2), "size of the body of POST /tasks/batch at most", 16 * 1024**2)
    fatal_statuses: Statuses = Statuses(
        readers.statuses, "HTTP statuses that end retrying at once, such as 400,404,410,4xx", ())
    retention_succeeded: Seconds = Seconds(
        duration("0s", "3650d"), "how long succeeded tasks stay readable", 3600.0)
    dedup_window: Seconds = Seconds(
        duration("0s", "3650d"), "how long the id of a succeeded task stays known", 86_400.0)
    dedup_max: Number = Number(
        whole(0, 1_000_000_000), "how many such ids stay known at most", 1_000_000)
    retention_dead: Seconds = Seconds(
        duration("0s", "3650d"), "how long cancelled tasks and delivered dead letters stay",
        2_592_000.0)
    dead_letter_ttl: Seconds = Seconds(
        duration("0s", "3650d"), "how long a dead letter is tried", 604_800.0)
    retry_after_max: Seconds = Seconds(
        duration("0s", "365d"), "longest Retry-After that is obeyed", 86_400.0)
    api_keys: Texts = Texts(
        access.keys, "who may call the API: keys, several with commas", (), secret=True)
    api_keys_submit: Texts = Texts(
        access.keys, "keys that may only create tasks and look at single ones", (), secret=True)
    auth: Optional = Optional(
        access.auth, "off: everybody may call, also from other hosts in prod", None)
    rate_limit_per_key: OptionalNumber = OptionalNumber(
        whole(1, 1_000_000), "calls a second with each key at most", None)
    max_connections: Number = Number(
        whole(1, 1_000_000), "connections to the API at most", 4096)
    call_over_http: Switch = Switch(
        readers.switch, "on: accept call:// destinations over HTTP", False)
    http_proxy_url: Optional = Optional(
        addresses.proxy_url, "proxy of HTTP deliveries; no other setting counts", None,
        show=without_secrets)
    allow_private_networks: OptionalSwitch = OptionalSwitch(
        readers.switch, "whether tasks may go to loopback and private addresses", None,
        shown_default="on, in prod off")
    allowed_networks: Texts = Texts(
        networks.networks, "networks that tasks may go to although private or reserved", ())
    denied_networks: Texts = Texts(
        networks.networks, "networks that tasks may not go to; the smaller one decides", ())
    allowed_hosts: Texts = Texts(
        networks.hosts, "the only hosts, such as api.example.com or *.example.com", ())
    allowed_ports: Texts = Texts(networks.ports, "the only ports, such as 443,8000-8999", ())
    https_only: Switch = Switch(readers.switch, "on: refuse http:// destinations", False)
    log_level: Text = Text(readers.level, "debug, info, warn, warning or error", "info")
    log_format: Optional = Optional(
        choice({"json": "json", "text": "text"}), "json or text", None,
        shown_default="text, in prod json")
    environment: Text = Text(
        readers.environment, "dev, or prod = production = staging: JSON logs, no private networks",
        "dev")
    # fmt: on

    logger: logging.Logger | None = None
    """Where events are logged, in place of the logger `rebound`, which still gets what goes wrong
    in Rebound itself."""
    redis: redis.asyncio.Redis | None = None
    """The caller's own client; it is not closed."""
    session: aiohttp.ClientSession | None = None
    """The caller's own session for HTTP deliveries; it is not closed. It looks names up by itself,
    so that destinations are judged by their URLs only."""
    clock: Callable[[], float] | None = None
    """Seconds since the epoch, for the SQLite store, in place of `time.time`."""
    on_event: Listener | None = None
    """Called with every Event; what it raises is logged and goes no further."""
    strategies: Mapping[str, Strategy] = field(default_factory=dict)
    """Backoff strategies of the program's own by name, beside the built-in ones."""

    def __post_init__(self) -> None:
        """Fold what can be said in several ways, and refuse what contradicts itself."""
        host, port = host_and_port(self.http_addr) if self.http_addr else (None, None)
        if None is not port != self.http_port is not None:
            raise contradiction(self, "http_addr", self.http_addr, "http_port")
        if host and self.http_host not in (host, SETTINGS["http_host"].default):
            raise contradiction(self, "http_addr", self.http_addr, "http_host")
        if self.redis is not None and (self.store_url or redis_settings.given(self)):
            chosen_by = (*redis_settings.given(self), "store_url")[0]
            raise contradiction(self, chosen_by, getattr(self, chosen_by), "redis")
        self.__dict__["http_host"] = host or self.http_host
        known = self.http_port if port is None else port
        self.__dict__["http_port"] = DEFAULT_PORT if known is None else known
        if self.log_format is None:
            self.__dict__["log_format"] = "json" if self.environment == "prod" else "text"
        if self.store_kind == "redis":
            redis_settings.check(self)
        readers.check_strategies(self.strategies)
        kafka.check(self)
        parts.check(self)
        access.check(self)

    def __repr__(self) -> str:
        changed = (
            f"{name}={setting.shown(value)}"
            for name, setting in SETTINGS.items()
            if (value := getattr(self, name)) not in (None, setting.default)
            and (name != "http_port" or value != DEFAULT_PORT)
        )
        return f"Config({', '.join(changed)})"

    @classmethod
    def from_env(cls, prefix: str = "REBOUND_", env: Mapping[str, str] = os.environ) -> Config:
        """The settings in `env` whose names begin with `prefix`. Raises ValidationError."""
        return cls(**variables.found(env, prefix, SETTINGS))

    @classmethod
    def for_service(
        cls, env: Mapping[str, str] = os.environ, /, **flags: str | int | float | None
    ) -> Config:
        """Of each setting the flag, else `REBOUND_<NAME>`, else `<NAME>`.

        A flag also wins over what contradicts it under another name. Raises ValidationError.
        """
        flags = {name: value for name, value in flags.items() if value not in (None, "")}
        beaten = variables.beaten(flags, SETTINGS)
        found = {
            **variables.found(env, "", SETTINGS), **variables.found(env, "REBOUND_", SETTINGS)
        }  # fmt: skip
        kept = {name: value for name, value in found.items() if name not in beaten}
        return cls(**(kept | flags))

    # -- what follows from the settings ------------------------------------------------------

    @property
    def address(self) -> tuple[str, int]:
        """Host and port to listen on."""
        return self.http_host, self.http_port or 0

    @property
    def store_kind(self) -> str:
        """`sqlite` or `redis`."""
        elsewhere = self.redis is not None or redis_settings.given(self) or not self.sqlite_path
        return "redis" if elsewhere else "sqlite"

    @property
    def sqlite_path(self) -> str:
        """The store's file, or `:memory:`; empty where the store is Redis."""
        return addresses.sqlite_path(self.store_url or DEFAULT_STORE) or ""

    @property
    def resolved_store_url(self) -> str:
        """The store's URL with everything folded in, the password too: not to be shown."""
        if self.store_kind == "sqlite":
            return self.store_url or DEFAULT_STORE
        return redis_settings.address(self).url

    @property
    def store_shown(self) -> str:
        """The store in a few words, without any secret."""
        if self.store_kind == "sqlite":
            return f"sqlite {self.sqlite_path}"
        return "redis" if self.redis is not None else redis_settings.shown(self)

    @property
    def all_strategies(self) -> Mapping[str, Strategy]:
        """The built-in backoff strategies and the program's own."""
        from rebound.domain.backoff import STRATEGIES

        return {**STRATEGIES, **self.strategies}

    @property
    def pool_size(self) -> int:
        """Connections to Redis at most."""
        return self.redis_pool_size or redis_settings.DEFAULT_POOL


SETTINGS: Final[Mapping[str, Setting[Any, Any]]] = {
    name: value for name, value in vars(Config).items() if isinstance(value, Setting)
}
"""Every setting by name, in the order of the documentation."""
