"""The times that a question names."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone

import pytest
import regex
from dateparser.date import DateDataParser
from hypothesis import given
from hypothesis import strategies as st

from pipeline.domain.periods import YEARS, Period
from pipeline.domain.times import MOST, periods, untimed

NOW = datetime(2025, 3, 12, 15, 30, tzinfo=UTC)  # a Wednesday

day = datetime.fromisoformat


def told(question: str) -> list[tuple[str, str]]:
    return [(f"{p.since.date()}", f"{p.until.date()}") for p in periods(question, NOW)]


@pytest.mark.parametrize(
    ("question", "since", "until"),
    [
        ("What happened on 8 May, 2023?", "2023-05-08", "2023-05-09"),
        ("What happened on May 8th 2023?", "2023-05-08", "2023-05-09"),
        ("the 3rd of June 2024", "2024-06-03", "2024-06-04"),
        ("In February 2025, during a talk", "2025-02-01", "2025-03-01"),
        ("on 2024-02-03", "2024-02-03", "2024-02-04"),
        ("what changed in 2023?", "2023-01-01", "2024-01-01"),
        ("yesterday's dinner", "2025-03-11", "2025-03-12"),
        ("what do I do today?", "2025-03-12", "2025-03-13"),
        ("last week", "2025-03-03", "2025-03-10"),
        ("two weeks ago", "2025-02-24", "2025-03-03"),
        ("last Friday", "2025-03-07", "2025-03-08"),
        ("last May", "2024-05-01", "2024-06-01"),
        ("last March", "2024-03-01", "2024-04-01"),
        ("last february", "2025-02-01", "2025-03-01"),
        ("the day before yesterday", "2025-03-10", "2025-03-11"),
        ("in may 2023", "2023-05-01", "2023-06-01"),
        ("last month", "2025-02-01", "2025-03-01"),
        ("last year", "2024-01-01", "2025-01-01"),
        ("early February 2025", "2025-02-01", "2025-02-10"),
        ("mid-January 2025", "2025-01-11", "2025-01-21"),
        ("at the end of June 2023", "2023-06-21", "2023-07-01"),
        ("in the last three days", "2025-03-09", "2025-03-13"),
        ("the past two weeks", "2025-02-26", "2025-03-13"),
        ("in the last week", "2025-03-05", "2025-03-13"),
        ("during the last month", "2025-02-12", "2025-03-13"),
        ("in the last few days", "2025-03-08", "2025-03-13"),
        ("the last couple of weeks", "2025-02-26", "2025-03-13"),
        ("a couple of days ago", "2025-03-10", "2025-03-11"),
        ("last night", "2025-03-11", "2025-03-12"),
        ("over the weekend", "2025-03-08", "2025-03-10"),
        ("on Friday", "2025-03-07", "2025-03-08"),
        ("before 5 May 2024", "0001-01-01", "2024-05-05"),
        ("before May", "0001-01-01", "2024-05-01"),
        ("until May 2024", "0001-01-01", "2024-06-01"),
        ("after 5 May 2024", "2024-05-06", "9999-12-31"),
        ("after yesterday", "2025-03-12", "9999-12-31"),
        ("before the beginning of May 2024", "0001-01-01", "2024-05-01"),
        ("on 20.11.2024", "2024-11-20", "2024-11-21"),
        ("on 11/20/2024", "2024-11-20", "2024-11-21"),
        ("on 20/11/2024", "2024-11-20", "2024-11-21"),
        ("on 5.6.2024", "2024-06-05", "2024-06-06"),
        ("Over the last 10 days", "2025-03-02", "2025-03-13"),
        ("during the last 2 months", "2025-01-12", "2025-03-13"),
        ("in the past year", "2024-03-12", "2025-03-13"),
        ("last weekend", "2025-03-08", "2025-03-10"),
        ("this weekend", "2025-03-15", "2025-03-17"),
        ("this morning", "2025-03-12", "2025-03-13"),
        ("this afternoon", "2025-03-12", "2025-03-13"),
        ("this evening", "2025-03-12", "2025-03-13"),
        ("Tonight", "2025-03-12", "2025-03-13"),
        ("since Monday", "2025-03-10", "2025-03-13"),
        ("since Friday", "2025-03-07", "2025-03-13"),
        ("since wednesday", "2025-03-05", "2025-03-13"),
        ("since last week", "2025-03-03", "2025-03-13"),
        ("since the day before yesterday", "2025-03-10", "2025-03-13"),
        ("since 2024", "2024-01-01", "2025-03-13"),
        ("since May", "2024-05-01", "2025-03-13"),
        ("since early May 2023", "2023-05-01", "2025-03-13"),
        ("since 8 May 2023", "2023-05-08", "2025-03-13"),
        ("from 3 to 5 May 2023", "2023-05-03", "2023-05-06"),
        ("from 3 May to 5 May 2023", "2023-05-03", "2023-05-06"),
        ("From the office, from 28th April until 3rd of May, 2023", "2023-04-28", "2023-05-04"),
        ("between 28 December and 3 January 2024", "2023-12-28", "2024-01-04"),
        ("between May 3, 2022 and June 5, 2023", "2022-05-03", "2023-06-06"),
        ("between November 10 and 14, 2023", "2023-11-10", "2023-11-15"),
        ("November 10-14, 2023", "2023-11-10", "2023-11-15"),
        ("10–14 November 2023", "2023-11-10", "2023-11-15"),
        ("on May 8 2023 - 10 pm", "2023-05-08", "2023-05-09"),
        ("what comes next week?", "2025-03-17", "2025-03-24"),
        ("next month", "2025-04-01", "2025-05-01"),
        ("next year", "2026-01-01", "2027-01-01"),
        ("tomorrow", "2025-03-13", "2025-03-14"),
        ("the day after tomorrow", "2025-03-14", "2025-03-15"),
        ("the last week of May 2023", "2023-05-01", "2023-06-01"),
    ],
)
def test_a_time_is_counted_from_the_askers_clock(question: str, since: str, until: str) -> None:
    assert told(question) == [(since, until)]


@pytest.mark.parametrize(
    "question",
    [
        "May I ask?",
        "until may I ask",
        "Will Jan come?",
        "They march on",
        "over 2000 people",
        "",
        "a second time",
        "recently",
        "on the 31st",
        "next Friday",
        "what did she do the next week?",
        "the last three days of the trip",
        "the last year of school",
        "between 14 and 10 November",
        "between 10 and 14 people",
        "since tomorrow",
        "on Mondays",
        "Monday is fine",
        "on 5/6/2026",
        "on 31.2.2026",
        "the weekend is near",
    ],
)
def test_what_is_no_time_is_none(question: str) -> None:
    assert told(question) == []


@pytest.mark.parametrize(
    "question", ["What did we plan in May?", "In May what did we plan?", "what did we plan in may"]
)
def test_a_month_without_a_year_is_that_of_any_year(question: str) -> None:
    (may,) = periods(question, NOW)
    assert all(may.holds(datetime(year, 5, 31, 23, tzinfo=UTC)) for year in (2019, 2024, 2031))
    assert not may.holds(datetime(2024, 6, 1, tzinfo=UTC))


@pytest.mark.parametrize(
    "question",
    ["between 10 and 14 November", "November 10-14", "from 10 November to 14 November"],
)
def test_days_without_a_year_are_those_of_any_year(question: str) -> None:
    (days,) = periods(question, NOW)
    for year in (2019, 2024, 2031):
        assert [n for n in range(1, 31) if days.holds(datetime(year, 11, n, tzinfo=UTC))] == [
            *range(10, 15)
        ]


def test_days_of_any_year_may_cross_into_the_next() -> None:
    (days,) = periods("from 28 December to 3 January", NOW)
    assert all(days.holds(day(f"{at}T23:00")) for at in ("2019-12-31", "2022-01-03", "2030-12-28"))
    assert not any(days.holds(day(at)) for at in ("2022-01-04", "2022-12-27"))


@pytest.mark.parametrize(
    ("question", "left"),
    [
        ("what happened last week?", ["what"]),
        ("what happened in May?", ["what", "in", "may"]),
        ("why did it happen on 2024-05-01", ["why", "did", "it", "on", "1", "may", "2024"]),
        ("Last week, or LAST WEEK?", ["or"]),
        ("how did I sleep early this week", ["how", "did", "i", "sleep"]),
        ("what was two weeks ago or last Monday?", ["what", "was", "or"]),
        ("my runs in the last three days", ["my", "runs", "in", "the"]),
        ("calls since Wednesday", ["calls"]),
        ("coffee this morning", ["coffee"]),
        ("trips next year", ["trips"]),
        ("a walk last weekend", ["a", "walk"]),
        ("yesterday", []),
        ("what did we plan last May?", ["what", "did", "we", "plan", "may"]),
        ("what broke since early May 2023", ["what", "broke"]),
        ("what broke before 5 May", ["what", "broke"]),
        ("pears between 10 and 14 November", ["pears"]),
        ("what did I do on Friday?", ["what", "did", "i", "do", "on"]),
        ("on 2023-11-08", ["on", "8", "november", "2023"]),
        ("on 11/20/2024", ["on", "20", "november", "2024"]),
    ],
)
def test_what_no_memory_has_for_its_date_is_not_matched_as_words(
    question: str, left: list[str]
) -> None:
    assert regex.findall(r"\w+", untimed(question, NOW).casefold()) == left


@pytest.mark.parametrize(
    "question",
    [
        "in May",
        "on 8 November 2023",
        "what changed in 2023?",
        "what happened to the boiler?",
        "what shall we do on Friday or over the weekend?",
        "on 5/6/2026",
        "the last week of the trip",
        "today, yesterday, last week, this month and two years ago",
        "",
    ],
)
def test_the_words_of_dates_stay_and_so_do_those_of_what_was_not_read(question: str) -> None:
    assert untimed(question, NOW) == question


@pytest.mark.parametrize("question", ["last May", "since May", "since last March"])
def test_a_month_counted_from_now_is_that_of_one_year(question: str) -> None:
    (of_one_year,) = periods(question, NOW)
    assert of_one_year.holds(datetime(2024, 5, 5, tzinfo=UTC))
    assert not of_one_year.holds(datetime(2023, 5, 5, tzinfo=UTC))


def test_the_29th_of_february_is_in_february() -> None:
    (february,) = periods("in February", NOW)
    assert february.holds(datetime(2024, 2, 29, tzinfo=UTC))


def test_a_moment_counts_by_the_clock_on_its_own_wall() -> None:
    the_day = Period(day("2025-05-08"), day("2025-05-09"))
    assert the_day.holds(datetime(2025, 5, 8, 1, tzinfo=timezone(timedelta(hours=9))))


def test_who_names_many_times_names_none() -> None:
    many = " ".join(f"on {day} May 2023," for day in range(1, MOST + 2))
    assert told(many) == []


def test_a_question_full_of_times_costs_no_more_than_a_few(monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[str] = []
    parse = DateDataParser.get_date_data

    def counted(self: DateDataParser, phrase: str) -> object:
        read.append(phrase)
        return parse(self, phrase)

    monkeypatch.setattr(DateDataParser, "get_date_data", counted)
    assert told("on 8 May 2023 " * 500) == [("2023-05-08", "2023-05-09")]
    assert told(" ".join(f"on 8 May {year}" for year in range(1900, 2099))) == []
    assert len(read) == 1


@given(st.text(alphabet="0123456789 -,.agoftheMayJunelstwk", max_size=60))
def test_no_question_is_too_odd(question: str) -> None:
    for period in periods(question, NOW):
        assert period.since < period.until
    assert len(untimed(question, NOW)) <= len(question)


EVERY_PHRASE = (
    "today",
    "yesterday",
    "this week",
    "this month",
    "this year",
    "this Friday",
    "last week",
    "last year",
    "last Monday",
    "last May",
    "ten years ago",
    "99 months ago",
    "in early May",
    "mid-December",
    "late in 2099",
    "31 December",
    "February 29",
    "29 February 1900",
    "on 2024-02-30",
    "tomorrow",
    "next year",
    "this weekend",
    "since Monday",
    "in the past 99 years",
    "since December",
    "from 28 December to 3 January",
    "between 28 and 29 February",
)


@given(
    st.sampled_from(EVERY_PHRASE),
    st.datetimes(timezones=st.just(UTC))
    | st.sampled_from([datetime.min.replace(tzinfo=UTC), datetime.max.replace(tzinfo=UTC)])
    | st.timedeltas(timedelta(0), timedelta(days=500)).map(
        lambda since: datetime.min.replace(tzinfo=UTC) + since
    )
    | st.timedeltas(timedelta(0), timedelta(days=500)).map(
        lambda until: datetime.max.replace(tzinfo=UTC) - until
    ),
    st.datetimes(timezones=st.just(UTC)),
)
def test_at_every_moment_of_the_calendar_a_phrase_names_a_period_or_none(
    phrase: str, now: datetime, occurred_at: datetime
) -> None:
    for period in periods(f"What was there {phrase}?", now):
        assert period.since < period.until
        assert period.holds(occurred_at) in (True, False)


@pytest.mark.parametrize("phrase", ["today", "this week", "this month", "this year"])
def test_a_period_that_ends_with_the_calendar_is_none(phrase: str) -> None:
    assert periods(phrase, datetime.max.replace(tzinfo=UTC)) == ()


def test_a_period_of_no_year_is_that_of_each_year_around() -> None:
    (may,) = periods("in May", NOW)
    years = [(each.since.year, each.until.year) for each in may.each_year()]
    assert years == [(year, year) for year in range(2025, 2025 - YEARS, -1)]
    assert all(may.holds(each.since.replace(tzinfo=UTC)) for each in may.each_year())


@pytest.mark.parametrize("year", [2024, 2025])
@pytest.mark.parametrize(
    "question", ["on 28 February", "between 20 and 28 February", "in February", "on 29 February"]
)
def test_each_year_around_has_its_february_leap_year_or_not(question: str, year: int) -> None:
    (asked_for,) = periods(question, NOW.replace(year=year))
    there = asked_for.each_year()
    days = [datetime(year - 2, 2, 1, tzinfo=UTC) + timedelta(days=n) for n in range(3 * 365)]
    missed = [
        each for each in days if asked_for.holds(each) and not any(p.holds(each) for p in there)
    ]
    assert missed == []


@pytest.mark.parametrize(
    ("year", "years"), [(1, [2, 1]), (9999, list(range(9999, 9999 - YEARS + 1, -1)))]
)
def test_a_period_of_no_year_is_looked_for_in_no_year_beyond_the_calendar(
    year: int, years: list[int]
) -> None:
    (named,) = periods("in May", NOW)
    since, until = named.since.replace(year=year), named.until.replace(year=year)
    may = replace(named, since=since, until=until)
    assert [each.since.year for each in may.each_year()] == years


def test_a_period_of_a_year_is_that_of_no_other() -> None:
    (may,) = periods("in May 2023", NOW)
    assert [*may.each_year()] == [may]


@pytest.mark.parametrize(
    ("question", "ago"),
    [
        ("yesterday", True),
        ("what was the day before yesterday", True),
        ("last week", True),
        ("early last month", True),
        ("two weeks ago", True),
        ("in the last three days", True),
        ("what did I do since Monday", True),
        ("last May", False),
        ("in May", False),
        ("on 8 May 2023", False),
        ("what should I cook tonight", False),
        ("today", False),
        ("tomorrow", False),
        ("this year", False),
        ("last year", False),
        ("in the past 12 months", False),
        ("the past 2 months", True),
        ("what did I do before last week", False),
        ("until the day before yesterday", False),
        ("more than two weeks ago", False),
        ("what came after yesterday", False),
        ("who sang Yesterday", False),
        ("what did I do today?", True),
        ("what happened this week?", True),
        ("which runs did I do this year?", False),
        ("what did I do on Friday?", True),
        ("what shall I do on Friday?", False),
        ("what was fixed over the weekend?", True),
        ("where are we over the weekend?", False),
        ("before yesterday", False),
        ("what happened after yesterday", False),
        ("I burned my hand yesterday. Which ointment can I take?", False),
        ("I am in town! What was it that broke yesterday?", True),
        ("what broke yesterday. tell me", True),
        ("I am back. Yesterday was what?", True),
        ('"Yesterday" is what I said', True),
    ],
)
def test_what_is_counted_back_from_now_is_told_from_dates_and_plans(
    question: str, ago: bool
) -> None:
    assert [period.ago for period in periods(question, NOW)] == [ago]


@pytest.mark.parametrize(
    ("question", "ago"),
    [
        ("what did I do yesterday and today", [True, True]),
        ("how does this week compare with last week", [True, True]),
        ("what did I plan yesterday for tomorrow", [True, False]),
        ("last week or on 8 December", [True, False]),
        ("this year and last week", [False, True]),
        ("this week and before last week", [False, False]),
    ],
)
def test_who_asks_about_yesterday_and_today_looks_back_at_both(
    question: str, ago: list[bool]
) -> None:
    assert [period.ago for period in periods(question, NOW)] == ago
