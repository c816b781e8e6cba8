"""What the columns of a row should be, by its body and progress: what a doctor goes by."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, NamedTuple

from rebound.adapters.stores import records
from rebound.adapters.stores.sqlite_lanes import losses
from rebound.domain import finding
from rebound.domain.attempt import DeadLetter, DeadReason, State
from rebound.domain.finding import Damage
from rebound.domain.task import Task

NO_LEASE: Final = {"token": None, "leased_at": None, "expires_at": None}


class Verdict(NamedTuple):
    """What is wrong with a row, and the columns that would mend it."""

    damages: set[Damage]
    changes: Mapping[str, Any]


def verdict(row: Mapping[str, Any], now: float, lease: float) -> Verdict:
    """What is wrong with the columns of a row, by what its body and progress say."""
    state, ended = row["state"], row["kept_from"]
    if state == "stub":
        lacks = {} if ended is not None else {"kept_from": row["updated_at"]}
        return Verdict({finding.UNLISTED} if lacks else set(), lacks)
    try:
        task = records.restore(
            row["id"], row["body"] or b"", row["progress"], created_at=row["created_at"],
            due_at=row["due_at"], lost=losses(row["lost"]),
        )  # fmt: skip
    except (records.Unreadable, ValueError):
        return Verdict({finding.UNREADABLE}, {})
    if task.dead_reason == DeadReason.UNREADABLE or (state == "dead" != task.state):
        return Verdict({finding.UNREADABLE}, {})  # it was, when a worker came to it
    known = State.SCHEDULED if state == State.DELIVERING else state
    if task.state != known:
        return Verdict({finding.CONFUSED}, _columns(task, row, now))
    if state == State.DELIVERING:
        return _delivering(task, row, now, lease)
    damages: set[Damage] = set()
    changes: dict[str, Any] = {}
    if row["token"] is not None or row["expires_at"] is not None:
        damages.add(finding.PHANTOM)
        changes |= NO_LEASE
    if state == State.SCHEDULED and None in (row["due_at"], row["queue"]):
        damages.add(finding.UNQUEUED)
        changes |= _columns(task, row, now)
    if state != State.SCHEDULED and ended is None and _kept_from(task) is not None:
        damages.add(finding.UNLISTED)
        changes["kept_from"] = _kept_from(task)
    return Verdict(damages, changes)


def _delivering(task: Task, row: Mapping[str, Any], now: float, lease: float) -> Verdict:
    if row["token"] is None:
        changes = {**NO_LEASE, "state": "scheduled", "due_at": now}
        return Verdict({finding.PHANTOM}, changes)
    if None in (row["expires_at"], row["queue"]):
        return Verdict({finding.UNLEASED}, {"expires_at": now + lease, "queue": task.queue})
    return Verdict(set(), {})


def _columns(task: Task, row: Mapping[str, Any], now: float) -> dict[str, Any]:
    """What the record says, for the columns."""
    waits = task.state == State.SCHEDULED
    return {
        **NO_LEASE, "state": str(task.state), "queue": task.queue,
        "priority": task.is_priority, "due_at": (task.due_at or now) if waits else None,
        "kept_from": _kept_from(task),
    }  # fmt: skip


def _kept_from(task: Task) -> float | None:
    """From when on retention counts; None for what is never forgotten."""
    stays = task.state == State.DEAD and task.dead_letter != DeadLetter.DELIVERED
    if task.state == State.SCHEDULED or stays:
        return None
    return task.finished_at or task.updated_at
