"""When the attempts of a policy would happen, for people to look at."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import msgspec
from msgspec.structs import replace

from rebound.domain import validation
from rebound.domain.attempt import State
from rebound.domain.task import Task


def lines(policy: Mapping[str, Any], backoff: Mapping[str, Any]) -> Iterator[str]:
    """One line an attempt: number, delay, time since creation, in seconds.

    Takes the fields of a task and of its `backoff`. Raises ValidationError.
    """
    task = _task(policy, backoff)
    if task.state == State.DEAD:
        yield "no attempt: the dead leg starts at once"
        return
    shortest = longest = 0.0
    for number in range(1, task.budget + 1):
        at = replace(task, attempt=number - 1)
        waits = [at.first_wait(r) if number == 1 else at.wait(r) for r in (0.0, 1.0)]
        shortest, longest = shortest + min(waits), longest + max(waits)
        delay, since = _range(min(waits), max(waits)), _range(shortest, longest)
        yield f"{number:>3}  {delay:>12} s  {since:>12} s"


def _task(policy: Mapping[str, Any], backoff: Mapping[str, Any]) -> Task:
    if "schedule" in backoff:
        backoff = {"strategy": "schedule", **backoff}
    given = {"source": "plan", "destination": {"url": "http://localhost"}, **policy}
    task = validation.parse(msgspec.json.encode({**given, "backoff": backoff}))
    return validation.check(task, max_payload=0).accepted()


def _range(low: float, high: float) -> str:
    return _plain(low) if _plain(low) == _plain(high) else f"{_plain(low)}-{_plain(high)}"


def _plain(number: float) -> str:
    return f"{number:.3f}".rstrip("0").rstrip(".")
