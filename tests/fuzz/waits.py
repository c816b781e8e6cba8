"""What may stand in Retry-After."""

from __future__ import annotations

import math
import random
from datetime import UTC, datetime
from typing import NamedTuple

from hypothesis import strategies as st

from rebound.domain.retry_after import retry_after

NOW = datetime(2026, 11, 25, tzinfo=UTC)
FORMS = ("%a, %d %b %Y %H:%M:%S GMT", "%A, %d-%b-%y %H:%M:%S GMT", "%a %b %d %H:%M:%S %Y")
"""IMF-fixdate, RFC 850, asctime: RFC 9110 section 5.6.7."""


class Value(NamedTuple):
    """A header, the response's own Date, and the seconds meant, or nan where nothing is."""

    text: str
    date: str | None
    meant: float | None = math.nan


moments = st.datetimes(datetime(1980, 1, 1), datetime(2070, 1, 1)).map(
    lambda moment: moment.replace(microsecond=0, tzinfo=UTC)
)


def dated(moment: datetime, form: str) -> Value:
    wait = (moment - NOW).total_seconds()
    return Value(moment.strftime(form), None, wait if wait >= 0 else None)


def broken(value: Value, chance: random.Random) -> Value:
    at = chance.randrange(len(value.text))
    return Value(value.text[:at] + chance.choice("0Z \x00é") + value.text[at + 1 :], value.date)


dates = st.builds(dated, moments, st.sampled_from(FORMS))
seconds = st.integers(0, 10**15).map(lambda n: Value(str(n), None, float(n)))
values = st.one_of(
    dates,
    seconds,
    st.builds(broken, dates, st.randoms(use_true_random=False)),
    st.tuples(st.text(), st.none() | st.text()).map(lambda pair: Value(*pair)),
    st.from_regex(r"[+-]?[0-9٠-٩ ._e]{0,40}", fullmatch=True).map(lambda text: Value(text, None)),
    st.builds(lambda one, other: Value(one.text, other.text), dates, dates),
    st.integers(0, 400).map(lambda n: Value("9" * n, None)),
)


def check(value: Value) -> None:
    """Whatever stands there, it is a wait that can be waited for, or None."""
    found = retry_after(value.text, value.date, NOW.timestamp())
    assert found is None or (math.isfinite(found) and found >= 0), (value, found)
    if value.meant is None or not math.isnan(value.meant):
        assert found == value.meant, (value, found)
