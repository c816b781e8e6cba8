"""Where a task should stand in Redis, by its record: what a doctor goes by."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec

from rebound.adapters.stores import records
from rebound.adapters.stores import redis_records as rows
from rebound.adapters.stores.redis_records import Row
from rebound.domain import finding
from rebound.domain.attempt import DeadLetter, DeadReason, State
from rebound.domain.finding import Damage, LaneSeen
from rebound.domain.task import Task

LISTS: Final = (
    "by:open", "by:delivering", "by:succeeded", "by:dead", "by:cancelled",
    "end:succeeded", "end:stub", "end:cancelled", "end:dead",
)  # fmt: skip
LINES: Final = ("d:", "d!:")
LEASES: Final = "x:"
SETS: Final = (*LISTS, *LINES, LEASES)


def task(id_: str, row: Row | None) -> Task | None:
    """None for a stub and for what cannot be read."""
    if row is None or row.b is None:
        return None
    try:
        task = rows.restore(id_, row)
    except records.Unreadable:
        return None
    return None if task.dead_reason == DeadReason.UNREADABLE else task


def wanted(row: Row, task: Task | None, lease: float) -> dict[str, float]:
    """The sets that it belongs in; for each the score, of `x:` only how long from now."""
    at = created(row)
    if task is None:
        return {"end:stub": float(row.f or 0)}
    moment = float(rows.moment_of(task))
    match task.state:
        case State.SCHEDULED:
            return {"by:open": at, LINES[task.is_priority]: moment}
        case State.DELIVERING:
            return {"by:open": at, "by:delivering": at, LEASES: lease * 1e6}
        case State.DEAD if task.dead_letter != DeadLetter.DELIVERED:
            return {"by:dead": at}
        case state:
            return {f"by:{state}": at, f"end:{state}": moment}


def damages(wanted: Mapping[str, float], stands: Mapping[str, float]) -> set[Damage]:
    """What is wrong with the places of a record that can be read."""
    missing, extra = wanted.keys() - stands.keys(), stands.keys() - wanted.keys()
    lines = {*LINES}
    found = set()
    if LEASES in extra:
        found.add(finding.PHANTOM)
    if LEASES in missing:
        found.add(finding.UNLEASED)
    if missing & lines and not extra & lines:
        found.add(finding.UNQUEUED)
    if extra & lines:
        found.add(finding.UNLISTED if missing & lines else finding.TWICE)
    if any(set_.startswith("end:") for set_ in extra):
        found.add(finding.CONFUSED)  # it would be forgotten
    elif (missing | extra) & {*LISTS}:
        found.add(finding.UNLISTED)
    return found


def fields(row: Row | None) -> tuple[bytes | bool | None, ...]:
    """What changes when anything becomes of the task; the body is written once."""
    if row is None:
        return ()
    return row.g, row.s, row.k, row.k0, row.l, row.f, row.b is not None


def created(row: Row) -> float:
    """Its creation, in microseconds since the epoch; 0 where that is not known."""
    try:
        return float(rows.micros(rows.times(row.g)[0]))
    except ValueError:
        return 0.0


def is_leased(row: Row) -> bool:
    """True where a worker has it."""
    return bool(row.k) and row.k != row.k0


def is_over(row: Row) -> bool:
    """True where nothing is to be delivered any more."""
    if row.f is not None:
        return True
    try:
        state = msgspec.json.decode(row.s or b"{}", type=dict[str, Any]).get("state")
    except msgspec.MsgspecError:
        return False
    return state in (State.SUCCEEDED, State.DEAD, State.CANCELLED)


def lane_seen(reply: Sequence[bytes | None]) -> LaneSeen:
    """What `lane.lua` answered."""
    values = [None if value is None else rows.seconds(value) for value in reply]
    now, look, look_urgent, waits, due, urgent, ending, shut, held, _, full = values
    return LaneSeen(
        now or 0.0, look, look_urgent, held, shut, shut is not None or held is not None, due,
        urgent, ending, waits is not None and full is None,
    )  # fmt: skip
