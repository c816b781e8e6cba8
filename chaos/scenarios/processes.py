"""What happens to the processes: killed, restarted, frozen, with wrong clocks."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import time
from datetime import datetime
from pathlib import Path
from typing import Any

from chaos.load import mixed
from chaos.receiver import OK, Got, slow
from chaos.stage import Scenario, Stage

RATE = 500
HOUR = 3600
FAKETIME = "/usr/lib/*/faketime/libfaketimeMT.so.1"
"""Where Debian's package faketime has its library."""


async def workers_killed(stage: Stage) -> None:
    """`kill -9` of one of three workers, again and again; another takes its place at once."""
    kills, pause = stage.rounds(20, 4), 2.0
    await stage.service.serve("serve --no-worker")
    workers = stage.work(3)
    load = stage.load(mixed(stage.receiver))
    loading = asyncio.create_task(load.run(stage.rate(RATE), (kills + 1) * pause))
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
    stage.explained_by = "lost"  # the only worker is the one that is killed
    process = await stage.service.serve()
    port = stage.service.url.rpartition(":")[2]
    load = stage.load(mixed(stage.receiver))
    loading = asyncio.create_task(load.run(stage.rate(RATE), (kills + 1) * pause))
    for _ in range(kills):
        await asyncio.sleep(stage.random.uniform(0.5, 1.5) * pause)
        process.kill()
        process = stage.service.run("serve", HTTP_PORT=port)
        await stage.service.ready(process)
    await loading
    stage.check(load.answers[0] > 0, "no kill met a request")
    stage.check(set(load.answers) <= {0, 200, 201, 503}, f"answers: {dict(load.answers)}")
    stage.notes.append(f"{load.answers[200]} repeats were known already")


async def workers_restarted(stage: Stage) -> None:
    """SIGTERM to three workers in turn, each followed by a new one. Only attempts that outlast the
    grace are repeated."""
    grace, rounds = 1.0, stage.rounds(9, 3)
    await stage.service.serve("serve --no-worker")
    settings = {"SHUTDOWN_GRACE": "1s", "LOG_LEVEL": "info"}
    workers = stage.work(3, **settings)
    stage.explained_by = "cut_short"
    make = mixed(stage.receiver)
    stage.receiver.answers["/long"] = slow(0, least=3)

    def some_long(n: int) -> dict[str, Any]:
        long = {"destination": {"url": stage.receiver.url("/long", 99)}}
        return long if n % 50 == 0 else make(n)

    load = stage.load(some_long)
    loading = asyncio.create_task(load.run(stage.rate(RATE), rounds * 3.0))
    slowest = 0.0
    for n in range(rounds):
        await asyncio.sleep(1)
        old = workers[n % 3]
        await stage.at_work(old)
        began = time.monotonic()
        ending = asyncio.create_task(old.terminate())
        workers[n % 3] = stage.work(1, **settings)[0]
        stage.check(await ending == 0, f"exit code {old.process.returncode}")
        slowest = max(slowest, time.monotonic() - began)
    await loading
    stage.check(slowest <= grace + 2 + stage.slack, f"a worker took {slowest:.1f} s to end")
    stage.notes.append(f"the slowest ended after {slowest:.1f} s of {grace + 2:.0f}")


async def clocks_wrong(stage: Stage) -> None:
    """Workers whose clocks are an hour ahead and behind; attempts outlast the lease. Nothing is
    early, and no repeat is allowed."""
    stage.settings["LEASE"] = "4s"
    library = str(next(Path("/").glob(FAKETIME[1:]), "faketime is not installed"))
    await stage.service.serve("serve --no-worker")
    shifted = [
        stage.service.run(
            "work", LOG_LEVEL="info",
            beside={
                "LD_PRELOAD": library, "FAKETIME": f"{hours * HOUR:+d}s",
                "FAKETIME_DONT_FAKE_MONOTONIC": "1", "DONT_FAKE_MONOTONIC": "1",
            },
        )
        for hours in (1, -1)
    ]  # fmt: skip
    await stage.at_work(*shifted, *stage.work(1, LOG_LEVEL="info"))
    make = mixed(stage.receiver)
    stage.receiver.answers["/long"] = slow(0, least=9)

    def later(n: int) -> dict[str, Any]:
        if n % 20 == 0:
            return {"destination": {"url": stage.receiver.url("/long", 99)}, "delay": 0.2}
        return {**make(n), "delay": n % 5 * 0.7}

    load = stage.load(later)
    await load.run(stage.rate(200), stage.seconds(60, 10))
    for worker, hours in zip(shifted, (1, -1), strict=True):
        off = logged_at(worker.logged()) - time.time()
        held = abs(off - hours * HOUR) < HOUR / 2
        stage.check(held, f"the clock of a worker is off by {off:.0f} s, not by {hours} h")
    firsts = [g.at - load.due[g.id] for g in stage.receiver.got if g.attempt == 1]
    firsts = [late for late in firsts if late > -HOUR / 2]
    early = -min(firsts)
    stage.check(early < 0.001, f"an attempt was {early:.3f} s early")
    stage.notes.append(f"earliest attempt {-early * 1000:.1f} ms after its due time")


def logged_at(log: str) -> float:
    """Time of the first line of a worker's log, by its own clock."""
    return datetime.fromisoformat(json.loads(log.splitlines()[0])["ts"]).timestamp()


async def worker_frozen(stage: Stage) -> None:
    """SIGSTOP of one of two workers in the middle of an attempt, past its lease, then SIGCONT: what
    it had is delivered by the other, and what it settles then changes nothing."""
    stage.settings["LEASE"] = "3s"
    rounds = stage.rounds(8, 2)
    await stage.service.serve("serve --no-worker")
    workers = stage.work(2, LOG_LEVEL="info")
    await stage.at_work(*workers)
    victims: list[int] = []
    make = mixed(stage.receiver)

    async def freeze(got: Got) -> bytes:
        for pid in [pid for pid in victims if got.sent_by(pid)]:
            os.kill(pid, signal.SIGSTOP)
            victims.remove(pid)
        return OK

    def some_freeze(n: int) -> dict[str, Any]:
        task = make(n)
        if n % 10 == 0:
            task["destination"]["url"] = stage.receiver.url("/freezing", 99)
        return task

    stage.receiver.answers["/freezing"] = freeze
    load = stage.load(some_freeze)
    loading = asyncio.create_task(load.run(stage.rate(200), rounds * 7.5))
    for n in range(rounds):
        await asyncio.sleep(1 + stage.random.random())
        pid = workers[n % 2].pid
        victims.append(pid)
        stage.check(await stage.until(lambda: not victims, 10), "a worker had no attempt")
        await stage.fault()
        await asyncio.sleep(5)
        os.kill(pid, signal.SIGCONT)
    await loading
    lost = sum(worker.logged().count('"lease lost"') for worker in workers)
    stage.check(lost >= rounds, f"of {rounds} frozen attempts only {lost} lost their lease")
    stage.notes.append(f"{lost} times a lease was lost")


SCENARIOS = (
    Scenario("1", "kill -9 of workers", workers_killed),
    Scenario("2", "kill -9 of the service", service_killed),
    Scenario("3", "rolling restart", workers_restarted),
    # With SQLite the workers are on one host and have one clock.
    Scenario("8", "clocks an hour off", clocks_wrong, ("redis",)),
    Scenario("9", "frozen worker", worker_frozen),
)
