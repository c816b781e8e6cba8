"""Durations as people write them."""

from __future__ import annotations

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rebound.domain.durations import seconds


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("250ms", 0.25),
        ("1s", 1),
        ("5m", 300),
        ("1h30m", 5400),
        ("30d", 2_592_000),
        ("1d2h3m4s5ms", 93_784.005),
        ("1.5h", 5400),
        ("0.5s", 0.5),
        ("60", 60),
        ("0", 0),
        ("0s", 0),
        ("2.25", 2.25),
        ("007", 7),
        (" 10s ", 10),
        ("1m1m", 120),
    ],
)
def test_what_people_write_is_seconds(text: str, expected: float) -> None:
    assert seconds(text) == pytest.approx(expected)


@pytest.mark.parametrize(
    "text",
    [
        "", " ", "s", "5 m", "1h 30m", "5min", "5M", "5S", "-1", "-1s", "+1s", "1e3", "1_0", ".5s",
        "1.s", "1,5s", "s5", "1h30", "30 d", "1w", "1y", "inf", "nan", "٣s", "²", "1s;", "0x10",
        "1..5s", "1\ns", "PT1H",
    ],
)  # fmt: skip
def test_anything_else_is_refused_with_what_is_allowed(text: str) -> None:
    with pytest.raises(ValueError, match="is no duration; write 250ms, 1s, 5m, 1h30m, 30d"):
        seconds(text)


@given(st.text())
def test_no_text_gives_anything_but_a_duration_or_a_value_error(text: str) -> None:
    with suppress(ValueError):
        assert seconds(text) >= 0


@given(st.integers(0, 10**6), st.integers(0, 23), st.integers(0, 59), st.integers(0, 999))
def test_every_sum_of_parts_is_read_back(days: int, hours: int, minutes: int, ms: int) -> None:
    text = f"{days}d{hours}h{minutes}m{ms}ms"
    assert seconds(text) == pytest.approx(days * 86400 + hours * 3600 + minutes * 60 + ms / 1000)
