"""`Retry-After`: what counts, what is ignored, and that nothing raises."""

from __future__ import annotations

import math
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rebound.domain.retry_after import http_date, retry_after

NOW = datetime(2026, 11, 24, 12, 0, 0, tzinfo=UTC).timestamp()
IN_AN_HOUR = (
    "Tue, 24 Nov 2026 13:00:00 GMT",
    "Tuesday, 24-Nov-26 13:00:00 GMT",
    "Tue Nov 24 13:00:00 2026",
)


@pytest.mark.parametrize(
    ("value", "wait"), [("120", 120.0), ("0", 0.0), ("007", 7.0), (" 5\t", 5.0), ("0" * 500, 0.0)]
)
def test_seconds_are_taken_as_they_are(value: str, wait: float) -> None:
    assert retry_after(value, None, NOW) == wait


@pytest.mark.parametrize("value", ["9" * 16, "9" * 400, "1" + "0" * 100_000])
def test_however_many_digits_come_out_finite(value: str) -> None:
    wait = retry_after(value, None, NOW)
    assert wait is not None
    assert math.isfinite(wait)
    assert wait >= 1e15


@pytest.mark.parametrize("value", IN_AN_HOUR)
def test_all_three_date_forms_are_utc_whatever_the_local_zone(
    value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TZ", "America/New_York")
    assert retry_after(value, None, NOW) == 3600.0


def test_a_single_digit_day_of_asctime_is_padded_with_a_space() -> None:
    assert http_date("Sun Nov  6 08:49:37 1994", NOW) == 784111777.0
    assert http_date("Sun Nov 6 08:49:37 1994", NOW) is None


@pytest.mark.parametrize("date", [*IN_AN_HOUR, "Tue, 24 Nov 2026 12:59:00 GMT"])
def test_a_date_is_read_against_the_date_of_the_response(date: str) -> None:
    wait = retry_after("Tue, 24 Nov 2026 13:00:30 GMT", date, NOW - 86400)
    assert wait == (90.0 if "12:59" in date else 30.0)


@pytest.mark.parametrize("date", ["", "yesterday", "Tue, 99 Nov 2026 13:00:00 GMT", "1795525200"])
def test_a_malformed_date_of_the_response_leaves_our_own_clock(date: str) -> None:
    assert retry_after(IN_AN_HOUR[0], date, NOW) == 3600.0


def test_a_date_in_the_past_is_ignored() -> None:
    assert retry_after("Tue, 24 Nov 2026 11:59:59 GMT", None, NOW) is None
    assert retry_after(IN_AN_HOUR[0], "Tue, 24 Nov 2026 14:00:00 GMT", NOW) is None


@pytest.mark.parametrize(
    "value",
    [
        "", " ", "-1", "+1", "1.5", "1e3", "1_0", "1 0", "٣", "²", "120s", "soon", "nan", "inf",
        "2026-11-24T13:00:00Z", "Tue, 24 Nov 2026 13:00:00", "Tue, 24 Nov 2026 13:00:00 +0000",
        "Tue, 31 Feb 2026 13:00:00 GMT", "Tue, 24 Nov 0000 13:00:00 GMT",
        "Tue, 24 Nov 2026 24:00:00 GMT", "Tue, 24 Nov 2026 13:60:00 GMT",
        "Tue, 24 Nov 2026 13:00:61 GMT", "Tue, ٢٤ Nov 2026 13:00:00 GMT",
        "Tue, 24 Nov 2026 13:00:00 GMT\n", "120\n",
    ],
)  # fmt: skip
def test_what_is_malformed_is_ignored(value: str) -> None:
    assert retry_after(value, None, NOW) is None


def test_a_leap_second_is_a_date() -> None:
    assert http_date("Sat, 31 Dec 2016 23:59:60 GMT", NOW) == 1483228800.0


def test_a_two_digit_year_more_than_fifty_years_ahead_is_in_the_past() -> None:
    assert (http_date("Tuesday, 24-Nov-76 13:00:00 GMT", NOW) or 0) > NOW
    assert http_date("Sunday, 06-Nov-94 08:49:37 GMT", NOW) == 784111777.0


@given(st.text(), st.none() | st.text(), st.floats(-1e18, 1e18))
def test_no_text_raises(value: str, date: str | None, now: float) -> None:
    wait = retry_after(value, date, now)
    assert wait is None or (math.isfinite(wait) and wait >= 0)


@given(
    st.from_regex(
        r"\A(Mon, \d\d (Jan|Feb) \d{4}|Monday, \d\d-Feb-\d\d|Mon Feb [ \d]\d)"
        r" \d\d:\d\d:\d\d( GMT| \d{4})\Z"
    )
)
def test_nothing_that_looks_like_a_date_raises(value: str) -> None:
    wait = retry_after(value, value, NOW)
    assert wait in (None, 0.0)
    retry_after(value, None, NOW)
