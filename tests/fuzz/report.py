"""What a run comes to."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple


class Row(NamedTuple):
    """One part of the run."""

    what: str
    count: int
    failures: Sequence[str]
    note: str = ""

    def line(self) -> str:
        verdict = f"{len(self.failures)} FAILED" if self.failures else "ok"
        return f"{self.what:<56}{self.count:>9,}   {verdict:<10}{self.note}"
