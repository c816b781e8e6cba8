"""How often something may happen."""

from __future__ import annotations

import math


class Pace:
    """At most `rate` calls a second, of which a second's worth may come at once.

    A token bucket, kept as the moment at which it is full again (GCRA, ITU-T I.371).
    """

    def __init__(self, rate: int) -> None:
        self._interval = 1.0 / rate
        self._full_at = -math.inf

    def take(self, now: float) -> float:
        """Take one call at `now`, in seconds: 0.0, or after how many seconds there is one again."""
        full_at = max(self._full_at, now) + self._interval
        # Sums of intervals are not exact.
        wait = full_at - now - 1.0
        if wait > 1e-6:
            return wait
        self._full_at = full_at
        return 0.0
