"""What a Redis server says of itself that matters to tasks."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Mapping
from typing import Final

from rebound.adapters.stores.redis_scripts import Server
from rebound.domain.errors import StoreUnavailable
from rebound.domain.finding import Finding, Severity

MIN_VERSION: Final = 7
FULL: Final = 0.8
"""Share of `maxmemory` from which on it is worth a warning."""
OFFSET: Final = 2.0
"""Seconds that two clocks may differ."""
SETTINGS: Final = (
    "appendonly", "appendfsync", "maxmemory-policy", "min-replicas-to-write", "maxmemory",
)  # fmt: skip
Said = Mapping[str, str]


async def server_findings(server: Server, replicas: int) -> list[Finding]:
    """What is wrong with it; `replicas` have to confirm each write. Raises StoreUnavailable."""
    await server.command("PING")
    before = time.time()
    seconds, micros = await server.command("TIME")
    offset = int(seconds) + int(micros) / 1e6 - (before + time.time()) / 2
    info = await _info(server)
    said = await _settings(server)
    return [
        *_version(info),
        *_role(info),
        *_eviction(said),
        *_durability(said, info),
        *_replicas(said, info, replicas),
        *_memory(info),
        *_clock(offset),
    ]


async def _info(server: Server) -> Said:
    """INFO; empty where the login may not ask."""
    found: dict[str, str] = {}
    with contextlib.suppress(StoreUnavailable):
        for line in (await server.command("INFO")).decode().splitlines():
            name, colon, value = line.partition(":")
            if colon:
                found[name] = value
    return found


async def _settings(server: Server) -> Said:
    """Those of SETTINGS that the server tells; managed ones may not."""
    found: dict[str, str] = {}
    for name in SETTINGS:
        with contextlib.suppress(StoreUnavailable):
            pairs = await server.command("CONFIG", "GET", name)
            if len(pairs) == 2:
                found[name] = pairs[1].decode()
    return found


def _version(info: Said) -> Iterator[Finding]:
    version = info.get("redis_version", "")
    major = version.partition(".")[0]
    if major.isdigit() and int(major) < MIN_VERSION:
        yield Finding(
            severity=Severity.ERROR,
            title=f"Redis {version} is too old",
            meaning=f"Rebound needs {MIN_VERSION}.0 or newer and does not start on it.",
            remedy="Upgrade Redis; its data stays.",
        )


def _role(info: Said) -> Iterator[Finding]:
    if info.get("role") in ("slave", "replica"):
        yield Finding(
            severity=Severity.ERROR,
            title="this Redis is a replica",
            meaning="It takes no writes, so nothing is accepted and nothing delivered.",
            remedy="Point the store's URL to the master, or let Sentinel name it.",
        )


def _eviction(said: Said) -> Iterator[Finding]:
    policy = said.get("maxmemory-policy", "noeviction")
    if policy != "noeviction":
        limited = said.get("maxmemory", "0") != "0"
        yield Finding(
            severity=Severity.ERROR if limited else Severity.WARNING,
            title=f"maxmemory-policy is {policy}, not noeviction",
            meaning="When its memory is full Redis throws away tasks that it has confirmed.",
            remedy="`redis-cli CONFIG SET maxmemory-policy noeviction`, and in redis.conf too.",
        )


def _durability(said: Said, info: Said) -> Iterator[Finding]:
    if said.get("appendonly", "yes") != "yes":
        yield Finding(
            severity=Severity.WARNING,
            title="appendonly is off",
            meaning="A crash or restart of Redis loses what it accepted since its last snapshot.",
            remedy="`redis-cli CONFIG SET appendonly yes`, and in redis.conf too.",
        )
    elif said.get("appendfsync", "always") != "always":
        yield Finding(
            severity=Severity.WARNING,
            title=f"appendfsync is {said['appendfsync']}, not always",
            meaning="A crash of the host may lose the last second and more of what was accepted.",
            remedy="`redis-cli CONFIG SET appendfsync always`, and in redis.conf too.",
        )
    for name in ("aof_last_write_status", "rdb_last_bgsave_status"):
        if info.get(name, "ok") != "ok":
            yield Finding(
                severity=Severity.ERROR,
                title=f"Redis could not write its data to disk ({name} is {info[name]})",
                meaning="It refuses writes until it can again, or will lose them in a crash.",
                remedy="Look for a full or broken disk, and into the log of Redis.",
            )
    if not said:
        yield Finding(
            severity=Severity.NOTE,
            title="Redis does not tell its settings (CONFIG GET is refused)",
            meaning="Whether what it confirms survives a crash cannot be seen from here.",
            remedy="See with its operator: appendonly yes, appendfsync always, noeviction.",
        )


def _replicas(said: Said, info: Said, wanted: int) -> Iterator[Finding]:
    if not wanted:
        return
    connected = int(info.get("connected_slaves", wanted))
    if connected < wanted:
        yield Finding(
            severity=Severity.ERROR,
            title=f"{connected} replicas are connected, and {wanted} have to confirm each write",
            meaning="New tasks are refused with 503.",
            remedy="Bring the replicas back, or lower REDIS_WAIT_REPLICAS.",
        )
    least = said.get("min-replicas-to-write")
    if least is not None and int(least) < wanted:
        yield Finding(
            severity=Severity.NOTE,
            title=f"min-replicas-to-write is {least}, below REDIS_WAIT_REPLICAS",
            meaning="A master cut off from its replicas goes on taking writes that a failover"
            " loses, such as the ends of deliveries, which are then repeated.",
            remedy=f"`redis-cli CONFIG SET min-replicas-to-write {wanted}`.",
        )


def _memory(info: Said) -> Iterator[Finding]:
    used, most = int(info.get("used_memory", 0)), int(info.get("maxmemory", 0))
    if most and used > FULL * most:
        yield Finding(
            severity=Severity.ERROR if used >= most else Severity.WARNING,
            title=f"Redis uses {used / most:.0%} of its maxmemory",
            meaning="When it is full new tasks are refused with 503; known ones are delivered on.",
            remedy="Raise maxmemory, lower RETENTION_SUCCEEDED, or delete dead tasks.",
        )


def _clock(offset: float) -> Iterator[Finding]:
    if abs(offset) > OFFSET:
        way = "ahead of" if offset > 0 else "behind"
        yield Finding(
            severity=Severity.WARNING,
            title=f"the clock of Redis is {abs(offset):.0f} s {way} this host's",
            meaning="Tasks go by the clock of Redis, so none is early or late by this host's; but"
            " times in logs do not fit those of tasks, and one of the two clocks is wrong.",
            remedy="Let both keep time by NTP.",
        )
