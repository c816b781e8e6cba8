"""A Redis Cluster: which node has which slot, by what the nodes say."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final, NoReturn

from redis import exceptions
from redis.crc import key_slot

from rebound.adapters.stores.redis_scripts import Argument, Script, Wake
from rebound.adapters.stores.redis_server import LISTEN_PAUSE, RedisServer
from rebound.domain.errors import StoreUnavailable

Address = tuple[str, int]
LOOK_UP_TIMEOUT: Final = 0.5
"""Seconds that one node has to say who has which slot, before the next is asked."""
CALL_TIMEOUT: Final = 4.5
"""Seconds for one call with all its detours."""
REDIRECTS: Final = 4


class RedisCluster:
    """The nodes of a Cluster, and who of them has which of the slots that are of interest."""

    def __init__(
        self,
        connect: Callable[[Address], RedisServer],
        addresses: Sequence[Address],
        prefixes: Sequence[str],
    ) -> None:
        """`addresses` of nodes to begin with; `prefixes` of all keys, each with a hash tag."""
        self._connect = connect
        self._first = list(addresses)
        self._named: list[Address] = []
        """Nodes by the newest answer. Older ones may be gone for good, as pods are."""
        self._slots = {key_slot(prefix.encode()) for prefix in prefixes}
        self._servers: dict[Address, RedisServer] = {}
        self._owners: dict[int, Address] = {}
        self._looking = asyncio.Lock()

    def part(self, prefix: str) -> ClusterPart:
        """Where the keys of one of the prefixes are."""
        return ClusterPart(self, key_slot(prefix.encode()))

    def server(self, address: Address) -> RedisServer:
        """The node at an address."""
        if address not in self._servers:
            self._servers[address] = self._connect(address)
        return self._servers[address]

    async def on(self, slot: int, call: Callable[[RedisServer], Awaitable[Any]]) -> Any:
        """What `call` gives on the node that has `slot`. Raises StoreUnavailable."""
        try:
            async with asyncio.timeout(CALL_TIMEOUT):
                for _ in range(REDIRECTS):
                    address = await self._owner(slot)
                    try:
                        return await call(self.server(address))
                    except StoreUnavailable as error:
                        moved = error.__cause__
                        if not isinstance(moved, exceptions.AskError):
                            self._owners.clear()  # it may have lost its slots: ask the others
                            raise
                        if not isinstance(moved, exceptions.MovedError):
                            raise
                    # The node has refused and done nothing, so that even a claim may be repeated.
                    self._owners[slot] = (moved.host or address[0], moved.port)
        except TimeoutError:
            raise StoreUnavailable(f"the cluster did not answer within {CALL_TIMEOUT} s") from None
        raise StoreUnavailable(f"the nodes of the cluster do not agree on who has slot {slot}")

    async def listen(self, channels: Sequence[str], wake: Wake) -> NoReturn:
        """As `Server.listen`, on any node: what is published reaches all."""
        while True:
            try:
                address = await self._owner(random.choice(sorted(self._slots)))
                await self.server(address).listen_once(channels, wake)
            except StoreUnavailable:
                pass
            await asyncio.sleep(LISTEN_PAUSE)

    async def aclose(self) -> None:
        """Close every connection."""
        for server in self._servers.values():
            await server.aclose()

    async def _owner(self, slot: int) -> Address:
        if slot not in self._owners:
            async with self._looking:
                if slot not in self._owners:  # nobody has found it meanwhile
                    await self._look_up()
        if slot not in self._owners:
            raise StoreUnavailable(f"no node of the cluster has slot {slot}")
        return self._owners[slot]

    async def _look_up(self) -> None:
        """Ask one node after the other, in any order: one that is cut off knows old things."""
        known = list(dict.fromkeys([*self._first, *self._named]))
        cause: BaseException | None = None
        for address in random.sample(known, len(known)):
            try:
                async with asyncio.timeout(LOOK_UP_TIMEOUT):
                    ranges = await self.server(address).command("CLUSTER", "SLOTS", repeat=False)
            except (StoreUnavailable, TimeoutError) as error:
                cause = error
                continue
            self._named = []
            for first, last, *nodes in ranges:  # the master, then its replicas
                found = [((host or b"").decode() or address[0], port) for host, port, *_ in nodes]
                self._named += found
                self._owners |= dict.fromkeys(self._slots & set(range(first, last + 1)), found[0])
            return
        raise StoreUnavailable(str(cause) or "no node of the cluster answers in time") from (
            cause and cause.__cause__
        )


class ClusterPart:
    """Whichever node has one slot: a `redis_scripts.Server`."""

    def __init__(self, cluster: RedisCluster, slot: int) -> None:
        self._cluster = cluster
        self._slot = slot

    async def command(self, *arguments: Argument, repeat: bool = True, asking: bool = False) -> Any:
        try:
            return await self._cluster.on(
                self._slot, lambda node: node.command(*arguments, repeat=repeat, asking=asking)
            )
        except StoreUnavailable as error:
            if not isinstance(error.__cause__, exceptions.AskError):
                raise
            node = self._cluster.server(error.__cause__.node_addr)
            return await node.command(*arguments, repeat=repeat, asking=True)

    async def run(
        self,
        script: Script,
        prefix: str,
        arguments: Sequence[Argument],
        *,
        repeat: bool = True,
        replicas: int = 0,
    ) -> Any:
        """As `Server.run`.

        The one key that a script names, its prefix, is never there. So while the slot moves, the
        node that gives it away refuses every script before its first step, whatever has moved
        already; and the other one, which would run it on half of the keys, is never asked.
        """
        return await self._cluster.on(
            self._slot,
            lambda node: node.run(script, prefix, arguments, repeat=repeat, replicas=replicas),
        )

    async def listen(self, channels: Sequence[str], wake: Wake) -> NoReturn:
        await self._cluster.listen(channels, wake)

    async def aclose(self) -> None:
        """Nothing: the cluster is closed as a whole."""
