"""The workers of one process: each kind of system has a budget of its own."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from rebound.crew import Crew
from rebound.domain.attempt import State
from rebound.domain.destination import Destination
from rebound.engine import Engine
from rebound.worker import Limits
from tests.conftest import Clock
from tests.support import task, until
from tests.unit.scripted import FarStore, Heard, Receiver, ended, hanging


def topic(n: int = 0) -> Destination:
    return Destination(url=f"kafka://h:9092/topic{n}")


@pytest.fixture
def records() -> Receiver:
    return Receiver()


@pytest.fixture
async def engine(
    far: FarStore, receiver: Receiver, records: Receiver, heard: Heard
) -> AsyncIterator[Engine]:
    made = Engine(far, {"http": receiver, "kafka": records}, listeners=[heard])  # type: ignore[arg-type]
    yield made
    await made.aclose()


@pytest.fixture
async def crew(engine: Engine, clock: Clock) -> AsyncIterator[Crew]:
    limits = Limits(concurrency=2, lane_concurrency=2, poll_interval=60.0, grace=0.0)
    records = limits._replace(concurrency=5, lane_concurrency=5)
    made = Crew(engine, {("http",): limits, ("kafka",): records}, clock)
    made.start()
    yield made
    await made.drain()


async def test_records_under_way_take_no_slots_from_other_deliveries(
    engine: Engine, crew: Crew, receiver: Receiver, records: Receiver
) -> None:
    records.answers = [hanging]
    for n in range(9):
        await engine.submit(task(f"record{n}", destination=topic(n)))
    await until(lambda: records.under_way == 5)
    await engine.submit(task("call"))
    assert (await ended(engine, "call")).state == State.SUCCEEDED
    assert records.most == 5


async def test_calls_under_way_take_no_slots_from_records(
    engine: Engine, crew: Crew, receiver: Receiver, records: Receiver
) -> None:
    receiver.answers = [hanging]
    for n in range(4):
        await engine.submit(task(f"call{n}", lane=f"lane{n}"))
    await until(lambda: receiver.under_way == 2)
    await engine.submit(task("record", destination=topic()))
    assert (await ended(engine, "record")).state == State.SUCCEEDED
    assert receiver.most == 2


async def test_a_dead_letter_changes_over_to_the_other_budget(
    engine: Engine, crew: Crew, receiver: Receiver, records: Receiver
) -> None:
    receiver.answers = [RuntimeError("no")]
    await engine.submit(task("a", max_retries=1, dead_destination=topic()))
    assert (await ended(engine, "a")).dead_letter == "delivered"
    assert records.ids == ["a"]


async def test_it_starts_and_stops_as_one(
    engine: Engine, far: FarStore, clock: Clock, heard: Heard
) -> None:
    limits = Limits(poll_interval=60.0, grace=0.0)
    crew = Crew(engine, {("http", "call:x"): limits, ("kafka",): limits}, clock)
    crew.start()
    await crew.drain()
    assert heard.kinds == ["worker started", "worker stopped"]
    assert heard.events[0].detail == "http, call:x, kafka"


@pytest.mark.usefixtures("short_pauses")
async def test_the_store_is_back_when_every_worker_reaches_it_again(
    engine: Engine, far: FarStore, clock: Clock, heard: Heard
) -> None:
    far.away = {"claim"}
    limits = Limits(poll_interval=0.02, grace=0.0)
    crew = Crew(engine, {("http",): limits, ("kafka",): limits}, clock)
    crew.start()
    await until(lambda: far.calls.count("claim") > 6)
    far.away = set()
    await until(lambda: "store back" in heard.kinds)
    await crew.drain()
    assert heard.kinds == [
        "worker started", "store unavailable", "store back", "worker stopped",
    ]  # fmt: skip
