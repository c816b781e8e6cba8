"""What happens to the processes: killed, restarted, frozen, with wrong clocks."""

from __future__ import annotations

import asyncio

from chaos.load import mixed
from chaos.stage import Scenario, Stage

RATE = 500


async def workers_killed(stage: Stage) -> None:
    """`kill -9` of one of three workers, again and again; another takes its place at once."""
    kills, pause = stage.rounds(20, 4), 2.0
    await stage.service.serve("serve --no-worker")
    workers = stage.work(3)
    load = stage.load(mixed(stage.receiver))
    loading = asyncio.create_task(load.run(RATE, (kills + 1) * pause))
    for _ in range(kills):
        await asyncio.sleep(stage.random.uniform(0.5, 1.5) * pause)
        victim = stage.random.randrange(len(workers))
        workers[victim].kill()
        await stage.fault()
        workers[victim : victim + 1] = stage.work(1)
    await loading


async def service_killed(stage: Stage) -> None:
    """`kill -9` of the service while it accepts and delivers; clients repeat what had no answer."""
    kills, pause = stage.rounds(20, 3), 3.0
    process = await stage.service.serve()
    port = stage.service.url.rpartition(":")[2]
    load = stage.load(mixed(stage.receiver))
    loading = asyncio.create_task(load.run(RATE, (kills + 1) * pause))
    for _ in range(kills):
        await asyncio.sleep(stage.random.uniform(0.5, 1.5) * pause)
        process.kill()
        process = stage.service.run("serve", HTTP_PORT=port)
        await stage.service.ready(process)
        await stage.fault()
    await loading
    stage.check(load.answers[0] > 0, "no kill met a request")
    stage.check(set(load.answers) <= {0, 200, 201, 503}, f"answers: {dict(load.answers)}")
    stage.notes.append(f"{load.answers[200]} repeats were known already")


SCENARIOS = (
    Scenario("1", "kill -9 of workers", workers_killed),
    Scenario("2", "kill -9 of the service", service_killed),
)
