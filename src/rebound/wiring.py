"""The composition root: which adapter serves which URL. The only module that knows them all."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, cast

from rebound import __version__
from rebound.domain.errors import ValidationError
from rebound.ports import Examiner, Producer, Retention, Store
from rebound.settings import Config, networks
from rebound.settings import kafka as kafka_settings
from rebound.settings import redis as redis_settings

if TYPE_CHECKING:
    from rebound.adapters.stores import redis_connecting as connecting
    from rebound.adapters.stores.redis_original import RedisOriginal

NO_REDIS = "needs an extra: pip install 'rebound-retry[redis]'"
NO_KAFKA = "kafka:// needs an extra: pip install 'rebound-retry[kafka]'"
NO_HANDLER = (
    "nobody here serves this name; register its function with @rebound.handler(name) before"
    " the start, or submit with Rebound(worker=False) what other processes serve"
)


def missing(config: Config, *, worker: bool) -> Mapping[str, str | None]:
    """Why this process cannot deliver to a kind of destination, None where another one may."""
    elsewhere = config.call_over_http or not worker
    return {"kafka": NO_KAFKA, "call": None if elsewhere else NO_HANDLER}


def make_store(config: Config, clock: Callable[[], float]) -> Store:
    """The store that the settings name. Raises ValidationError for a missing extra."""
    retention = Retention(
        succeeded=config.retention_succeeded,
        dedup=config.dedup_window,
        dead=config.retention_dead,
        max_stubs=config.dedup_max,
    )
    if config.store_kind == "sqlite":
        from rebound.adapters.stores.sqlite import SqliteStore

        return SqliteStore(config.sqlite_path, retention=retention, clock=clock)
    try:
        return _redis_store(config, retention)
    except ImportError:
        raise ValidationError(f"a Redis store {NO_REDIS}", field="store_url") from None


def _redis_store(config: Config, retention: Retention) -> Store:
    from rebound.adapters.stores import redis_connecting as connecting
    from rebound.adapters.stores.redis import RedisStore
    from rebound.adapters.stores.redis_partitions import RedisPartitions

    place = _place(config)
    replicas = config.redis_wait_replicas or 0
    if config.redis_mode == "cluster":
        return RedisPartitions(
            place,
            namespace=config.namespace,
            retention=retention,
            pool_size=config.pool_size,
            replicas=replicas,
            look_every=config.poll_interval,
        )
    connect = connecting.sentinel if config.redis_mode == "sentinel" else connecting.one_server
    return RedisStore(
        config.resolved_store_url,
        namespace=config.namespace,
        retention=retention,
        client=config.redis,
        server=None if config.redis is not None else connect(place, config.pool_size),
        replicas=replicas,
    )


def _place(config: Config) -> connecting.Place:
    from rebound.adapters.stores import redis_connecting as connecting

    return connecting.Place(
        config.resolved_store_url,
        redis_settings.tls(config),
        redis_settings.nodes(config),
        config.redis_master_name or "",
        config.redis_sentinel_password,
    )


def make_original(config: Config) -> RedisOriginal:
    """The waiting tasks of the Go original in the Redis that the settings name.

    Raises ValidationError for the missing extra.
    """
    try:
        from rebound.adapters.stores import redis_connecting as connecting
        from rebound.adapters.stores.redis_original import KEY, RedisOriginal
    except ImportError:
        raise ValidationError(f"the original's tasks are in Redis, which {NO_REDIS}") from None
    place = _place(config)
    if config.redis_mode == "cluster":
        return RedisOriginal(connecting.cluster(place, 1, [KEY]).part(KEY))
    connect = connecting.sentinel if config.redis_mode == "sentinel" else connecting.one_server
    return RedisOriginal(connect(place, 1))


def make_examiner(config: Config) -> Examiner:
    """What looks over the store that the settings name. Raises ValidationError."""
    if config.store_kind == "sqlite":
        from rebound.adapters.stores.sqlite_doctor import SqliteDoctor

        return SqliteDoctor(config.sqlite_path, lease=config.lease)
    store = make_store(config, time.time)
    from rebound.adapters.stores.redis_doctor import Parted, RedisDoctor

    replicas = config.redis_wait_replicas or 0
    return RedisDoctor(cast("Parted", store), lease=config.lease, replicas=replicas)


def make_producers(config: Config) -> Mapping[str, Producer]:
    """What this installation can deliver to, by kind. Raises ValidationError."""
    from rebound.adapters.producers.http import HttpProducer

    producers: dict[str, Producer] = {
        "http": HttpProducer(
            fatal_statuses=config.fatal_statuses,
            proxy=config.http_proxy_url or None,
            session=config.session,
            version=__version__,
            guard=networks.guard(config),
        )
    }
    if (kafka := _kafka_producer(config)) is not None:
        producers["kafka"] = kafka
    return producers


def _kafka_producer(config: Config) -> Producer | None:
    """None where the extra is missing. Raises ValidationError where librdkafka refuses it."""
    try:
        from rebound.adapters.producers import kafka
    except ImportError:
        return None
    properties = kafka_settings.producing(config)
    if kafka_settings.security(config):
        try:
            kafka.try_out(properties)
        except ValueError as error:
            raise kafka_settings.named(config, str(error)) from None
    return kafka.KafkaProducer(
        config.kafka_brokers, properties, networks.refusal(config), networks.guard(config)
    )
