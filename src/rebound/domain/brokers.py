"""Brokers and topic of a `kafka://` URL, in one form that can be compared."""

from __future__ import annotations

from functools import lru_cache
from typing import Final, NamedTuple

DEFAULT_PORT: Final = 9092


class Route(NamedTuple):
    """What a `kafka://` URL says."""

    brokers: tuple[str, ...]
    """Sorted `host:port` in lower case; empty for `kafka:///topic`."""
    topic: str


@lru_cache(maxsize=4096)
def route(url: str) -> Route:
    """A valid `kafka://` URL taken apart."""
    brokers, _, topic = url.partition("://")[2].partition("/")
    return Route(normal(brokers.split(",")) if brokers else (), topic)


def normal(brokers: list[str] | tuple[str, ...]) -> tuple[str, ...]:
    """Each broker once as `host:port` in lower case, sorted."""
    return tuple(sorted({_with_port(broker.lower()) for broker in brokers}))


def peers(brokers: list[str] | tuple[str, ...]) -> tuple[tuple[str, int], ...]:
    """Host, without brackets, and port of each."""
    split = (broker.rpartition(":") for broker in normal(brokers))
    return tuple((host.strip("[]"), int(port)) for host, _, port in split)


def _with_port(broker: str) -> str:
    named = ":" in broker.rpartition("]")[2]
    return broker if named else f"{broker}:{DEFAULT_PORT}"
