"""Receivers that want to do harm: giants, drips, bombs, floods, nonsense and silence."""

from __future__ import annotations

import asyncio
import gzip
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple

from chaos.receiver import OK, Answer, Got, Receiver, hanging
from chaos.scenarios.lateness import on_time
from chaos.stage import Scenario, Stage

GIB: Final = 2**30
MOST_GROWTH: Final = 64
"""MiB that a worker may need more than before at any time."""
LIMIT: Final = 4
"""Seconds of an attempt."""


class Trick(NamedTuple):
    """What a receiver does, and what spec 4 says becomes of the attempt."""

    answer: Answer
    outcome: str
    """`succeeded`, `failed` or `timeout`."""


def pour(head: bytes, piece: bytes, total: float = math.inf, pause: float = 0.001) -> Answer:
    """Writes `head`, then `piece` again and again until so many bytes or a closed connection."""

    async def answer(got: Got) -> None:
        sent, to = 0, got.transport
        to.write(head)
        while sent < total and not to.is_closing():
            if to.get_write_buffer_size() < 2**18:
                to.write(piece)
                sent += len(piece)
            await asyncio.sleep(pause)

    return answer


def saying(answer: bytes) -> Answer:
    """Writes bytes, whatever they are."""

    async def written(got: Got) -> None:
        got.transport.write(answer)

    return written


async def slammed(got: Got) -> None:
    """Closes the connection without a word."""
    got.transport.close()


async def reset(got: Got) -> None:
    """Cuts the connection in the middle of the head."""
    got.transport.write(b"HTTP/1.1 200 OK\r\nContent-")
    await asyncio.sleep(0.01)
    got.transport.abort()


def tricks(receiver: Receiver) -> Mapping[str, Trick]:
    """By name."""
    zeros = bytes(2**16)
    okay = b"HTTP/1.1 200 OK\r\n"
    chunked = okay + b"Transfer-Encoding: chunked\r\n\r\n"
    broken = b"HTTP/1.1 500 Broken\r\n"
    bomb = gzip.compress(bytes(2**20)) * 1024
    zipped = okay + b"Content-Encoding: gzip\r\nContent-Length: %d\r\n\r\n" % len(bomb)
    length = b"Content-Length: %d\r\n\r\n" % GIB
    elsewhere = receiver.url("/secret").encode()
    return {
        "giant": Trick(pour(okay + length, zeros, GIB), "succeeded"),
        "giant-500": Trick(pour(broken + length, zeros, GIB), "failed"),
        "giant-chunk": Trick(pour(chunked + b"%x\r\n" % GIB, zeros, GIB), "succeeded"),
        "endless": Trick(pour(okay + b"Connection: close\r\n\r\n", zeros), "succeeded"),
        "crumbs": Trick(pour(chunked, b"1\r\nx\r\n" * 1000), "succeeded"),
        "drip": Trick(pour(okay + b"Content-Length: 3600\r\n\r\n", b"x", pause=1), "timeout"),
        "drip-head": Trick(pour(b"HTTP/1.1 200 O", b"K", pause=1), "timeout"),
        "bomb": Trick(saying(zipped + bomb), "succeeded"),
        "nonsense": Trick(saying(b"\x00\x01 this is not HTTP\r\n\r\n" * 100), "failed"),
        "lengths": Trick(
            saying(okay + b"Content-Length: 2\r\nContent-Length: 7\r\n\r\nok"), "failed"
        ),
        "negative": Trick(saying(okay + b"Content-Length: -5\r\n\r\nok"), "failed"),
        "short": Trick(pour(okay + b"Content-Length: 9\r\n\r\nok", b"", pause=9), "timeout"),
        "headers": Trick(pour(okay, b"".join(b"X-%d: y\r\n" % n for n in range(500))), "failed"),
        "header": Trick(pour(okay + b"X-Long: ", b"y" * 4096), "failed"),
        "reason": Trick(pour(b"HTTP/1.1 200 ", b"O" * 4096), "failed"),
        "extension": Trick(pour(chunked + b"5;", b"e" * 4096), "timeout"),
        "trailers": Trick(pour(chunked + b"2\r\nok\r\n0\r\n", b"X-Trailer: y\r\n" * 500), "failed"),
        "continue": Trick(pour(b"", b"HTTP/1.1 100 Continue\r\n\r\n" * 200), "failed"),
        "switch": Trick(
            saying(b"HTTP/1.1 101 Switching\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n"),
            "failed",
        ),
        "redirect": Trick(
            saying(
                b"HTTP/1.1 302 Found\r\nContent-Length: 0\r\nLocation: " + elsewhere + b"\r\n\r\n"
            ),
            "failed",
        ),
        "twice": Trick(saying(OK + OK), "succeeded"),
        "silence": Trick(hanging, "timeout"),
        "slammed": Trick(slammed, "failed"),
        "reset": Trick(reset, "failed"),
    }


def megabytes(pid: int, what: str) -> float:
    """`VmRSS`, what the process has in memory now, or `VmHWM`, what it had at most."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(what)).split()[1]) / 1024


def counted(receiver: Receiver, trick: Trick) -> Answer:
    """Where a trick is an answer with 2xx all the same, the delivery counts."""

    async def answer(got: Got) -> bytes | None:
        if trick.outcome == "succeeded":
            receiver.acknowledge(got)
        return await trick.answer(got)

    return answer


async def receivers_hostile(stage: Stage) -> None:
    """Two dozen tricks at a time, each in its own lane, beside a healthy destination."""
    known = tricks(stage.receiver)
    names = list(known)
    for name, trick in known.items():
        stage.receiver.answers[f"/{name}"] = counted(stage.receiver, trick)
    await stage.service.serve("serve --no-worker")
    (worker,) = stage.work(1, LOG_LEVEL="info")
    await stage.at_work(worker)

    def hostile(n: int) -> dict[str, Any]:
        which = n % len(names)
        to = stage.receiver.url(f"/{names[which]}", 1 + which)
        policy = {"max_retries": 2, "base_delay": 0.5}
        return {"destination": {"url": to, "timeout": LIMIT}, **policy}

    async def harm() -> float:
        before = megabytes(worker.pid, "VmRSS")
        load = stage.load(hostile, "x")
        await load.run(stage.rate(25), stage.seconds(30, 8))
        await stage.settled()
        return megabytes(worker.pid, "VmHWM") - before

    growth = await on_time(stage, 100, harm)
    stage.check(growth < MOST_GROWTH, f"the worker needed {growth:.0f} MiB more")
    stage.check(not any(g.path == "/secret" for g in stage.receiver.got), "redirect followed")
    await outcomes(stage, known)
    stage.notes.append(f"{len(known)} tricks; memory of the worker: {growth:+.0f} MiB at most")


async def outcomes(stage: Stage, known: Mapping[str, Trick]) -> None:
    """Check what each attempt has come to."""
    told: set[str] = set()
    for id_ in [i for i in stage.accepted if i.startswith("x")][: 2 * len(known)]:
        task = await stage.service.task(id_)
        name = task["destination"]["url"].rpartition("/")[2]
        wanted = known[name].outcome
        got = [attempt["outcome"] for attempt in task["attempts"]]
        held = got == [wanted] * (1 if wanted == "succeeded" else 2)
        if not held and name not in told:
            told.add(name)
            stage.check(False, f"{name}: {got} {task['last_error']}, not {wanted}")


SCENARIOS = (Scenario("15", "hostile receivers", receivers_hostile, alone=True),)
