"""A question -> the times that it names: "in early May", "last week", "on 8 May 2023".

What a phrase means is a kept library's business (dateparser), counted from the asker's clock. A memory has
its date in words, so those of a date are matched, too; those of "last week" and "before May" are no memory's
date, and matched they would find whoever speaks of weeks, and what was in May.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from functools import lru_cache
from typing import Any, Final

import regex
from dateutil.relativedelta import relativedelta

from pipeline.domain.periods import Period
from pipeline.domain.time_phrases import PHRASE
from pipeline.domain.wording import day_in_words

MOST: Final = 4
"""Of one question: whoever lists more asks about none of them."""
_MOST_PHRASES: Final = 3 * MOST
"""Each takes some milliseconds, and several may say the same."""
_FIRST: Final = datetime.min  # noqa: DTZ901 - as clocks on walls show it
_LAST: Final = datetime.max  # noqa: DTZ901
_LENGTH: Final = {
    "day": relativedelta(days=1),
    "week": relativedelta(days=7),
    "month": relativedelta(months=1),
    "year": relativedelta(years=1),
}
_LONGEST_AGO: Final = timedelta(days=100)
"""Of what is counted back: a year holds much of what somebody has told, and "last year" is said loosely."""
_OPENING: Final = " \t\r\n\"'("
"""What may stand between the end of a sentence and the next one's first word."""
_ENDS: Final = ("", ".", "!", "?", ":", ";")
"""What a sentence ends with, or what it says before it; nothing, where a question begins."""
_NOT_THEN: Final = regex.compile(r"\b(?:than|except)(?: the)?$", regex.I)
"""Said of a time, it is another that is meant."""
_NOW: Final = ("this ", "today", "tonight")
_AHEAD: Final = ("next ", "tomorrow", "day after")
# Every other verb has a past tense of its own: these help them.
_LOOKS_BACK: Final = regex.compile(r"\b(?:did|was|were|had|been|happened)(?:n['’]t)?\b", regex.I)
_HAPPENED: Final = regex.compile(r"\bhappen(?:s|ed|ing)?\b", regex.I)
"""Said beside a time it asks for whatever was then."""
_SENTENCE: Final = regex.compile(r"[.!?](?=\s|$)")
_NOON: Final = timedelta(hours=12)
_FEW: Final = 4
"""As many as "the last few days" are taken to be."""
_THIRD: Final = {"early": 0, "beginning of": 0, "start of": 0, "mid": 1, "middle of": 1}


_Parse = Callable[[str], Any]


def periods(question: str, now: datetime) -> Sequence[Period]:
    """The periods that the question names, seen from `now`; none where it names more than MOST."""
    return tuple(dict.fromkeys(_read(question, now).values()))


def untimed(question: str, now: datetime) -> str:
    """The question without the words by which no memory of its times is found; those of dates stay, in words."""
    read = _read(question, now)

    def left(phrase: regex.Match[str]) -> str:
        period = read.get(phrase[0].casefold())
        if period is None:
            return phrase[0]
        if phrase["since"] or phrase["side"] or phrase["first_day"] or period.ago:
            return ""
        if phrase["figures"]:
            return day_in_words(period.since)
        return phrase[0][max(phrase.end("relative") - phrase.start(), 0) :]

    return _HAPPENED.sub("", PHRASE.sub(left, question)) if read else question


@lru_cache(maxsize=256)
def _read(question: str, now: datetime) -> Mapping[str, Period]:
    """The phrases that name a period, case folded, each with it; none where these are more than MOST."""
    phrases = {phrase[0].casefold(): phrase for phrase in PHRASE.finditer(question)}
    if not 0 < len(phrases) <= _MOST_PHRASES:
        return {}
    # Only now: importing it takes longer than answering.
    from dateparser.date import DateDataParser

    clock = now.replace(tzinfo=None)
    settings = {"RELATIVE_BASE": clock, "PREFER_DATES_FROM": "past"}
    parser: Any = DateDataParser(languages=["en"], settings=settings)
    read: dict[str, Period] = {}
    for said, phrase in phrases.items():
        try:
            period = _period(parser.get_date_data, phrase, clock)
        except (OverflowError, ValueError):
            # Before the year 1 or after 9999, where no moment lies.
            continue
        if period is not None:
            read[said] = period
    return _with_now(read, phrases) if len(set(read.values())) <= MOST else {}


def _with_now(
    read: Mapping[str, Period], phrases: Mapping[str, regex.Match[str]]
) -> Mapping[str, Period]:
    """The same; who asks about yesterday and today looks back at both."""
    if not any(period.ago for period in read.values()):
        return read
    return {
        said: replace(period, ago=period.ago or (_is_now(phrases[said]) and _is_short(period)))
        for said, period in read.items()
    }


def _period(parse: _Parse, phrase: regex.Match[str], now: datetime) -> Period | None:
    """What the phrase names. Raises OverflowError or ValueError where it goes beyond the calendar."""
    whole = _between(parse, phrase) if phrase["first_day"] else _named(parse, phrase, now)
    if whole is None:
        return None
    period = _part(whole, phrase["part"])
    if phrase["since"]:
        period = _until_today(period.since, now)
    if phrase["side"]:
        period = _beside(period, phrase["side"].casefold())
    if period.since >= period.until:
        return None
    return replace(period, ago=_is_short(period) and _counts_back(phrase))


def _beside(period: Period, side: str) -> Period:
    """All that was before it, or until its end, or after it."""
    if side.startswith("after"):
        return Period(period.until, _LAST)
    return Period(_FIRST, period.since if side.startswith("before") else period.until)


def _is_short(period: Period) -> bool:
    return period.until - period.since <= _LONGEST_AGO


def _is_now(phrase: regex.Match[str]) -> bool:
    return phrase["when"].casefold().startswith(_NOW)


def _counts_back(phrase: regex.Match[str]) -> bool:
    """Whether no memory of another time is meant.

    Not so "last May", whose name is a date's, "more than a week ago", and "Yesterday", which is a song. Nor
    where a time is told before something is asked ("I fell yesterday. Which ...?"). "Tonight" and "on Friday"
    may lie ahead: who asks what to cook asks for no memory of today.
    """
    when: str = phrase["when"]
    before = phrase.string[: phrase.start()].rstrip(_OPENING)
    if _NOT_THEN.search(before) or _is_told(phrase):
        return False
    if phrase["pointed"] or _is_now(phrase):
        return _LOOKS_BACK.search(phrase.string) is not None
    is_name = phrase[0][0].isupper() and before[-1:] not in _ENDS
    return phrase["relative"] == when and not is_name and not when.casefold().startswith(_AHEAD)


def _is_told(phrase: regex.Match[str]) -> bool:
    """Whether it stands in a sentence that asks nothing, before one that does."""
    end = _SENTENCE.search(phrase.string, phrase.end())
    return end is not None and end[0] != "?" and "?" in phrase.string[end.end() :]


def _named(parse: _Parse, phrase: regex.Match[str], now: datetime) -> Period | None:
    """One moment's day, week, month or year, or what began at it."""
    if phrase["night"]:
        return Period(_midnight(now) - _NOON, _midnight(now) + _NOON)
    if phrase["their_year"]:
        return _in_figures(phrase)
    if phrase["pointed"] and phrase["pointed"].casefold() == "weekend":
        saturday = _midnight(now) - timedelta(days=(now.weekday() - 5) % 7)
        return Period(saturday, saturday + 2 * _LENGTH["day"])
    read = parse(_as_read(phrase))
    if read.date_obj is None:
        return None
    if phrase["back"]:
        return _until_today(_midnight(read.date_obj), now)
    whole = _whole(read)
    if phrase["end"]:
        return Period(whole.until - 2 * _LENGTH["day"], whole.until)
    if _names_last_month(phrase):
        # Said in May, "last May" is the one before.
        years = relativedelta(years=whole.since <= now < whole.until)
        return Period(whole.since - years, whole.until - years)
    return whole


def _in_figures(phrase: regex.Match[str]) -> Period | None:
    """ "20.11.2026", "11/20/2026"; None of "5/6/2026", which is in May or in June. Raises ValueError."""
    one, other = int(phrase["one"]), int(phrase["other"])
    month_first = phrase["between"] == "/" and other > 12
    if phrase["between"] == "/" and one <= 12 and other <= 12 and one != other:
        return None
    month, day = (one, other) if month_first else (other, one)
    since = datetime(int(phrase["their_year"]), month, day)  # noqa: DTZ001 - as clocks on walls show it
    return Period(since, since + _LENGTH["day"])


def _as_read(phrase: regex.Match[str]) -> str:
    """The phrase in words that dateparser knows."""
    if back := phrase["back"]:
        back = _counted(back)
        return f"{back} ago" if " " in back else f"1 {back} ago"
    if phrase["today"]:
        return "today"
    when: str = phrase["when"]
    if _names_last_month(phrase):
        return when.removeprefix(phrase["relative"])
    return _counted(when).removesuffix(phrase["end"] or "").replace(" of ", " ")


def _counted(words: str) -> str:
    """The same with digits for what dateparser does not count."""
    two = regex.sub(r"(?i)\b(?:a )?couple of\b", "2", words)
    return regex.sub(r"(?i)\bfew\b", f"{_FEW}", two)


def _names_last_month(phrase: regex.Match[str]) -> bool:
    """Whether it is "last May", which dateparser takes for the one meant, if said without "last"."""
    return phrase["relative"] not in (None, phrase["when"])


def _between(parse: _Parse, phrase: regex.Match[str]) -> Period | None:
    """From the first day to the last, both within."""
    month = phrase["month"]
    read = parse(" ".join(filter(None, (phrase["last_day"], month, phrase["year"]))))
    if read.date_obj is None:
        return None
    last = _midnight(read.date_obj)
    named = phrase["first_year"] or f"{last.year:04}"
    read = parse(f"{phrase['first_day']} {phrase['first_month'] or month} {named}")
    if read.date_obj is None:
        return None
    first = _midnight(read.date_obj)
    if not phrase["first_year"] and first.month > last.month:
        first -= _LENGTH["year"]
    every_year = not (phrase["first_year"] or phrase["year"])
    return Period(first, last + _LENGTH["day"], every_year)


def _until_today(since: datetime, now: datetime) -> Period:
    return Period(since, _midnight(now) + _LENGTH["day"])


def _midnight(moment: datetime) -> datetime:
    return moment.replace(hour=0, minute=0, second=0, microsecond=0, tzinfo=None)


def _whole(read: Any) -> Period:
    """The whole day, week, month or year that dateparser found a moment of."""
    day = _midnight(read.date_obj)
    since = {
        "week": day - relativedelta(days=day.weekday()),
        "month": day.replace(day=1),
        "year": day.replace(month=1, day=1),
    }.get(read.period, day)
    named: set[str] = set(read.parts or ())
    every_year = bool(named) and "year" not in named and "month" in named
    return Period(since, since + _LENGTH.get(read.period, _LENGTH["day"]), every_year)


def _part(whole: Period, part: str | None) -> Period:
    """The first, the middle or the last third."""
    if part is None:
        return whole
    third = (whole.until - whole.since) / 3
    number = _THIRD.get(part.lower(), 2)
    return Period(
        whole.since + number * third, whole.since + (number + 1) * third, whole.every_year
    )
