"""The targets, in the order of the page; and those that are missed, each with its reason."""

from __future__ import annotations

from collections.abc import Mapping
from statistics import median
from typing import Final

from bench.figures import Figures, Target
from bench.peers import PEERS

FULL: Final = ", 1,000,000 pending"
WIDE: Final = ", 10,000 lanes"
NARROW: Final = ", one lane"

_CREATE, _MANY, _BATCHES = "create_task, one caller", "create_task, 64 callers", "create_tasks"
_POST, _POST_MANY, _SEVERAL = "POST /tasks", "POST /tasks/batch", "two processes"
_DELIVER, _LOGGING, _LATE = "deliver, one worker", "deliver, logging", "lateness"
_GROWTH, _MEMORY, _RECOVERY = "growth", "memory", "recovery, 1,000,000 due at once"

REFERENCE: Final = {
    "bare EVALSHA": 6_080,
    "pipelined EVALSHA": 25_700,
    "EVALSHA of 500": 155_000,
    "empty handler": 44_000,
    "bare loop": 11_400,
}
"""What the machine of 2026-11-29 does a second without Rebound: its targets are in seconds."""

MISSED: Final[Mapping[str, str]] = {
    _BATCHES: "the program's one thread: about 11 µs of CPU a task; Redis alone would take more"
    " (see below). By `py-spy` 33 % of it are `Acceptance.submission` (digest 10 %, id 5 %), 24 %"
    " `drafts.of_python` (is the task JSON?), 22 % `RedisStore.add`. Several processes add up.",
    _POST: "a request costs about 48 µs of CPU, 23 where the handler does nothing. By `py-spy` 29 %"
    " of it are `Api._create` (reading, checking, digest, answer), 14 % the batches to Redis, 12 %"
    " writing the answer; the rest is uvicorn and the loop. wrk and Redis share the second core.",
    _LOGGING: "a line costs 4 µs, a delivery without it about 50: 0.93, less what the machine"
    " changes from run to run. By `cProfile` a third of it is the write, a third the JSON.",
    _SEVERAL: "there are no two free cores: a task takes about 61 µs of a worker, 23 of Redis and"
    " 11 of nginx, so one worker keeps 1.6 of them busy, and what a second could have is the rest."
    " Of two workers a task takes 74 µs, with Redis and nginx 110: two cores do 18,000/s at most.",
}
"""Rows that are known to miss a target on the machine of docs/performance.md: what bounds each,
and the profile that shows it. `make bench` fails for a missed row that is not here."""


def pace(figures: Figures) -> float:
    """What this machine does of what the reference does, without Rebound: 1 at most."""
    return min(
        1.0, median(median(figures.of(name)) / a_second for name, a_second in REFERENCE.items())
    )


def targets(figures: Figures) -> list[Target]:
    """The whole table. The best peer is the one that was best in this run."""
    peers = [f"deliver, {name}" for name in PEERS]
    best = figures.best(*peers)
    table = [
        Target(_CREATE, "create", "tasks/s", 0.8, beside="bare EVALSHA"),
        Target(_CREATE, "create: p99", "ms", most=1),
        Target(_MANY, "create by 64", "tasks/s", 35_000),
        Target(_BATCHES, "create_tasks", "tasks/s", 100_000),
        Target(_BATCHES, "create_tasks, unlike", "tasks/s", beside="create_tasks"),
        Target(_POST, "POST /tasks", "tasks/s", 13_000),
        Target(_POST, "POST /tasks", "tasks/s", 0.6, beside="empty handler"),
        Target(_POST, "POST /tasks: p99", "ms", most=10),
        Target(_POST_MANY, "POST /tasks/batch", "tasks/s", 60_000),
        Target(_DELIVER, "deliver", "tasks/s", 5, beside=best),
        Target(_DELIVER, "deliver", "tasks/s", 0.7, beside="bare loop"),
        Target(_LOGGING, "deliver, logging", "tasks/s", 0.9, beside="deliver"),
        Target("deliver, SQLite", "deliver, SQLite", "tasks/s", 4_000),
        Target(_LATE, "lateness: p50", "ms", most=5),
        Target(_LATE, "lateness: p99", "ms", most=20),
        Target(_LATE, "earliest", "ms early", most=1),
    ]
    for name in ("create", "create by 64", "create_tasks", "POST /tasks", "deliver"):
        table.append(Target(_GROWTH, name + FULL, "tasks/s", 0.8, beside=name))
    table += [
        Target(_GROWTH, "lateness: p99" + FULL, "ms", most=24),
        Target(_GROWTH, "create by 64" + WIDE, "tasks/s", 0.5, beside="create by 64"),
        Target(_GROWTH, "create_tasks" + WIDE, "tasks/s", 0.5, beside="create_tasks"),
        Target(_GROWTH, "deliver" + WIDE, "tasks/s", 0.5, beside="deliver" + NARROW),
        Target("isolation", "isolation: p99", "ms", most=100),
        Target(_RECOVERY, "recovery: memory", "MB", most=150),
        Target(_RECOVERY, "recovery: last third", "tasks/s", 0.8, beside="recovery: first third"),
        Target(_RECOVERY, "recovery: slowest", "tasks/s", 0.5, beside="recovery: rate"),
        Target(_RECOVERY, "recovery: priority p99", "ms", most=1_000),
        Target(_MEMORY, "memory: embedded, SQLite", "MB", most=50),
        Target(_MEMORY, "memory: embedded, Redis", "MB", most=65),
        Target(_MEMORY, "memory: idle service", "MB", most=75),
        Target(_MEMORY, "flat: growth", "MB", most=5),
        Target(_MEMORY, "memory: Redis, 1,000 lanes", "B/task", most=400),
        Target(_MEMORY, "memory: Redis, a lane each", "B/task", most=700),
        Target(_MEMORY, "memory: Redis, tried", "B/task"),
        Target("start", "start: --help", "s", most=0.25),
        Target("start", "start: serve", "s", most=1.5),
        Target(_SEVERAL, "deliver, 2 processes", "tasks/s", 1.7, beside="deliver, on one core"),
        Target(_SEVERAL, "deliver, 2 processes", "tasks/s", beside="deliver"),
        Target("deliver to Kafka", "deliver, Kafka", "records/s", 15_000),
        Target("RetryingConsumer", "consume, Kafka", "records/s", 10_000),
    ]
    here = pace(figures)
    return [target.at(here) for target in table]


MEANING: Final[Mapping[str, str]] = {
    "create": "`create_task`, one caller",
    "create: p99": "the same, 1,000 a second on schedule, p99",
    "create by 64": "`create_task`, 64 callers",
    "create_tasks": "`create_tasks` in batches of 500",
    "create_tasks, unlike": "the same, each task with a header that no other has",
    "POST /tasks": "`POST /tasks`, 64 connections (wrk)",
    "POST /tasks: p99": "the same, 3,000 a second on schedule, p99",
    "POST /tasks/batch": "`POST /tasks/batch` of 100 (wrk)",
    "deliver": "claim, deliver over HTTP, settle: one worker process",
    "deliver, logging": "the same with an `info` line per task to a file",
    "deliver, SQLite": "the same on an SQLite file",
    "lateness: p50": "due → sent at 1,000 tasks/s, p50",
    "lateness: p99": "due → sent at 1,000 tasks/s, p99",
    "earliest": "earliest before its due time",
    "isolation: p99": "due → sent at 200 tasks/s beside 20 hanging destinations with 5,000 due"
    " tasks each, p99",
    "recovery: rate": "rate while a million due tasks are worked off",
    "recovery: first third": "rate in the first third of it",
    "recovery: last third": "rate in the last third of it",
    "recovery: slowest": "slowest ten seconds of it",
    "recovery: memory": "most memory of the worker meanwhile",
    "recovery: priority p99": "due → sent of priority tasks meanwhile, p99",
    "memory: embedded, SQLite": "a program that has delivered 100 tasks, SQLite",
    "memory: embedded, Redis": "the same, Redis",
    "memory: idle service": "`rebound serve`, idle",
    "flat: growth": "growth of a worker from 100,000 to 1,000,000 deliveries",
    "memory: Redis, 1,000 lanes": "Redis per task that waits for its first attempt, beyond its"
    " JSON, 1,000 lanes",
    "memory: Redis, a lane each": "the same, a lane for each task",
    "memory: Redis, tried": "Redis per task whose first attempt has failed, beyond its JSON",
    "start: --help": "`rebound --help`",
    "start: serve": "`rebound serve` until it is ready",
    "deliver, 2 processes": "deliver with `rebound work --processes 2`",
    "deliver, on one core": "one worker, all on one core",
    "deliver, Kafka": "deliver to one Kafka topic: one worker process",
    "consume, Kafka": "records through a `RetryingConsumer` whose handler succeeds",
    "bare EVALSHA": "redis-py alone, the same script",
    "pipelined EVALSHA": "redis-py alone, the same script, 64 sent at a time",
    "EVALSHA of 500": "redis-py alone, 500 tasks a script, two scripts at a time",
    "empty handler": "the same server, a handler that does nothing",
    "bare loop": "a bare loop of redis-py and aiohttp",
}


def meaning(name: str) -> str:
    """What a figure is, in words."""
    for more in (FULL, WIDE, NARROW):
        if name.endswith(more):
            return meaning(name.removesuffix(more)) + more
    return MEANING.get(name, name.removeprefix("deliver, "))
