"""How many slots one lane may hold: dynamic thresholds (Choudhury and Hahne 1998), made strict.

The plain rule, no more in flight than stay free, leaves 1/(n+1) of the slots free where n lanes
fill them together, but halves what is left each time where they come one after the other. What
hangs does not give back, so the rule here leaves C/(n+1) of C slots free in any order: the i-th
lane may bring the free ones from C/i down to C/(i+1).
"""

from __future__ import annotations

import math


def most(free: int, in_flight: int, slots: int) -> int:
    """How many a lane may have in flight that has `in_flight` now, of `slots` with `free` left.

    With g = free + in flight, what it could reach: g²/(slots + g). One at least.
    """
    reach = free + in_flight
    return max(1, reach * reach // (slots + reach))


def needed(in_flight: int, slots: int) -> int:
    """The least number of free slots with which `most` allows one more than `in_flight`."""
    wanted = in_flight + 1
    if in_flight == 0:
        return 1
    reach = (wanted + math.sqrt(wanted * wanted + 4 * wanted * slots)) / 2
    return max(1, math.ceil(reach - 1e-9) - in_flight)
