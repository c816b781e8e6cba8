"""What a Cluster alone can get wrong: parts, redirections, and lanes over several parts."""

from __future__ import annotations

from collections import Counter

import pytest
from redis.crc import key_slot

from rebound.adapters.stores.redis import RedisStore
from rebound.adapters.stores.redis_cluster import RedisCluster
from rebound.adapters.stores.redis_connecting import Place
from rebound.adapters.stores.redis_finding import Page, merged
from rebound.adapters.stores.redis_partitions import PARTS, RedisPartitions, share, spread
from rebound.domain.errors import StoreUnavailable, StoreUnusable
from rebound.ports import Filter
from tests.conftest import Clock, RedisServer
from tests.contract.conftest import MakeStore
from tests.redis_servers import Cluster
from tests.support import claim, claimed, ids, put, succeed, task

in_a_cluster = pytest.mark.parametrize("make_store", ["redis-cluster"], indirect=True)


@in_a_cluster
async def test_limit_of_a_lane_holds_over_its_parts_and_workers(make_store: MakeStore) -> None:
    one, other = make_store(), make_store()
    await put(one, *(task(f"t{n}") for n in range(200)))
    taken = Counter[str]()
    for store in (one, other) * 10:
        taken.update(ids(await claimed(store, 100, lane_limit=20)))
    assert len(taken) == 20
    assert max(taken.values()) == 1


@in_a_cluster
async def test_own_limit_and_hold_of_a_lane_reach_all_its_parts(make_store: MakeStore) -> None:
    store = make_store()
    queue = "http|http://one.test"
    await put(store, *(task(f"t{n}") for n in range(100)))
    await store.hold(queue, seconds=60)
    assert await claimed(store) == []
    await store.hold(queue, seconds=None)
    await store.limit(queue, in_flight=10)
    assert sum([len(await claimed(store)) for _ in range(10)]) == 10
    await store.limit(queue, in_flight=None)
    assert sum([len(await claimed(store, lane_limit=800)) for _ in range(5)]) == 90


@in_a_cluster
async def test_twenty_hanging_lanes_leave_slots_for_a_healthy_one(make_store: MakeStore) -> None:
    store, slots, free = make_store(), 1024, 1024
    for n in range(20):
        await put(store, *(task(f"h{n}-{i}", f"hang{n}") for i in range(300)))
        for _ in range(12):
            free -= len(await claimed(store, min(free, 200), free=free, slots=slots))
    assert free >= slots // 21 // 2
    await put(store, *(task(f"ok{n}", "healthy") for n in range(PARTS)))
    found = [await claimed(store, free, free=free, slots=slots) for _ in range(3)]
    assert sum(map(len, found)) == PARTS


@in_a_cluster
async def test_small_claims_reach_every_part_in_turn(make_store: MakeStore) -> None:
    store = make_store()
    await put(store, *(task(f"t{n}") for n in range(40)))
    seen = set[str]()
    for _ in range(60):
        batch = await claimed(store, 1, free=100, slots=100)
        seen |= set(ids(batch))
        await store.settle([succeed(t, await store.time()) for t in batch])
    assert len(seen) == 40
    assert (await claim(store)).next_due is None


@in_a_cluster
async def test_lists_are_merged_page_by_page_and_nothing_is_left_out(
    make_store: MakeStore, clock: Clock
) -> None:
    store = make_store()
    for n in range(50):
        await put(store, task(f"t{n}", client_id="odd" if n % 2 else ""))
    for wanted, names in (
        (Filter(), [f"t{n}" for n in reversed(range(50))]),
        (Filter(client_id="odd"), [f"t{n}" for n in reversed(range(50)) if n % 2]),
    ):
        seen: list[str] = []
        cursor: str | None = None
        for _ in range(10):
            page = await store.find(wanted, limit=7, cursor=cursor)
            seen += ids(page.tasks)
            cursor = page.cursor
            if cursor is None:
                break
        assert seen == names


@in_a_cluster
async def test_while_a_slot_moves_its_tasks_can_be_read_on_either_side(
    make_store: MakeStore, redis_cluster: Cluster
) -> None:
    store = make_store()
    assert isinstance(store, RedisPartitions)
    names = [f"t{n}" for n in range(80)]
    await put(store, *(task(name) for name in names))
    prefix = store.parts[0][1]
    slot = key_slot(prefix.encode())
    source = redis_cluster.owner(slot)
    to = next(node for node in redis_cluster.masters if node is not source)
    keys = source.ask("CLUSTER", "GETKEYSINSLOT", slot, 100)
    moved = [key for key in keys if key.startswith(f"{prefix}t:")][::2]
    end_of_move = redis_cluster.begin_move(slot, to)
    try:
        source.ask("MIGRATE", "127.0.0.1", to.port, "", 0, 5000, "KEYS", *moved)
        assert None not in [await store.get(name) for name in names]
        assert await store.get("nobody") is None
    finally:
        end_of_move()
    assert len(moved) > 1


async def test_one_server_is_refused_as_a_cluster_and_a_cluster_as_one_server(
    redis_server: RedisServer, redis_cluster: Cluster
) -> None:
    alone = RedisPartitions(Place("redis://", addresses=[("127.0.0.1", redis_server.port)]))
    node = RedisStore(f"redis://{redis_cluster.masters[0].address}", namespace="elsewhere")
    for store, said in ((alone, "cluster support disabled"), (node, "set REDIS_MODE to cluster")):
        with pytest.raises(StoreUnusable, match=said):
            await store.open()
        await store.aclose()


def test_parts_lie_evenly_over_the_slots() -> None:
    for namespace in ("rebound", "a.b:c"):
        slots = [key_slot(prefix.encode()) for prefix in spread(namespace)]
        assert [slot * PARTS // 16384 for slot in slots] == list(range(PARTS))
        assert {slot * 3 // 16384 for slot in slots} == {0, 1, 2}


@pytest.mark.parametrize("total", [0, 1, 7, 8, 100, 1_000_001])
def test_shares_add_up(total: int) -> None:
    assert sum(share(total, part) for part in range(PARTS)) == total


def test_merged_page_ends_where_the_first_part_to_stop_has_come_to() -> None:
    one = Page(1, b"5", b"b", [[b"9", b"a"], [b"5", b"b"]])
    other = Page(1, b"7", b"c", [[b"8", b"d"], [b"7", b"c"]])
    done = Page(0, b"1", b"e", [[b"7", b"x"], [b"1", b"e"]])
    assert merged([one, other, done]) == Page(
        1, b"7", b"c", [[b"9", b"a"], [b"8", b"d"], [b"7", b"x"], [b"7", b"c"]]
    )
    assert [row[1] for row in merged([done, done]).read] == [b"x", b"x", b"e", b"e"]


async def test_nodes_that_no_answer_names_any_more_are_asked_nothing_more() -> None:
    """In Kubernetes a node comes back under another address; each look for one costs time."""
    here, asked = "10.0.0.0", list[str]()

    class Node:
        def __init__(self, address: tuple[str, int]) -> None:
            self.host = address[0]

        async def command(self, *_: object, **__: object) -> list[list[object]]:
            asked.append(self.host)
            if self.host not in (here, "seed"):
                raise StoreUnavailable("it is gone")
            return [[0, 16383, [here.encode(), 6379, b"id"], [b"seed", 6379, b"id"]]]

    cluster = RedisCluster(Node, [("seed", 6379)], ["{rebound}:"])  # type: ignore[arg-type]
    for n in range(20):
        here = f"10.0.0.{n}"
        asked.clear()
        cluster._owners.clear()
        await cluster.part("{rebound}:").command("TIME")
        assert {*asked} <= {here, "seed", f"10.0.0.{n - 1}"}
