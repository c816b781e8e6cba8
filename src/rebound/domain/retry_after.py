"""`Retry-After` of a response, as seconds to wait (RFC 9110 section 10.2.3)."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import Final

_DIGITS: Final = 15
"""More digits of a number are not looked at: 10^15 s are 31 million years, and still exact."""
_MONTHS: Final = (
    "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
)  # fmt: skip
_DAY: Final = "(?:Mon|Tue|Wed|Thu|Fri|Sat|Sun)"
_LONG_DAY: Final = "(?:Mon|Tues|Wednes|Thurs|Fri|Satur|Sun)day"
_MONTH: Final = f"(?P<month>{'|'.join(_MONTHS)})"
_TIME: Final = "(?P<hour>[0-9]{2}):(?P<minute>[0-9]{2}):(?P<second>[0-9]{2})"
# RFC 9110 section 5.6.7: IMF-fixdate, RFC 850, asctime. All three are UTC.
_FORMS: Final = tuple(
    re.compile(form)
    for form in (
        rf"{_DAY}, (?P<day>[0-9]{{2}}) {_MONTH} (?P<year>[0-9]{{4}}) {_TIME} GMT",
        rf"{_LONG_DAY}, (?P<day>[0-9]{{2}})-{_MONTH}-(?P<year>[0-9]{{2}}) {_TIME} GMT",
        rf"{_DAY} {_MONTH} (?P<day>[0-9]{{2}}| [0-9]) {_TIME} (?P<year>[0-9]{{4}})",
    )
)


def retry_after(value: str, date: str | None, now: float) -> float | None:
    """Seconds to wait from the end of the response, finite and >= 0, or None.

    `value` is the header: seconds, or any of the three HTTP date forms. A date is read against
    `date`, the response's own `Date`, where that parses, else against `now` (seconds since the
    epoch), so that the receiver's clock need not be right. What is past, negative or malformed is
    None. Raises nothing, whatever the text.
    """
    value = value.strip(" \t")
    if re.fullmatch("[0-9]+", value):
        digits = value.lstrip("0") or "0"
        return float(digits if len(digits) <= _DIGITS else 10**_DIGITS)
    wanted = http_date(value, now)
    if wanted is None:
        return None
    own = None if date is None else http_date(date.strip(" \t"), now)
    wait = wanted - (now if own is None else own)
    return wait if wait >= 0 else None


def http_date(text: str, now: float) -> float | None:
    """An HTTP date in seconds since the epoch, or None where `text` is none.

    `now` gives the century of RFC 850's two-digit year: a date more than 50 years ahead is meant
    to be in the past.
    """
    match = next((m for form in _FORMS if (m := form.fullmatch(text))), None)
    if match is None:
        return None
    day, year, hour, minute, second = (
        int(match[part]) for part in ("day", "year", "hour", "minute", "second")
    )
    month = _MONTHS.index(match["month"]) + 1
    leap = second == 60  # a leap second, which datetime does not know
    try:
        if len(match["year"]) == 2:
            year = _full_year(year, now)
        moment = datetime(year, month, day, hour, minute, 59 if leap else second, tzinfo=UTC)
        return moment.timestamp() + leap
    except (ValueError, OverflowError):
        return None


def _full_year(year: int, now: float) -> int:
    current = (datetime(1970, 1, 1, tzinfo=UTC) + timedelta(seconds=now)).year
    year += current - current % 100
    return year - 100 if year > current + 50 else year
