"""The store in Redis, shared by any number of workers on any number of hosts.

Every verb is one script in `lua/`, run whole or not at all, by the clock of the server. Design:
docs/internals.md; what stands under which key: `lua/common.lua`.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
from collections.abc import Callable, Collection, Sequence
from typing import Any, Final

from redis import exceptions
from redis.asyncio import ConnectionPool, Redis

from rebound.adapters.stores import records
from rebound.adapters.stores import redis_finding as finding
from rebound.adapters.stores import redis_records as rows
from rebound.adapters.stores.redis_records import Row
from rebound.adapters.stores.redis_scripts import Script, Server
from rebound.adapters.stores.redis_server import RedisServer
from rebound.domain.errors import StoreUnavailable, StoreUnusable
from rebound.domain.task import Task
from rebound.ports import Added, Claimed, Filter, Found, Retention, Stored, Submission

LOG = logging.getLogger("rebound")
_ADDED: Final = (Added.CREATED, Added.SAME, Added.DIFFERENT)
_HOPELESS: Final = ("DB index is out of range", "cluster support disabled", "REDIS_MODE")
"""Parts of errors that waiting does not mend."""
_DURABLE: Final = {
    "appendonly": "yes",
    "appendfsync": "always",
    "maxmemory-policy": "noeviction",
}


class RedisStore:
    """`ports.Store` in the Redis behind `url` (redis:// or rediss://)."""

    name = "redis"

    def __init__(
        self,
        url: str,
        *,
        namespace: str = "rebound",
        prefix: str = "",
        retention: Retention = Retention(),  # noqa: B008
        pool_size: int = 64,
        client: Redis | None = None,
        server: Server | None = None,
        replicas: int = 0,
        shift: Callable[[], float] | None = None,
    ) -> None:
        """`client` or `server`, where given, say how to connect in place of `url`.

        A `client` stays the caller's. `prefix` of every key, where it is not the one of
        `namespace`. So many `replicas` have to confirm what is confirmed to
        others. `shift` gives seconds that are added to the server's clock, for tests. Raises
        ValueError for a malformed URL.
        """
        if server is None:
            pool = client.connection_pool if client is not None else ConnectionPool.from_url(url)
            server = RedisServer(pool, pool_size)
        self._server = server
        self._prefix = prefix or f"{{{namespace}:0}}:"
        self._replicas = replicas
        self._shift = shift
        self._keep = rows.Keep(retention)
        self._scripts = {
            name: Script.load(name)
            for name in ("add", "settle", "extend", "hold", "limit", "swap", "find")
        } | {"claim": Script.load("claim", "lease")}
        self._get = Script.load("get", shared=["record"])

    # -- life --------------------------------------------------------------------------------

    async def open(self) -> Sequence[str]:
        try:
            await self.ping()
        except StoreUnavailable as error:
            refused = (exceptions.AuthenticationError, exceptions.NoPermissionError)
            if isinstance(error.__cause__, refused) or any(
                text in str(error) for text in _HOPELESS
            ):
                raise StoreUnusable(str(error)) from error
            raise
        version = await self._info("redis_version")
        if version and int(version.split(".")[0]) < 7:
            raise StoreUnusable(f"redis {version} is too old: Rebound needs 7.0 or newer")
        short = []
        for setting, wanted in _DURABLE.items():
            found = await self._setting(setting)
            if found not in (None, wanted):
                short.append(f"{setting} is {found}, not {wanted}")
        return ["; ".join(short)] if short else []

    async def ping(self) -> None:
        await self._server.command("EXISTS", self._prefix)

    async def time(self) -> float:
        seconds, micros = await self._server.command("TIME")
        return int(seconds) + int(micros) / 1e6 + (self._shift() if self._shift else 0.0)

    async def aclose(self) -> None:
        await self._server.aclose()

    @property
    def parts(self) -> Sequence[tuple[Server, str]]:
        """Each prefix of keys with the server that has them, for the doctor."""
        return [(self._server, self._prefix)]

    # -- the hot path ------------------------------------------------------------------------

    async def add(self, submissions: Sequence[Submission], /) -> Sequence[Stored]:
        replicas = self._replicas
        now, *answers = await self._run("add", *rows.added(submissions), replicas=replicas)
        return [Stored(_ADDED[answer - 1], (now + n) / 1e6) for n, answer in enumerate(answers)]

    async def claim(
        self,
        limit: int,
        /,
        *,
        free: int,
        slots: int,
        kinds: Collection[str],
        lease: float,
        lane_limit: int,
        random: float,
    ) -> Claimed:
        chance = os.urandom(6).hex()
        wants = (limit, free, rows.micros(lease), lane_limit, random, chance, slots)
        reply = await self._run("claim", *self._keep.arguments, *wants, *kinds, repeat=False)
        now, next_due, blocked, orphans, cuts, found = reply
        self._keep.warn(cuts)
        for id_ in orphans:
            LOG.warning("task %s was due, but it has no record: dropped", id_.decode())
        tasks, unreadable = rows.claimed(found, b"%b.%b" % (chance.encode(), now), now)
        buried = await self._bury(unreadable)
        if buried:
            next_due = now
        due = rows.seconds(next_due) if next_due else None
        return Claimed(tasks, rows.seconds(now), due, bool(blocked), buried)

    async def settle(self, tasks: Sequence[Task], /) -> Sequence[str]:
        lost, cuts = await self._run("settle", *self._keep.arguments, *rows.settled(tasks))
        self._keep.warn(cuts)
        return [id_.decode() for id_ in lost]

    async def extend(self, tasks: Sequence[Task], /, *, lease: float) -> Sequence[str]:
        queues = rows.numbered()
        leases = [
            value
            for task in tasks
            if task.lease
            for value in (task.id, task.lease.token, queues[task.lease.queue])
        ]
        lost = await self._run("extend", rows.micros(lease), len(queues), *queues, *leases)
        return [id_.decode() for id_ in lost]

    async def hold(self, queue: str, /, *, seconds: float | None) -> None:
        await self._run("hold", queue, "" if seconds is None else rows.micros(seconds))

    async def limit(self, queue: str, /, *, in_flight: int | None) -> None:
        await self._run("limit", queue, "" if in_flight is None else max(in_flight, 0))

    async def watch(self, kinds: Collection[str], wake: Callable[[], None], /) -> None:
        channels = self.channels(kinds)
        if not channels:
            await asyncio.Event().wait()
        await self._server.listen(channels, lambda _: wake())

    def channels(self, kinds: Collection[str]) -> list[str]:
        """Where is published that something of `kinds` is due earlier than was known."""
        return [f"{self._prefix}wake:{kind}" for kind in kinds]

    # -- for people --------------------------------------------------------------------------

    async def get(self, id_: str, /) -> Task | None:
        row = await self._row(id_)
        return None if row is None else rows.shown(id_, row)

    async def find(self, wanted: Filter, /, *, limit: int, cursor: str | None = None) -> Found:
        return await finding.find(self.page, wanted, limit, cursor)

    async def page(self, *arguments: Any) -> finding.Page:
        """What `find.lua` reads."""
        return finding.Page(*await self._run("find", *arguments))

    async def swap(self, before: Task, after: Task | None, /) -> bool:
        row = await self._row(before.id)
        if row is None or not rows.same(rows.shown(before.id, row), before):
            return False
        read = [value or b"" for value in (row.g, row.s, row.l)]
        queue = before.queue if before.destination.given else ""
        written: list[Any] = ["", queue, "", "", ""]
        if after is not None:
            written = [
                rows.state_of(after), after.queue, int(after.is_priority), rows.moment_of(after),
                records.progress(after),
            ]  # fmt: skip
        state, *rest = written
        arguments = (before.id, *read, queue, state, *rest)
        replicas = self._replicas
        return bool(await self._run("swap", *arguments, repeat=False, replicas=replicas))

    # -- their parts -------------------------------------------------------------------------

    async def _run(
        self, script: str, *arguments: Any, repeat: bool = True, replicas: int = 0
    ) -> Any:
        shift = rows.micros(self._shift()) if self._shift else 0
        text, values = self._scripts[script], (shift, *arguments)
        return await self._server.run(text, self._prefix, values, repeat=repeat, replicas=replicas)

    async def _row(self, id_: str) -> Row | None:
        key = f"{self._prefix}t:{id_}"
        row = Row(*await self._server.command("EVAL", self._get.text, 1, key))
        return row if row.g or row.b else None

    async def _bury(self, unreadable: Sequence[Task]) -> Sequence[Task]:
        """Set aside as dead what cannot be decoded; those that are."""
        if unreadable:
            with contextlib.suppress(StoreUnavailable):  # then their leases expire, and again
                await self.settle(unreadable)
                return unreadable
        return ()

    async def _info(self, name: str) -> str | None:
        with contextlib.suppress(StoreUnavailable):
            for line in (await self._server.command("INFO", "server")).decode().splitlines():
                if line.startswith(f"{name}:"):
                    return str(line.partition(":")[2])
        return None

    async def _setting(self, name: str) -> str | None:
        with contextlib.suppress(StoreUnavailable):
            pairs = await self._server.command("CONFIG", "GET", name)
            return pairs[1].decode() if len(pairs) == 2 else None
        return None
