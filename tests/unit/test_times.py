"""Times at the edges."""

from rebound.domain.times import rfc3339


def test_times_are_rfc3339_in_utc_cut_to_milliseconds() -> None:
    assert rfc3339(0) == "1970-01-01T00:00:00.000Z"
    assert rfc3339(1_800_000_000.123) == "2027-01-15T08:00:00.123Z"
    assert rfc3339(1_800_000_000.9999) == "2027-01-15T08:00:00.999Z"
