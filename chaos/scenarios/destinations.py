"""What destinations do: stay away, hang, kill whoever calls them."""

from __future__ import annotations

import asyncio
from typing import Any

from tests.e2e.conftest import Process

from chaos.load import mixed
from chaos.receiver import BROKEN, OK, Got, slow
from chaos.scenarios.lateness import on_time
from chaos.stage import Scenario, Stage


async def dead_destination_down(stage: Stage) -> None:
    """The dead letters' destination refuses connections all the while, then takes them."""
    down = stage.receiver.elsewhere()
    stage.receiver.answers["/broken"] = BROKEN
    await stage.service.serve()

    def hopeless(n: int) -> dict[str, Any]:
        return {
            "destination": {"url": stage.receiver.url("/broken", 1 + n % 8)}, "max_retries": 1,
            "dead_destination": {"url": down.url("/dead", 1 + n % 8)},
        }  # fmt: skip

    load = stage.load(hopeless)
    await load.run(stage.rate(200), stage.seconds(15, 5))
    await asyncio.sleep(stage.seconds(20, 7))
    stage.check(not stage.receiver.dead_lettered, "a dead letter arrived where nobody listened")
    await down.start()
    try:
        # The dead leg waits 10 s, then 20, then 40.
        arrived = await stage.until(
            lambda: len(stage.receiver.dead_lettered) == len(load.accepted), 75
        )
        stage.check(arrived, f"{len(stage.receiver.dead_lettered)} dead letters arrived")
    finally:
        await down.stop()


async def destinations_hang(stage: Stage) -> None:
    """20 destinations hang, with a backlog each; beside them a healthy one. Then they answer."""
    answering, backlog = asyncio.Event(), stage.rounds(5000, 250)

    async def hanging(_: Got) -> bytes:
        await answering.wait()
        return OK

    stage.receiver.answers["/hang"] = hanging
    await stage.service.serve("serve --no-worker")
    await stage.at_work(*stage.work(1, LOG_LEVEL="info"))
    urls = [stage.receiver.url("/hang", host) for host in range(1, 21)]

    async def fill() -> None:
        await stage.fill(
            [
                {"id": f"h{host}-{n}", "destination": {"url": url, "timeout": 120}}
                for host, url in enumerate(urls)
                for n in range(backlog)
            ]
        )

    async def hang() -> None:
        await asyncio.sleep(stage.seconds(25, 5))

    try:
        await on_time(stage, 200, hang, fill)
    finally:
        answering.set()


async def thousand_lanes(stage: Stage) -> None:
    """1,000 destinations with a backlog, and few slots: each gets its turn, none goes ahead."""
    each, lanes = stage.rounds(20, 5), 1000
    stage.receiver.answers["/slow"] = slow(0.1)
    await stage.service.serve("serve --no-worker")
    await stage.fill(
        [
            {"id": f"l{host}-{n}", "destination": {"url": stage.receiver.url("/slow", host)}}
            for host in range(1, lanes + 1)
            for n in range(each)
        ]
    )
    stage.work(2, CONCURRENCY="50")
    served: set[str] = set()
    places: list[int] = []

    def all_served() -> bool:
        for got in stage.receiver.got[len(places) :]:
            served.add(got.id.partition("-")[0])
            places.append(len(served))
        return len(served) == lanes

    stage.check(await stage.until(all_served, 60), f"only {len(served)} lanes were served")
    needed = places.index(lanes) + 1 if lanes in places else len(places)
    stage.check(needed <= 2 * lanes, f"all lanes had their turn only after {needed} deliveries")
    stage.notes.append(f"each of 1,000 lanes had its turn within {needed:,} deliveries")


async def message_kills_workers(stage: Stage) -> None:
    """Two messages at which whoever delivers them dies; neighbours in the same lane arrive."""
    stage.settings["LEASE"] = "3s"
    workers: list[Process] = []

    async def kill(got: Got) -> None:
        for worker in workers:
            if worker.alive and got.sent_by(worker.pid):
                worker.kill()
                await stage.fault()

    stage.receiver.answers["/killer"] = kill
    make = mixed(stage.receiver)
    await stage.service.serve("serve --no-worker")
    workers += stage.work(3, LOG_LEVEL="info")
    await stage.at_work(*workers)
    url = stage.receiver.url("/killer")
    await stage.fill(
        [
            {"id": "killer1", "destination": {"url": url}, "max_retries": 1},
            {
                "id": "killer5", "destination": {"url": url},
                "dead_destination": {"url": stage.receiver.url("/dead")},
            },
        ]
    )  # fmt: skip
    load = stage.load(make)
    loading = asyncio.create_task(load.run(stage.rate(100), 30))
    ends: list[dict[str, Any]] = []
    async with asyncio.timeout(150):
        while not ends or any(task["state"] != "dead" for task in ends):
            for n, worker in enumerate(workers):
                if not worker.alive:
                    workers[n] = stage.work(1)[0]
            ends = [await stage.service.task(f"killer{n}") for n in (1, 5)]
            await asyncio.sleep(0.05)
    await loading
    for task in ends:
        lost = [a["outcome"] for a in task["attempts"]].count("lost")
        stage.check(task["dead_reason"] == "crashed", f"{task['id']}: {task['dead_reason']}")
        stage.check(lost == 5, f"{task['id']}: {lost} lost leases")
    stage.notes.append(
        f"{sum(g.path == '/killer' for g in stage.receiver.got)} workers died of two"
    )


SCENARIOS = (
    Scenario("13", "dead-letter destination down", dead_destination_down),
    Scenario("14a", "20 hanging destinations", destinations_hang, alone=True),
    Scenario("14b", "1,000 lanes", thousand_lanes),
    Scenario("14c", "a message that kills workers", message_kills_workers),
)
