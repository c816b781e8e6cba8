"""What was measured, and what it is held against."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import ItemsView
from statistics import median
from typing import Final, NamedTuple

PACED: Final = ("tasks/s", "records/s", "ms", "s")
"""Units of what a slower machine does more slowly."""


class Figures:
    """Every figure by name, one value a round."""

    def __init__(self) -> None:
        self._values: defaultdict[str, list[float]] = defaultdict(list)

    def add(self, name: str, value: float) -> None:
        self._values[name].append(value)

    def of(self, name: str) -> list[float]:
        """The values of all rounds. Raises KeyError where it was not measured."""
        if name not in self._values:
            raise KeyError(f"nothing measured {name!r}; there are {', '.join(self._values)}")
        return self._values[name]

    def everything(self) -> ItemsView[str, list[float]]:
        return self._values.items()

    def ratios(self, name: str, beside: str) -> list[float]:
        """Round by round, for the machine may change its speed in between."""
        return [a / b for a, b in zip(self.of(name), self.of(beside), strict=False)]

    def best(self, *names: str) -> str:
        """Which of these has the greatest median."""
        return max(names, key=lambda name: median(self.of(name)))


class Target(NamedTuple):
    """What one figure, or its ratio to another, has to reach; without a bound it is only shown."""

    row: str
    """Targets of one row are met together."""
    figure: str
    unit: str
    least: float | None = None
    most: float | None = None
    beside: str = ""
    """With it `least` and `most` are of the ratio to this figure."""

    def at(self, pace: float) -> Target:
        """The same on a machine that does `pace` of what the reference does in a second."""
        if self.beside or self.unit not in PACED:
            return self
        least, most = self.least, self.most
        return self._replace(least=least and least * pace, most=most and most / pace)

    def judge(self, figures: Figures) -> Verdict:
        values = figures.of(self.figure)
        judged = figures.ratios(self.figure, self.beside) if self.beside else values
        middle = median(judged)
        reached = [middle / self.least] if self.least else []
        if self.most is not None:
            reached.append(self.most / middle if middle > 0 else float("inf"))
        return Verdict(self, values, judged, min(reached, default=float("inf")))


class Verdict(NamedTuple):
    """A target and what came of it."""

    target: Target
    values: list[float]
    judged: list[float]
    """`values`, or the ratios where the target is one of a ratio."""
    reached: float
    """1 and more: met."""

    @property
    def met(self) -> bool:
        return self.reached >= 1
