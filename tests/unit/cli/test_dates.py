"""Dates are read as they are meant, or refused."""

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.cli.dates import span, when
from pipeline.errors import Refused


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("2025-01-01 08:20:15", "2025-01-01T08:20:15+00:00"),
        ("2025-01-01T08:20:15Z", "2025-01-01T08:20:15+00:00"),
        ("2025-01-01T08:20:15+02:00", "2025-01-01T06:20:15+00:00"),
        ("2025-01-01", "2025-01-01T00:00:00+00:00"),
        ("1:56 pm on 8 May, 2023", "2023-05-08T13:56:00+00:00"),
        ("8 May 2023 10:00 +0530", "2023-05-08T04:30:00+00:00"),
        ("Mon, 8 May 2023 10:00:00 GMT", "2023-05-08T10:00:00+00:00"),
        ("13/02/2023", "2023-02-13T00:00:00+00:00"),
    ],
)
def test_one_reading_is_taken(written: str, meant: str):
    assert when(written).isoformat() == meant


@pytest.mark.parametrize(
    "written",
    [
        "8 May",  # which year?
        "May 2023",  # which day?
        "12:30",
        "Monday",
        "01/02/2023",  # January or February?
        "25-01-02",
        "8 May 2023 10:00 IST",  # India, Ireland or Israel?
        "tomorrow",
        "2025-02-30",
        "1735719615000",
        "0001-01-01T00:00:00+05:00",
        "",
    ],
)
def test_what_is_not_certain_is_refused(written: str):
    with pytest.raises(Refused, match="2025-01-31T08:20:15"):
        when(written)


@pytest.mark.parametrize("written", ["2026-02-30", "30 February 2026", "2026-04-31T08:00"])
def test_a_day_that_there_is_not_is_said_to_be_none(written: str):
    with pytest.raises(
        Refused, match=f"'{written}' is no day of the calendar: write it as 2025-01-31, or"
    ):
        when(written)


@pytest.mark.parametrize("written", ["29 February", "31", "31 2026"])
def test_a_day_that_may_be_is_only_not_certain(written: str):
    with pytest.raises(Refused, match="is no date that can be relied on"):
        when(written)


@given(st.text(max_size=40))
def test_nothing_else_is_ever_raised(written: str):
    with suppress(Refused):
        assert when(written).utcoffset() is not None


def test_an_option_that_is_no_date_is_named():
    with pytest.raises(Refused, match=r"^--after: 'tomorrow' is no date"):
        span("tomorrow", None, ("--after", "--before"))


@pytest.mark.parametrize("until", ["2025-01-01", "2024-12-31"])
def test_a_span_that_holds_nothing_is_refused(until: str):
    with pytest.raises(Refused, match="Nothing can lie between --after 2025-01-01 and --before"):
        span("2025-01-01", until, ("--after", "--before"))
