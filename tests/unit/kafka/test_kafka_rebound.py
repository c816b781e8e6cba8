"""From a task to its record, through store and worker."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from rebound import Config, Destination, Rebound, State, Task
from rebound.domain.validation import parse
from tests.support import until
from tests.unit.kafka.conftest import threads
from tests.unit.kafka.mock import MockCluster


def rebound(cluster: MockCluster, **settings: Any) -> Rebound:
    return Rebound(
        Config(store_url="sqlite://:memory:", kafka_brokers=cluster.bootstrap, **settings)
    )


async def ended(rb: Rebound, id_: str) -> Task:
    async with asyncio.timeout(20):
        while (found := await rb.get_task(id_)) is None or found.finished_at is None:
            await asyncio.sleep(0.005)
    return found


async def test_the_originals_destination_is_delivered_to(cluster: MockCluster) -> None:
    host, _, port = cluster.bootstrap.partition(":")
    sent = parse(
        b'{"id": "o-1", "source": "orders", "message_data": "{\\"n\\": 1}", "delay": 0,'
        b' "destination": {"host": "%b", "port": "%b", "topic": "original"}}'
        % (host.encode(), port.encode())
    )
    async with rebound(cluster) as rb:
        await rb.create_task(sent)
        done = await ended(rb, "o-1")
    assert done.state == State.SUCCEEDED
    (found,) = cluster.records("original", 1)
    assert (found.key(), found.value()) == (b"o-1", b'{"n": 1}')
    assert done.attempts[0].response == f"partition {found.partition()}, offset 0"
    assert threads() == []


async def test_what_http_refuses_ends_in_the_dead_topic(cluster: MockCluster) -> None:
    one = Task(
        id="d-1", source="s", delay=0, max_retries=1, message_data="x",
        destination=Destination(url="http://127.0.0.1:1/hook"),
        dead_destination=Destination(url="kafka:///dead"),
    )  # fmt: skip
    async with rebound(cluster) as rb:
        await rb.create_task(one)
        assert (await ended(rb, "d-1")).dead_letter == "delivered"
    (found,) = cluster.records("dead", 1)
    told = dict(found.headers())
    assert told["rebound-dead-reason"] == b"exhausted"
    assert told["rebound-last-error"] == b"connection refused"
    assert told["rebound-original-destination"] == b"http://127.0.0.1:1/hook"


async def test_a_close_waits_for_what_is_under_way(cluster: MockCluster) -> None:
    to = Destination(url="kafka:///closing")
    async with rebound(cluster) as rb:
        await rb.create_tasks(
            Task(id=f"c-{n}", source="s", delay=0, destination=to) for n in range(200)
        )
        producer = rb.engine.producers["kafka"]
        await until(lambda: any(c.under_way for c in producer._clients.values()))  # type: ignore[attr-defined]
        await rb.drain()
        states = [(await rb.find(state=state, limit=1000)).tasks for state in State]
    counts = {state: len(tasks) for state, tasks in zip(State, states, strict=True)}
    assert counts[State.SUCCEEDED] > 0
    assert counts[State.SUCCEEDED] + counts[State.SCHEDULED] == 200
    assert not [one for one in states[0] if one.attempts], "no attempt was cut short"


async def test_more_records_than_slots_for_calls_are_under_way(own_cluster: MockCluster) -> None:
    async with rebound(own_cluster, concurrency=2, lane_concurrency=1, shutdown_grace=0) as rb:
        await rb.create_task(
            Task(id="w", source="s", delay=0, destination=Destination(url="kafka:///t"))
        )
        await ended(rb, "w")
        own_cluster.down()
        await rb.create_tasks(
            Task(id=f"{n}", source="s", delay=0, destination=Destination(url="kafka:///t"))
            for n in range(300)
        )
        producer = rb.engine.producers["kafka"]
        (client,) = producer._clients.values()  # type: ignore[attr-defined]
        await until(lambda: client.under_way == 300)
    assert threads() == []


@pytest.mark.parametrize("kind", ["main", "dead"])
async def test_brokers_that_are_no_longer_allowed_get_nothing(
    cluster: MockCluster, kind: str, tmp_path: Any
) -> None:
    store = f"sqlite:///{tmp_path / 'tasks.db'}"
    host, _, port = cluster.bootstrap.partition(":")
    named = Destination(host=host, port=port, topic="forbidden")
    http = Destination(url="http://127.0.0.1:1/hook")
    fields = {"main": {"destination": named}, "dead": {"destination": http, "max_retries": 1}}
    more = {"dead_destination": named} if kind == "dead" else {}
    async with Rebound(Config(store_url=store), worker=False) as rb:
        await rb.create_task(Task(id="f", source="s", delay=0, **fields[kind], **more))  # type: ignore[arg-type]
    async with Rebound(Config(store_url=store, kafka_allowed_brokers="other:1")) as rb:
        done = await ended(rb, "f")
    assert done.state == State.DEAD
    assert done.attempts[-1].outcome == "rejected"
    assert done.last_error == f"KAFKA_ALLOWED_BROKERS does not allow {host}:{port}"
