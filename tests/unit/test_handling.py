"""Records under way: how many at once, in which order, and what may be committed."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rebound.consuming.handling import Handling
from rebound.domain.progress import ROOM, ROOM_BYTES, WINDOW, Partition
from rebound.domain.record import Record
from tests.support import until


def rec(offset: int, key: bytes | None = None, value: bytes = b"") -> Record:
    return Record("t", 0, offset, key, value)


def batch(partition: Partition, *records: Record) -> list[tuple[Partition, Record]]:
    for one in records:
        partition.count(one)
    return [(partition, one) for one in records]


# -- a partition -------------------------------------------------------------------------------


@given(
    st.lists(st.sampled_from([None, b"a", b"b"]), min_size=1, max_size=30),
    st.integers(0, 2**32),
    st.integers(0, 10),
)
def test_only_what_is_done_without_a_gap_may_be_committed(
    keys: list[bytes | None], seed: int, first: int
) -> None:
    chance, partition = random.Random(seed), Partition("t", 0)
    offsets = [first + 3 * n for n in range(len(keys))]  # compaction leaves gaps
    records = [rec(offset, key) for offset, key in zip(offsets, keys, strict=True)]
    running = [one for n, one in enumerate(records) if partition.take((n, one))]
    done: list[Record] = []
    while running:
        one = running.pop(chance.randrange(len(running)))
        following = partition.finish(one)
        done.append(one)
        running += [following[1]] if following else []
        left = [r.offset for r in records if r not in done]
        safe = [r.offset for r in records if r.offset < min(left, default=2**62)]
        assert partition.position == (safe[-1] + 1 if safe else None)
    assert len(done) == len(records)
    for key in (b"a", b"b"):
        mine = [r.offset for r in done if r.key == key]
        assert mine == sorted(mine)
    assert not partition._keys


def test_a_partition_is_full_by_records_by_bytes_and_by_what_cannot_be_committed() -> None:
    partition = Partition("t", 0)
    assert not partition.filled()
    batch(partition, *[rec(n) for n in range(ROOM)])
    assert partition.filled()
    large = Partition("t", 0)
    batch(large, rec(0, value=bytes(ROOM_BYTES)))
    assert large.filled()
    stuck = Partition("t", 0)
    for one in [rec(n) for n in range(WINDOW)]:
        batch(stuck, one)
        stuck.take((one.offset, one))
        if one.offset:
            stuck.finish(one)
    assert stuck.filled()
    stuck.finish(rec(0))
    assert not stuck.filled(0.01)
    assert stuck.position == WINDOW


# -- handling ----------------------------------------------------------------------------------


class Doing:
    """A process that tests let end record by record."""

    def __init__(self, concurrency: int = 64) -> None:
        self.begun: list[int] = []
        self.most = 0
        self.crashed: list[BaseException] = []
        self.handling = Handling(self.process, concurrency, self.crashed.append)
        self._gates: dict[int, asyncio.Future[None]] = {}

    async def process(self, record: Record) -> None:
        self.begun.append(record.offset)
        gate = self._gates[record.offset] = asyncio.get_running_loop().create_future()
        self.most = max(self.most, len(self._gates))
        try:
            await gate
        finally:
            del self._gates[record.offset]

    async def end(self, *offsets: int, error: BaseException | None = None) -> None:
        for offset in offsets:
            await until(lambda: offset in self._gates)  # noqa: B023
            gate = self._gates[offset]
            gate.set_result(None) if error is None else gate.set_exception(error)
            await until(lambda: offset not in self._gates)  # noqa: B023

    @property
    def running(self) -> list[int]:
        return sorted(self._gates)


async def test_so_many_are_handled_at_once_and_the_next_begins_when_one_ends() -> None:
    doing, partition = Doing(concurrency=2), Partition("t", 0)
    doing.handling.take(batch(partition, *[rec(n) for n in range(5)]))
    await until(lambda: doing.running == [0, 1])
    await doing.end(1)
    await until(lambda: doing.running == [0, 2])
    assert partition.position is None
    await doing.end(0, 2, 3, 4)
    await until(lambda: partition.position == 5)
    assert doing.most == 2


async def test_records_with_the_same_key_are_handled_one_after_the_other_others_beside_them() -> (
    None
):
    doing, partition = Doing(), Partition("t", 0)
    keys = [b"a", b"a", b"b", None, None, b"a"]
    doing.handling.take(batch(partition, *[rec(n, key) for n, key in enumerate(keys)]))
    await until(lambda: doing.running == [0, 2, 3, 4])
    await doing.end(0)
    await until(lambda: doing.running == [1, 2, 3, 4])
    await doing.end(1, 5, 4, 3, 2)
    await until(lambda: partition.position == 6)


async def test_the_same_key_of_two_partitions_is_two_keys() -> None:
    doing, one, other = Doing(), Partition("t", 0), Partition("t", 1)
    doing.handling.take([*batch(one, rec(0, b"a")), *batch(other, rec(7, b"a"))])
    await until(lambda: doing.running == [0, 7])
    await doing.end(0, 7)


async def test_a_partition_taken_away_ends_what_runs_and_begins_nothing_more() -> None:
    doing, gone, kept = Doing(concurrency=2), Partition("t", 0), Partition("t", 1)
    doing.handling.take(batch(gone, *[rec(n) for n in range(4)]))
    doing.handling.take(batch(kept, rec(100)))
    draining = asyncio.create_task(doing.handling.drain([gone], 60, lost=False))
    await until(lambda: gone.closing)
    await doing.end(0, 1)
    await draining
    assert gone.position == 2
    await until(lambda: doing.running == [100])
    await doing.end(100)
    assert doing.begun == [0, 1, 100]


@pytest.mark.parametrize("lost", [False, True])
async def test_gaps_are_closed_before_a_partition_goes_unless_it_is_lost_already(
    lost: bool,
) -> None:
    doing, partition = Doing(), Partition("t", 0)
    keys = [b"a", b"a", b"b", b"a", b"b"]
    doing.handling.take(batch(partition, *[rec(n, key) for n, key in enumerate(keys)]))
    await doing.end(2)
    await until(lambda: doing.running == [0, 4])
    draining = asyncio.create_task(doing.handling.drain([partition], 60, lost=lost))
    await until(lambda: partition.dropped if lost else partition.closing)
    await doing.end(4, 0)
    if not lost:
        await doing.end(1, 3)
    await draining
    assert partition.position == (1 if lost else 5)


async def test_what_came_first_goes_first_though_it_waited_for_its_key() -> None:
    doing, partition = Doing(concurrency=1), Partition("t", 0)
    keys = [b"a", b"a", b"b", None]
    doing.handling.take(batch(partition, *[rec(n, key) for n, key in enumerate(keys)]))
    await doing.end(0, 1, 2, 3)
    assert doing.begun == [0, 1, 2, 3]


async def test_what_does_not_end_in_time_is_cancelled_and_nothing_from_it_on_is_committed() -> None:
    doing, partition = Doing(), Partition("t", 0)
    doing.handling.take(batch(partition, *[rec(n) for n in range(3)]))
    await doing.end(0, 2)
    await doing.handling.drain([partition], 0.01, lost=False)
    assert (partition.position, doing.running, doing.crashed) == (1, [], [])


async def test_what_cannot_be_processed_is_told_and_not_passed() -> None:
    doing, partition = Doing(), Partition("t", 0)
    doing.handling.take(batch(partition, *[rec(n) for n in range(2)]))
    await doing.end(1)
    await doing.end(0, error=ValueError("cannot be stored"))
    await until(lambda: doing.crashed)
    assert partition.position is None


@pytest.mark.parametrize("seconds", [0.0, 30.0])
async def test_draining_nothing_takes_no_time(seconds: float) -> None:
    doing = Doing()
    await asyncio.wait_for(doing.handling.drain([Partition("t", 0)], seconds, lost=False), 1)


async def test_a_record_cancelled_from_outside_ends_the_consumer() -> None:
    cancel: list[Callable[[], object]] = []

    async def process(_: Record) -> None:
        task = asyncio.current_task()
        assert task is not None
        cancel.append(task.cancel)
        await asyncio.sleep(60)

    crashed: list[BaseException] = []
    partition = Partition("t", 0)
    Handling(process, 1, crashed.append).take(batch(partition, rec(0)))
    await until(lambda: cancel)
    cancel[0]()
    await until(lambda: crashed)
    assert partition.position is None
