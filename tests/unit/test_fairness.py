"""How many slots a lane may hold."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rebound.domain.fairness import most, needed


@pytest.mark.parametrize("slots", [2, 10, 100, 1024, 10_000])
def test_lanes_that_fill_up_one_after_the_other_leave_one_in_n_plus_one_free(slots: int) -> None:
    free = slots
    for n in range(1, int(slots**0.5)):
        free -= most(free, 0, slots)
        assert free >= slots // (n + 1)


@given(st.integers(1, 5000), st.data())
def test_a_lane_never_has_more_in_flight_than_stay_free(slots: int, data: st.DataObject) -> None:
    in_flight = data.draw(st.integers(1, slots))
    free = data.draw(st.integers(0, slots - in_flight))
    if most(free, in_flight, slots) > in_flight:
        assert in_flight < free


@given(st.integers(1, 5000), st.data())
def test_needed_is_the_least_number_of_free_slots_that_allows_one_more(
    slots: int, data: st.DataObject
) -> None:
    in_flight = data.draw(st.integers(0, slots))
    least = needed(in_flight, slots)
    assert most(least, in_flight, slots) > in_flight
    assert least == 1 or most(least - 1, in_flight, slots) <= in_flight


def test_an_empty_lane_gets_a_slot_wherever_one_is_free() -> None:
    assert most(1, 0, 1024) == 1
    assert needed(0, 1024) == 1
