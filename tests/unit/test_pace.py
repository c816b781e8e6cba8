"""How often something may happen: a second's worth at once, and no more on average."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rebound.domain.pace import Pace


@pytest.mark.parametrize("rate", [1, 2, 3, 7, 10, 1000, 999_983])
def test_a_seconds_worth_may_come_at_once_and_the_next_one_waits(rate: int) -> None:
    pace, count = Pace(rate), min(rate, 5000)
    assert all(pace.take(100.0) == 0 for _ in range(count))
    if count == rate:
        assert 0 < pace.take(100.0) <= 1 / rate + 1e-6
        assert pace.take(100.0 + 1 / rate) == 0
        assert pace.take(100.0 + 1 / rate) > 0


def test_after_the_wait_that_was_told_there_is_one_again() -> None:
    pace = Pace(2)
    assert [pace.take(0.0) for _ in range(3)] == [0, 0, 0.5]
    assert pace.take(0.25) == 0.25
    assert pace.take(0.5) == 0


@given(st.integers(1, 50), st.lists(st.floats(0, 2), max_size=200))
def test_no_span_of_time_has_more_than_its_share_and_one_seconds_worth(
    rate: int, gaps: list[float]
) -> None:
    pace, now = Pace(rate), 1000.0
    taken: list[float] = []
    for gap in gaps:
        now += gap
        if pace.take(now) == 0:
            taken.append(now)
    for first, began in enumerate(taken):
        for last in range(first, len(taken)):
            assert last - first + 1 <= rate * (taken[last] - began + 1) + 1e-3
