"""Settings that are allowed, but that contradict each other or will surprise somebody."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Final

from rebound.domain.finding import Finding, Severity
from rebound.settings.readers import spoken

if TYPE_CHECKING:
    from rebound.settings import Config

SHORT_LEASE: Final = 10.0
"""Seconds. A store that does not answer for two thirds of a lease costs every lease."""
LONG_GRACE: Final = 28.0
"""Seconds. Kubernetes kills after 30, Docker after 10 unless told otherwise."""


def risks(config: Config) -> list[Finding]:
    """What is unwise about the settings as a whole."""
    return [found for rule in RULES for found in rule(config)]


def _lease(config: Config) -> Iterator[Finding]:
    if config.lease < SHORT_LEASE:
        yield Finding(
            severity=Severity.WARNING,
            title=f"LEASE is {spoken(config.lease)}",
            meaning="A store or host that stalls for a few seconds costs workers their leases, and"
            " what they deliver is delivered twice; five times in a row ends a task as `crashed`.",
            remedy=f"Set LEASE to {spoken(SHORT_LEASE)} or more; the default is 1m.",
        )


def _grace(config: Config) -> Iterator[Finding]:
    if config.shutdown_grace > LONG_GRACE:
        grace = spoken(config.shutdown_grace)
        yield Finding(
            severity=Severity.WARNING,
            title=f"SHUTDOWN_GRACE is {grace}",
            meaning="Kubernetes kills after 30s and `docker stop` after 10s; what was under way is"
            " then repeated only when its lease is over.",
            remedy=f"Give the container more than {grace} (terminationGracePeriodSeconds,"
            " stop_grace_period), or shorten SHUTDOWN_GRACE.",
        )


def _lanes(config: Config) -> Iterator[Finding]:
    if config.lane_concurrency > config.concurrency:
        yield Finding(
            severity=Severity.NOTE,
            title=f"LANE_CONCURRENCY ({config.lane_concurrency}) is more than CONCURRENCY"
            f" ({config.concurrency})",
            meaning="One worker can never fill a lane; several together can.",
            remedy="Nothing, where several workers run; else raise CONCURRENCY.",
        )


def _batches(config: Config) -> Iterator[Finding]:
    if config.max_batch_bytes < config.max_payload_bytes:
        yield Finding(
            severity=Severity.WARNING,
            title="MAX_BATCH_BYTES is less than MAX_PAYLOAD_BYTES",
            meaning="A message that POST /tasks takes is refused in a batch, and by `submit`.",
            remedy="Raise MAX_BATCH_BYTES to twice MAX_PAYLOAD_BYTES or more.",
        )


def _memory(config: Config) -> Iterator[Finding]:
    shown = spoken(config.retention_succeeded)
    if 0 < config.dedup_window < config.retention_succeeded:
        yield Finding(
            severity=Severity.NOTE,
            title="DEDUP_WINDOW is shorter than RETENTION_SUCCEEDED",
            meaning=f"It has no effect: ids stay known for {shown}, as long as their tasks.",
            remedy="Nothing, or raise DEDUP_WINDOW.",
        )
    if not config.dedup_window or not config.dedup_max:
        name = "DEDUP_MAX" if config.dedup_window else "DEDUP_WINDOW"
        yield Finding(
            severity=Severity.WARNING,
            title=f"{name} is 0",
            meaning=f"A client that repeats a call more than {shown} after a delivery makes"
            " another.",
            remedy=f"Set {name} above the longest time in which clients repeat.",
        )


def _access(config: Config) -> Iterator[Finding]:
    if config.environment == "prod" and config.auth == "off":
        yield Finding(
            severity=Severity.WARNING,
            title="AUTH is off in prod",
            meaning="Whoever reaches the port may send requests from here, and read every message.",
            remedy="Set API_KEYS, or see that only those who may can reach HTTP_HOST.",
        )


def _volatile(config: Config) -> Iterator[Finding]:
    if config.sqlite_path == ":memory:" and config.store_kind == "sqlite":
        yield Finding(
            severity=Severity.ERROR if config.environment == "prod" else Severity.WARNING,
            title="the store is in memory (sqlite://:memory:)",
            meaning="Every task is lost when the process ends, and no other process sees them.",
            remedy="Set STORE_URL to a file or to Redis.",
        )


RULES: Final[tuple[Callable[[Config], Iterator[Finding]], ...]] = (
    _lease, _grace, _lanes, _batches, _memory, _access, _volatile,
)  # fmt: skip
