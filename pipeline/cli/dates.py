"""When something happened, as people and files write it; what is not certain is refused, never guessed."""

from datetime import UTC, datetime, timedelta, tzinfo
from typing import Any

from pipeline.errors import Refused

HINT = "write it as 2025-01-31, or with its time as 2025-01-31T08:20:15+01:00"


def when(written: str) -> datetime:
    """A moment, in UTC; without an offset it is taken for UTC.

    ISO 8601, and any wording that names a day, a month and a year in only one possible way, as
    "1:56 pm on 8 May, 2023". Raises Refused otherwise ("8 May", "01/02/2023", "tomorrow").
    """
    try:
        found = _iso(written) or _worded(written)
        aware = found if found.tzinfo else found.replace(tzinfo=UTC)
        return aware.astimezone(UTC)
    except (ValueError, OverflowError) as error:
        # As Python says it of 30 February.
        there = not str(error).startswith("day is out of range")
        what = "date that can be relied on" if there else "day of the calendar"
        raise Refused(f"{written[:60]!r} is no {what}: {HINT}") from error


def _iso(written: str) -> datetime | None:
    try:
        return datetime.fromisoformat(written.strip())
    except ValueError:
        return None


def _worded(written: str) -> datetime:
    """The one reading that is possible. What is not written is filled in from a default: two
    different ones tell whether anything was."""
    from dateutil import parser

    readings = {
        parser.parse(
            written, default=default, dayfirst=day_first, yearfirst=year_first, tzinfos=_offset
        )
        # Of 31 days, in leap years: what is written is wrong by itself, never by what was filled in.
        for default in (datetime(2000, 1, 1), datetime(2004, 3, 2))  # noqa: DTZ001 - no zone is given
        for day_first in (False, True)
        for year_first in (False, True)
    }
    if len(readings) > 1:
        raise ValueError("more than one reading")
    return readings.pop()


def _offset(name: str | None, seconds: int | None) -> tzinfo | None:
    """A zone by its offset. An abbreviation alone names several zones (IST, CST)."""
    from dateutil import tz

    if seconds is not None:
        return tz.tzoffset(name, timedelta(seconds=seconds))
    if name is not None:
        raise ValueError(f"the zone {name} is not one place")
    return None


def optional(written: str | None, option: str) -> datetime | None:
    """The moment, if one was given. Raises Refused with the name of the option."""
    try:
        return None if written is None else when(written)
    except Refused as error:
        raise Refused(f"{option}: {error}") from error


def span(
    since: str | None, until: str | None, options: tuple[str, str]
) -> tuple[datetime | None, datetime | None]:
    """Two moments, the later one exclusive. Raises Refused where nothing lies between them."""
    begin, end = optional(since, options[0]), optional(until, options[1])
    if begin is not None and end is not None and begin >= end:
        raise Refused(
            f"Nothing can lie between {options[0]} {since} and {options[1]} {until}: the first must be "
            "the earlier one."
        )
    return begin, end


def text_of(date: Any) -> str:
    """A date field of a row as text. Raises Refused for a number: seconds or milliseconds?"""
    if not isinstance(date, str):
        raise Refused(f"a date must be text: {HINT}")
    return date
