"""What happens to one Redis, and to the way there: stopped, killed, cut off, flushed, full."""

from __future__ import annotations

import asyncio
import shutil
import signal
import time
from pathlib import Path

from redis import Redis
from tests.conftest import RedisServer
from tests.proxy import Proxy

from chaos.load import Load, mixed
from chaos.stage import DURABLE, Scenario, Stage

RATE = 300
TRICKLE = 10
"""Tasks a second while none can be accepted: enough to see the answers."""
GOES_ON = 5.0
"""Seconds after the return of a store by which all goes on."""
LONG = "8s"
"""LEASE where nothing may come twice: a machine under load must not lose leases by itself."""
DELIVERING = "{rebound:0}:by:delivering"


async def stopped(stage: Stage) -> None:
    """Redis ends, stays away and comes back with what it had written."""
    redis = server(stage)
    await stage.service.serve("serve --no-worker")
    stage.work(2)
    make = mixed(stage.receiver)
    load, during = stage.load(make), stage.load(make, "u")
    loading = asyncio.create_task(load.run(stage.rate(RATE), 3600))
    await asyncio.sleep(stage.seconds(30, 4))
    redis.stop()
    load.stop()
    stage.in_flight.update(await asyncio.to_thread(written, copied(stage.folder)))
    waiting = asyncio.create_task(during.run(TRICKLE, stage.seconds(30, 5)))
    slowest = 0.0
    for _ in range(3):
        began = time.monotonic()
        status, _ = await stage.service.call("POST", "/tasks", {**make(0), "source": "s"})
        stage.check(status == 503, f"creating without a store was answered with {status}")
        slowest = max(slowest, time.monotonic() - began)
    stage.check(slowest < GOES_ON + stage.slack, f"the 503 took {slowest:.1f} s")
    await asyncio.sleep(stage.seconds(30, 5) - 1)
    redis.start()
    await asyncio.to_thread(loaded, redis)
    await goes_on(stage, during)
    await asyncio.gather(loading, waiting)
    after = stage.load(make, "v")
    await after.run(stage.rate(RATE), stage.seconds(15, 4))
    stage.check(during.answers[503] > 0, f"answers meanwhile: {dict(during.answers)}")


async def killed(stage: Stage) -> None:
    """`kill -9` of Redis, which syncs each write before it answers, again and again."""
    redis = server(stage)
    await stage.service.serve("serve --no-worker")
    stage.work(2)
    rounds, pause = stage.rounds(10, 3), 3.0
    load = stage.load(mixed(stage.receiver))
    loading = asyncio.create_task(load.run(stage.rate(RATE), 3600))
    for _ in range(rounds):
        await asyncio.sleep(stage.random.uniform(0.5, 1.5) * pause)
        redis.stop(signal.SIGKILL)
        copy = copied(stage.folder)
        redis.start()
        stage.in_flight.update(await asyncio.to_thread(written, copy))
        await asyncio.to_thread(loaded, redis)
        await goes_on(stage, load)
    load.stop()
    await loading
    stage.check(len(load.repeated) > 0, "no kill met a request")


async def stalls(stage: Stage) -> None:
    """Nothing passes between two workers and Redis for 10 s, three times their lease; a third has
    its own way. What was held back arrives late."""
    proxy = await behind_a_proxy(stage, direct=1, lease="3s")
    load = stage.load(mixed(stage.receiver))
    loading = asyncio.create_task(load.run(stage.rate(RATE), 3600))
    for _ in range(stage.rounds(4, 1)):
        await asyncio.sleep(stage.random.uniform(2, 4))
        proxy.stall()
        stage.in_flight.update(delivering(server(stage).port))
        await asyncio.sleep(stage.seconds(10, 6))
        proxy.go_on()
    await asyncio.sleep(2)
    load.stop()
    await loading


async def resets(stage: Stage) -> None:
    """All connections of the workers break, again and again: nothing is done twice for that."""
    proxy = await behind_a_proxy(stage)
    load = stage.load(mixed(stage.receiver))
    loading = asyncio.create_task(load.run(stage.rate(RATE), 3600))
    for _ in range(stage.rounds(40, 8)):
        await asyncio.sleep(stage.random.uniform(0.3, 1.2))
        proxy.reset()
    load.stop()
    await loading


async def replies_cut(stage: Stage) -> None:
    """One of five replies to workers and service breaks off after Redis has done what was asked.
    Claims, settles and creations that were applied but not confirmed: no repeat is allowed."""
    proxy = await behind_a_proxy(stage, all_behind=True)
    proxy.cut = 0.2
    load = stage.load(mixed(stage.receiver))
    await load.run(stage.rate(RATE / 2), stage.seconds(60, 6))
    proxy.cut = 0.0
    stage.check(proxy.cuts > 10, f"only {proxy.cuts} replies broke off")
    stage.notes.append(f"{proxy.cuts} replies broke off")


async def latency(stage: Stage) -> None:
    """Each reply takes 200 ms longer, to workers and service: slower, and nothing else."""
    proxy = await behind_a_proxy(stage, all_behind=True)
    proxy.latency = 0.2
    load = stage.load(mixed(stage.receiver))
    await load.run(stage.rate(RATE / 2), stage.seconds(40, 6))


async def flushed(stage: Stage) -> None:
    """FLUSHALL under load: what Redis forgot is gone, workers go on, and all that is accepted
    afterwards arrives."""
    with Redis(port=server(stage).port) as client:
        await stage.service.serve("serve --no-worker")
        stage.work(2)
        load = stage.load(mixed(stage.receiver))
        loading = asyncio.create_task(load.run(stage.rate(RATE), 3600))
        for _ in range(stage.rounds(5, 2)):
            await asyncio.sleep(stage.random.uniform(2, 4))
            client.flushall()
            # whatever was sent before may have been stored before
            stage.forgotten.update(load.sent)
            await goes_on(stage, load)
        await asyncio.sleep(1)
        load.stop()
        await loading


async def scripts_flushed(stage: Stage) -> None:
    """SCRIPT FLUSH under load: they are loaded again, and nobody notices."""
    stage.settings["LEASE"] = LONG
    with Redis(port=server(stage).port) as client:
        await stage.service.serve("serve --no-worker")
        stage.work(2)
        load = stage.load(mixed(stage.receiver))
        loading = asyncio.create_task(load.run(stage.rate(RATE), 3600))
        for _ in range(stage.rounds(30, 8)):
            await asyncio.sleep(stage.random.uniform(0.2, 1))
            client.script_flush()
        load.stop()
        await loading
    stage.check(set(load.answers) == {201}, f"answers: {dict(load.answers)}")


async def out_of_memory(stage: Stage) -> None:
    """Redis reaches `maxmemory`: creating answers 503, what is there is delivered, and when there
    is room again creating works."""
    with Redis(port=server(stage).port) as client:
        await stage.service.serve("serve --no-worker")
        stage.work(2)
        make = mixed(stage.receiver)
        load = stage.load(lambda n: {**make(n), "delay": n % 4})
        during = stage.load(make, "u")
        await load.run(stage.rate(RATE), stage.seconds(30, 6))
        client.config_set("maxmemory", 1)
        full = asyncio.create_task(during.run(TRICKLE, stage.seconds(20, 5)))
        status, body = await stage.service.call("POST", "/tasks", {**make(0), "source": "s"})
        said = status == 503 and "no room" in body["error"]
        stage.check(said, f"creating in a full Redis was answered with {status} {body}")
        waited = {id_ for id_ in load.accepted if not came(stage, id_)}
        stage.check(bool(waited), "nothing was left to deliver")
        gone = await stage.until(lambda: all(came(stage, id_) for id_ in waited), 20)
        stage.check(gone, "a full Redis delivers no more")
        stage.check(set(during.answers) == {503}, f"answers meanwhile: {dict(during.answers)}")
        stage.notes.append(f"{len(waited)} were delivered while it was full")
        client.config_set("maxmemory", 0)
    await goes_on(stage, during)
    await full
    await stage.load(make, "v").run(stage.rate(RATE), stage.seconds(10, 3))


# -- their parts -------------------------------------------------------------------------------


def server(stage: Stage) -> RedisServer:
    """The Redis of a stage."""
    assert stage.redis is not None
    return stage.redis


async def behind_a_proxy(
    stage: Stage, *, direct: int = 0, all_behind: bool = False, lease: str = LONG
) -> Proxy:
    """Two workers behind a proxy, so many without; the service behind it only with the latter."""
    stage.settings["LEASE"] = lease
    proxy = await stage.after.enter_async_context(Proxy(server(stage).port))
    stage.work(direct)
    if all_behind:
        stage.settings["STORE_URL"] = proxy.url
    await stage.service.serve("serve --no-worker")
    stage.work(2, STORE_URL=proxy.url)
    return proxy


def delivering(port: int) -> set[str]:
    """Ids that a Redis knows as being delivered."""
    with Redis(port=port, decode_responses=True) as client:
        return set(client.zrange(DELIVERING, 0, -1))


def copied(folder: Path) -> Path:
    """A copy of what a Redis, now gone, has left on the disk."""
    copy = folder / f"copy{time.monotonic_ns()}"
    shutil.copytree(folder / "appendonlydir", copy / "appendonlydir")
    return copy


def written(copy: Path) -> set[str]:
    """Ids that were being delivered by what is written there."""
    redis = RedisServer(copy, *DURABLE)
    try:
        loaded(redis)
        return delivering(redis.port)
    finally:
        redis.stop(signal.SIGKILL)
        shutil.rmtree(copy)


def loaded(redis: RedisServer) -> None:
    """Return when a Redis that was started has read what it had written."""
    with Redis(port=redis.port) as client:
        while client.info("persistence")["loading"]:
            time.sleep(0.02)


def came(stage: Stage, id_: str) -> bool:
    """True where the receiver has taken it, or its dead letter."""
    return id_ in stage.receiver.delivered or id_ in stage.receiver.dead_lettered


async def goes_on(stage: Stage, load: Load) -> None:
    """Creating and delivering begin again in time, unaided."""
    began, limit = time.monotonic(), GOES_ON + stage.slack
    accepted, got = len(load.accepted), len(stage.receiver.got)
    created = await stage.until(lambda: len(load.accepted) > accepted, limit)
    stage.check(created, f"nothing was accepted within {limit:.0f} s of the store's return")
    delivered = await stage.until(
        lambda: len(stage.receiver.got) > got, limit - (time.monotonic() - began)
    )
    stage.check(delivered, f"nothing was delivered within {limit:.0f} s of the store's return")


SCENARIOS = (
    Scenario("4a", "Redis stopped and started again", stopped, ("redis",)),
    Scenario("4b", "kill -9 of Redis, appendfsync always", killed, ("redis",)),
    Scenario("5a", "network stalls", stalls, ("redis",)),
    Scenario("5b", "connections reset", resets, ("redis",)),
    Scenario("5c", "replies cut off", replies_cut, ("redis",)),
    Scenario("5d", "200 ms latency", latency, ("redis",)),
    Scenario("10a", "FLUSHALL", flushed, ("redis",)),
    Scenario("10b", "SCRIPT FLUSH", scripts_flushed, ("redis",)),
    Scenario("11", "Redis out of memory", out_of_memory, ("redis",)),
)
