"""What happens to several Redis: a master watched by Sentinels dies, nodes of a Cluster change."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Iterable
from contextlib import suppress

from redis import Redis, ResponseError
from redis.crc import key_slot
from tests.redis_servers import Cluster, Node, Sentinels

from chaos.load import Load, mixed
from chaos.scenarios.redis_server import goes_on
from chaos.stage import DURABLE, Scenario, Stage
from rebound.adapters.stores.redis_partitions import spread

RATE = 200
LAG = 1.0
"""Seconds by which replicas may be behind: what was accepted in the last ones before the master
died is what Redis may lose where nobody waits for a replica."""
LINES = tuple(f"{n[2:]} {v}" for n, v in zip(DURABLE[2::2], DURABLE[3::2], strict=True))
"""The same as lines of redis.conf."""
PREFIXES = ("{rebound:0}:", *spread("rebound"))


async def master_killed(stage: Stage) -> None:
    """The master dies; each creation had to be confirmed by a replica."""
    await _fail_over(stage, waits=True)


async def master_killed_unconfirmed(stage: Stage) -> None:
    """The same where nobody waits for replicas: what had not reached them is lost."""
    await _fail_over(stage, waits=False)


async def _fail_over(stage: Stage, *, waits: bool) -> None:
    stage.store = "Redis, Sentinel"
    group = await asyncio.to_thread(
        Sentinels, stage.folder / "nodes", *LINES, replicas=2, sentinels=3
    )
    stage.after.callback(group.stop)
    del stage.settings["STORE_URL"]
    stage.settings |= {
        "REDIS_MODE": "sentinel", "REDIS_MASTER_NAME": group.name,
        "REDIS_SENTINEL_ADDRS": ",".join(group.addresses),
    } | ({"REDIS_WAIT_REPLICAS": "1"} if waits else {})  # fmt: skip
    await stage.service.serve("serve --no-worker")
    stage.work(2)
    load = stage.load(mixed(stage.receiver))
    loading = asyncio.create_task(load.run(stage.rate(RATE), 3600))
    await asyncio.sleep(stage.seconds(20, 5))
    early = set(load.accepted)
    await asyncio.sleep(LAG)
    before = delivering([group.master])
    group.master.stop()
    if not waits:
        stage.forgotten.update(set(load.sent) - early)
        stage.notes.append(f"promised: what was accepted {LAG:.0f} s before the master died")
    await in_flight(stage, before, group.data[1:])
    took = await back(stage, load)
    stage.notes.append(f"accepted again after {took:.1f} s")
    await asyncio.sleep(stage.seconds(20, 4))
    load.stop()
    await loading


async def cluster_changes(stage: Stage) -> None:
    """A master of a Cluster dies and comes back as a replica; later a slot moves."""
    stage.store = "Redis Cluster"
    cluster = await asyncio.to_thread(Cluster, stage.folder / "nodes", *LINES)
    stage.after.callback(cluster.stop)
    del stage.settings["STORE_URL"]
    stage.settings |= {
        "REDIS_MODE": "cluster", "REDIS_CLUSTER_ADDRS": ",".join(cluster.addresses),
        "REDIS_WAIT_REPLICAS": "1",
    }  # fmt: skip
    await stage.service.serve("serve --no-worker")
    stage.work(2)
    load = stage.load(mixed(stage.receiver))
    loading = asyncio.create_task(load.run(stage.rate(RATE), 3600))
    await asyncio.sleep(stage.seconds(20, 4))
    spread_over = Counter(cluster.owner(key_slot(prefix.encode())).port for prefix in PREFIXES[1:])
    stage.check(len(spread_over) == 3, f"parts of each master: {dict(spread_over)}")
    keys = [int(node.ask("DBSIZE")) for node in cluster.masters]
    stage.check(min(keys) > sum(keys) / 10, f"keys of each master: {keys}")
    stage.notes.append(f"keys of each master: {', '.join(map(str, keys))}")
    victim, heir = cluster.masters[1], cluster.nodes[4]
    before = delivering([victim])
    began = time.monotonic()
    victim.stop()
    await in_flight(stage, before, [heir])
    await stage.until(lambda: heir.ask("ROLE")[0] == "master", 20)
    victim.start()
    await back(stage, load, count=50)
    took = time.monotonic() - began
    stage.notes.append(f"every part has a master again after {took:.1f} s")
    await asyncio.sleep(stage.seconds(15, 3))
    part = PREFIXES[1]
    slot = key_slot(part.encode())
    source = cluster.owner(slot)
    end = cluster.begin_move(slot, cluster.masters[2])
    # until it has moved, this part can be neither written to nor settled: a fault to what runs
    stage.in_flight.update(delivering([source]))
    await asyncio.sleep(stage.seconds(2, 1))
    await asyncio.to_thread(end)
    await goes_on(stage, load)
    await asyncio.sleep(stage.seconds(15, 3))
    load.stop()
    await loading
    moved = cluster.owner(slot) is cluster.masters[2]
    stage.check(moved, "the slot did not move")


# -- their parts -------------------------------------------------------------------------------


def delivering(nodes: Iterable[Node], state: str = "delivering") -> set[str]:
    """Ids that these know as being delivered, or to be in another `state`."""
    found: set[str] = set()
    for node in nodes:
        with Redis(port=node.port, decode_responses=True, single_connection_client=True) as client:
            with suppress(ResponseError):  # only replicas of a Cluster have to be told
                client.readonly()
            for prefix in PREFIXES:
                with suppress(ResponseError):  # it has not got this slot
                    found.update(client.zrange(f"{prefix}by:{state}", 0, -1))
    return found


async def in_flight(stage: Stage, before: set[str], heirs: list[Node]) -> None:
    """What was in flight when a master died: by what it said just before, by its replicas, and by
    the receiver, where a replica has not heard that an attempt began, or that it ended."""
    now = time.time()
    await asyncio.sleep(0.2)
    unsettled = delivering(heirs, "open")
    begun = {got.id for got in stage.receiver.got if got.at > now - LAG}
    stage.in_flight.update(before | delivering(heirs) | begun & unsettled)


async def back(stage: Stage, load: Load, count: int = 1) -> float:
    """Seconds until so many more were accepted."""
    began, accepted = time.monotonic(), len(load.accepted)
    held = await stage.until(lambda: len(load.accepted) >= accepted + count, 20)
    stage.check(held, "nothing is accepted any more")
    return time.monotonic() - began


SCENARIOS = (
    Scenario("6a", "master killed, REDIS_WAIT_REPLICAS=1", master_killed, ("redis",)),
    Scenario("6b", "master killed, no replica waited for", master_killed_unconfirmed, ("redis",)),
    Scenario("7", "Cluster: master killed, slot moved", cluster_changes, ("redis",)),
)
