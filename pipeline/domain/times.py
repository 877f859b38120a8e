"""A question -> the times that it names: "in early May", "last week", "on 8 May 2023".

What a phrase means is a kept library's business (dateparser), counted from the asker's clock. Which words
are such a phrase is ours to say: a library that searches whole sentences takes "may" and "second" for
dates, and a tenth of a second for a question.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from typing import Any, Final

import regex
from dateutil.relativedelta import relativedelta

MOST: Final = 4
"""Of one question: whoever lists more asks about none of them."""
_MOST_PHRASES: Final = 3 * MOST
"""Each takes some milliseconds, and several may say the same."""

_MONTH: Final = (
    r"(?:(?i:Jan(?:uary)?|Feb(?:ruary)?|Apr(?:il)?|June?|July?|Aug(?:ust)?"
    r"|Sept?(?:ember)?|Oct(?:ober)?|Nov(?:ember)?|Dec(?:ember)?)|May|Mar(?:ch)?)"
)
"""In whatever case, but for those that are other words in lower case."""
_WEEKDAY: Final = r"(?:Mon|Tues|Wednes|Thurs|Fri|Satur|Sun)day"
_YEAR: Final = r"(?:19|20)[0-9]{2}"
_DAY: Final = r"[0-3]?[0-9](?:st|nd|rd|th)?"
_COUNT: Final = r"(?:a|an|one|two|three|four|five|six|seven|eight|nine|ten|[0-9]{1,2})"
_PHRASE: Final = regex.compile(
    r"\b(?:(?P<part>(?i:early|mid|middle of|late|beginning of|start of|end of))[ -](?:the )?)?"
    r"(?P<when>"
    rf"{_YEAR}-[01][0-9]-[0-3][0-9]"
    rf"|{_DAY}(?: of)? {_MONTH}(?:,? {_YEAR})?"
    rf"|{_MONTH} {_DAY}(?![0-9])(?:,? {_YEAR})?"
    rf"|(?:{_MONTH}|(?i:May|March)),? (?:of )?{_YEAR}"
    rf"|(?i:{_COUNT} (?:day|week|month|year)s? ago)"
    rf"|(?i:(?:last|this) (?:week|month|year|{_WEEKDAY}))|(?i:last {_MONTH})"
    r"|(?i:day before yesterday|yesterday|today)"
    rf"|(?:(?<=\b(?i:in|during|of|since|until|till|before|after|by|for|early|mid|late)[ -]){_MONTH})"
    r"|(?:(?<=\b(?i:in|during) )(?i:May|March))"
    rf"|(?:(?<=\b(?i:in|during|of|since|until|before|after|year|early|mid|late)[ -]){_YEAR})"
    r")\b"
)
"""A month alone must be pointed at: "May", "March" and "Jan" are other words, too."""
_LAST_MONTH: Final = regex.compile(rf"^(?i:last) (?={_MONTH}$)")
_LENGTH: Final = {
    "day": relativedelta(days=1),
    "week": relativedelta(days=7),
    "month": relativedelta(months=1),
    "year": relativedelta(years=1),
}
_THIRD: Final = {"early": 0, "beginning of": 0, "start of": 0, "mid": 1, "middle of": 1}


@dataclass(frozen=True, slots=True)
class Period:
    """From `since` until before `until`, as clocks on walls show it, whatever their time zone."""

    since: datetime
    until: datetime
    every_year: bool = False
    """Whether the question did not say of which year."""

    def holds(self, moment: datetime) -> bool:
        """Whether the moment lies within, by the clock of the zone it carries: what came in an event, UTC's."""
        at = moment.replace(tzinfo=None)
        if self.every_year:
            at += relativedelta(years=self.since.year - at.year)
        return self.since <= at < self.until


@lru_cache(maxsize=256)
def periods(question: str, now: datetime) -> Sequence[Period]:
    """The periods that the question names, seen from `now`; none where it names more than MOST."""
    found = list(dict.fromkeys(_periods(question, now)))
    return found if len(found) <= MOST else ()


def _periods(question: str, now: datetime) -> Iterator[Period]:
    phrases = {phrase[0].casefold(): phrase for phrase in _PHRASE.finditer(question)}
    if not 0 < len(phrases) <= _MOST_PHRASES:
        return
    # Only now: importing it takes longer than answering.
    from dateparser.date import DateDataParser

    settings = {"RELATIVE_BASE": now.replace(tzinfo=None), "PREFER_DATES_FROM": "past"}
    parser: Any = DateDataParser(languages=["en"], settings=settings)
    for phrase in phrases.values():
        try:
            period = _period(parser, phrase, now.replace(tzinfo=None))
        except (OverflowError, ValueError):
            # Before the year 1 or after 9999, where no moment lies.
            continue
        if period is not None:
            yield period


def _period(parser: Any, phrase: regex.Match[str], now: datetime) -> Period | None:
    """What the phrase names. Raises OverflowError or ValueError where it goes beyond the calendar."""
    # "last May" is the May that dateparser takes for the one meant, said without "last"; in May, the one before.
    when, last = _LAST_MONTH.subn("", phrase["when"])
    read = parser.get_date_data(when.replace(" of ", " "))
    if read.date_obj is None:
        return None
    whole = _whole(read)
    if last:
        years = relativedelta(years=whole.since <= now < whole.until)
        whole = Period(whole.since - years, whole.until - years)
    return _part(whole, phrase["part"])


def _whole(read: Any) -> Period:
    """The whole day, week, month or year that dateparser found a moment of."""
    day = read.date_obj.replace(hour=0, minute=0, second=0, microsecond=0, tzinfo=None)
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
