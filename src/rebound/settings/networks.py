"""The settings that say where deliveries may go."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import lru_cache
from ipaddress import ip_address, ip_network
from typing import TYPE_CHECKING

from rebound.domain.brokers import peers
from rebound.domain.destination import Destination
from rebound.domain.networks import Guard
from rebound.settings import kafka
from rebound.settings.readers import listed

if TYPE_CHECKING:
    from rebound.settings import Config


def guard(config: Config) -> Guard:
    """What the settings allow. Brokers that the operator named are not judged."""
    private = config.allow_private_networks
    named = (*config.kafka_brokers, *(config.kafka_allowed_brokers or ()))
    return Guard(
        private=config.environment != "prod" if private is None else private,
        allowed=tuple(map(ip_network, config.allowed_networks)),
        denied=tuple(map(ip_network, config.denied_networks)),
        hosts=config.allowed_hosts,
        ports=tuple(map(_span, config.allowed_ports)),
        https_only=config.https_only,
        brokers=frozenset(peers(tuple(broker for broker in named if broker != "*"))),
    )


def refusal(config: Config) -> Callable[[Destination], str | None]:
    """Says why tasks must not go to a destination, as far as its URL tells, or None."""
    of_brokers, of_networks = kafka.refusal(config), lru_cache(4096)(guard(config).url)
    return lambda to: of_brokers(to) or of_networks(to.address)


def _network(value: object) -> str:
    return str(ip_network(value if isinstance(value, str) else ""))


def _host(value: object) -> str:
    text = value.lower().removesuffix(".") if isinstance(value, str) else ""
    if not text.isascii():
        text = text.encode("idna").decode()
    if re.fullmatch(r"(\*\.)?[a-z0-9_-]{1,63}(\.[a-z0-9_-]{1,63})*", text):
        return text
    return str(ip_address(text.strip("[]")))


def _port(value: object) -> str:
    text = value if isinstance(value, str) else str(value)
    match = re.fullmatch(r"(\d{1,5})(?:-(\d{1,5}))?", text, re.ASCII)
    if isinstance(value, bool) or not match or not 0 < int(match[1]) <= _last(text) < 65536:
        raise ValueError
    return text


def _last(text: str) -> int:
    return int(text.rpartition("-")[2])


def _span(text: str) -> range:
    return range(int(text.partition("-")[0]), _last(text) + 1)


networks = listed(_network, "must be networks such as 10.1.0.0/16 or fd00::/8, with commas")
hosts = listed(_host, "must be hosts such as api.example.com or *.example.com, with commas")
ports = listed(_port, "must be ports such as 443 or 8000-8999, with commas")
