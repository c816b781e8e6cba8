"""The check: what became of every accepted task, by the store and by what the receiver saw."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping
from datetime import datetime
from typing import Any, NamedTuple

LEAST_LOAD = 0.9
"""Share of the planned load that must really have been accepted."""


class Balance(NamedTuple):
    """Every accepted id is in exactly one of these; what is overdue is in the store, but late."""

    delivered: set[str]
    dead: set[str]
    in_store: set[str]
    overdue: set[str]
    lost: set[str]

    @property
    def settled(self) -> bool:
        """True where nothing is lost or overdue."""
        return not self.overdue and not self.lost


class Row(NamedTuple):
    """One line of the table."""

    scenario: str
    store: str
    planned: int
    accepted: int
    delivered: int
    dead: int
    in_store: int
    lost: int
    duplicates: int
    allowed: int
    """Attempts that were in flight at the faults."""
    problems: tuple[str, ...]
    notes: tuple[str, ...]
    """Figures and promises that the row wants to tell."""
    seconds: float

    @property
    def passed(self) -> bool:
        """True where everything that was promised was kept."""
        return not self.problems


def balance(
    accepted: Collection[str],
    stored: Mapping[str, Mapping[str, Any]],
    delivered: Collection[str],
    dead_lettered: Collection[str],
    now: float,
) -> Balance:
    """Where each accepted id is.

    `stored` is what the API says of each id. The receiver's word counts as well: `delivered` and
    `dead_lettered` are what it answered with 2xx. A task that the store calls done and that the
    receiver never got is lost.
    """
    found = Balance(set(), set(), set(), set(), set())
    for id_ in accepted:
        task = stored.get(id_)
        state = None if task is None else task["state"]
        if task is None or (state == "succeeded" and id_ not in delivered):
            found.lost.add(id_)
        elif state == "succeeded":
            found.delivered.add(id_)
        elif state == "dead" and (task["dead_letter"] != "delivered" or id_ in dead_lettered):
            found.dead.add(id_)
        elif state == "dead":
            found.lost.add(id_)
        elif state == "scheduled" and seconds(task["next_attempt_at"]) > now:
            found.in_store.add(id_)
        else:
            found.overdue.add(id_)
    return found


def unexplained(repeats: Counter[str], in_flight: Counter[str]) -> Counter[str]:
    """Repeats beyond the attempts of that task that were in flight at the faults."""
    return +(repeats - in_flight)


def seconds(time: str) -> float:
    """Seconds since the epoch of an RFC 3339 time."""
    return datetime.fromisoformat(time.replace("Z", "+00:00")).timestamp()
