"""What an examination of a store and its settings may find, in words for the person on call."""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum
from typing import Final, NamedTuple

from msgspec import Struct

MAX_SUBJECTS: Final = 1000
"""Ids or lanes that one finding names at most; all are counted."""
REPAIR: Final = "Run `rebound doctor --repair`; workers may go on meanwhile."


class Severity(StrEnum):
    """How bad it is, the worst first."""

    ERROR = "error"
    """Tasks are lost, stuck or delivered again, or the store does not work."""
    WARNING = "warning"
    """Something will go wrong some day."""
    NOTE = "note"
    """Good to know; nothing is wrong."""


class Finding(Struct, frozen=True, kw_only=True):
    """One thing that was found."""

    severity: Severity
    title: str
    meaning: str
    """What follows from it."""
    remedy: str
    """What to do."""
    count: int = 0
    """How many tasks or lanes it is about; 0: none in particular."""
    subjects: tuple[str, ...] = ()
    """Ids or lanes, at most MAX_SUBJECTS of them."""
    mended: bool = False

    @property
    def is_wrong(self) -> bool:
        """True where somebody has to act."""
        return not self.mended and self.severity != Severity.NOTE


class Damage(NamedTuple):
    """A way in which what is stored can be broken, as a finding says it."""

    severity: Severity
    title: str
    """Behind the number of tasks or lanes."""
    meaning: str
    remedy: str = REPAIR
    afterwards: str = ""
    """What is left to do when it has been mended."""


UNQUEUED: Final = Damage(
    Severity.ERROR,
    "scheduled, but in no lane",
    "No worker will ever find them, so they are never delivered.",
)
UNLEASED: Final = Damage(
    Severity.ERROR,
    "in delivery without an end of their lease",
    "If their worker dies nobody takes them over.",
)
PHANTOM: Final = Damage(
    Severity.ERROR,
    "in flight without a lease",
    "They take up slots of their lane, and would be delivered once more or not at all.",
)
TWICE: Final = Damage(
    Severity.ERROR,
    "in line for delivery, though finished or in delivery already",
    "They would be delivered once more.",
)
ORPHAN: Final = Damage(
    Severity.ERROR,
    "known by id only: their record is gone",
    "What they were to deliver is lost, and Rebound never removes a record alone: something else"
    " deleted or evicted it.",
    "Hand them in again where the sender still has them, and find out what removed the records"
    " (the eviction policy of Redis, another program). `rebound doctor --repair` removes the ids"
    " that are left; note them before.",
    "Hand them in again where the sender still has them.",
)
CONFUSED: Final = Damage(
    Severity.ERROR,
    "listed under another state than their record says",
    "They may be delivered once more, or never.",
)
UNLISTED: Final = Damage(
    Severity.WARNING,
    "missing from a list, or in one too many",
    "`rebound list` shows them wrongly or not at all, or they are never forgotten.",
)
UNREADABLE: Final = Damage(
    Severity.WARNING,
    "with a record that cannot be read",
    "They are not delivered. A newer release wrote them, or something else did.",
    "See what is there with `rebound show ID`. Where a newer release wrote it, run that one; else"
    " hand the message in again and `rebound delete ID`. Nothing is done about it by itself.",
)
OVERLOOKED: Final = Damage(
    Severity.ERROR,
    "with tasks that no worker looks at in time",
    "What is due there waits until a new task happens to come into the lane, or for ever.",
)
EMPTY: Final = Damage(
    Severity.WARNING,
    "listed, but empty",
    "Workers look at them in vain.",
)
STALE_WAIT: Final = Damage(
    Severity.WARNING,
    "waiting for free slots without need",
    "Workers look at the store more often than they have to.",
)
UNVISITED: Final = Damage(
    Severity.WARNING,
    "due for more than a minute, and no worker has come",
    "Nobody serves their kind of destination, or all slots are taken by others.",
    "See whether a worker runs, with the extra that these lanes need (`kafka` for kafka|…). Where"
    " one does, run more of them, or raise CONCURRENCY.",
)
_OF_LANES: Final = (OVERLOOKED, EMPTY, STALE_WAIT, UNVISITED)
PATIENCE: Final = 60.0
"""Seconds that a lane may be due without a worker looking."""


class LaneSeen(NamedTuple):
    """What a store says of one lane at one moment; times in seconds since the epoch, or None."""

    now: float
    look: float | None
    """When it is worth looking at; None where it is not listed."""
    look_urgent: float | None
    """The same, of its priority tasks."""
    held: float | None
    """End of a hold; may be over."""
    shut: float | None
    """Until when it is full."""
    kept: bool
    """It stays listed without tasks: it has a hold or a limit of its own."""
    due: float | None
    """When its first task falls due."""
    urgent: float | None
    """When its first priority task does."""
    ending: float | None
    """When its first lease ends."""
    stale: bool = False
    """It waits for slots, and does not need to."""

    @property
    def damage(self) -> Damage | None:
        """What is wrong with it."""
        firsts = [at for at in (self.due, self.urgent, self.ending) if at is not None]
        if not firsts:
            return EMPTY if self.look is not None and not self.kept else None
        if self.look is None or (self.urgent is not None and self.look_urgent is None):
            return OVERLOOKED
        at = min(firsts) if self.shut is None else self.shut
        if self.held is not None and self.held > self.now:
            at = self.held
        if self.look > max(at, self.now) + 0.001:
            return OVERLOOKED
        if self.stale:
            return STALE_WAIT
        return UNVISITED if self.look < self.now - PATIENCE else None


class Report:
    """Gathers damage, each subject once for each kind, and puts it into findings."""

    def __init__(self) -> None:
        self._found: dict[Damage, dict[str, bool]] = {}

    def add(self, damage: Damage, subject: str, *, mended: bool) -> None:
        """`subject` (an id or a lane) has it, or had it until just now."""
        subjects = self._found.setdefault(damage, {})
        subjects[subject] = subjects.get(subject, False) or mended

    def findings(self) -> list[Finding]:
        """One for each kind of damage that is left, and one for each that was mended."""
        found = []
        for damage, subjects in self._found.items():
            for mended in (False, True):
                named = [one for one, is_mended in subjects.items() if is_mended == mended]
                if named:
                    found.append(_finding(damage, named, mended))
        return found


def _finding(damage: Damage, subjects: list[str], mended: bool) -> Finding:
    one, many = ("lane", "lanes") if damage in _OF_LANES else ("task", "tasks")
    return Finding(
        severity=damage.severity,
        title=f"{len(subjects)} {one if len(subjects) == 1 else many} {damage.title}",
        meaning=damage.meaning,
        remedy=damage.afterwards if mended else damage.remedy,
        count=len(subjects),
        subjects=tuple(sorted(subjects)[:MAX_SUBJECTS]),
        mended=mended,
    )


def by_severity(findings: Iterable[Finding]) -> list[Finding]:
    """What somebody has to act on first; what was mended last."""
    order = list(Severity)
    return sorted(findings, key=lambda one: (one.mended, order.index(one.severity)))
