"""Which words of a question are a time: "in early May", "since Monday", "between 10 and 14 November".

A library that searches whole sentences takes "may" and "second" for dates, and a tenth of a second for a
question. What can mean several times is none of these: "next Friday", "recently", "on the 31st".
"""

from typing import Final

import regex

_MONTH: Final = (
    r"(?:(?i:Jan(?:uary)?|Feb(?:ruary)?|Apr(?:il)?|June?|July?|Aug(?:ust)?"
    r"|Sept?(?:ember)?|Oct(?:ober)?|Nov(?:ember)?|Dec(?:ember)?)|May|Mar(?:ch)?)"
)
"""In whatever case, but for those that are other words in lower case."""
_WEEKDAY: Final = r"(?:Mon|Tues|Wednes|Thurs|Fri|Satur|Sun)day"
_YEAR: Final = r"(?:19|20)[0-9]{2}"
_DAY: Final = r"[0-3]?[0-9](?:st|nd|rd|th)?"
_FIGURES: Final = (
    rf"(?P<figures>{_YEAR}-[01][0-9]-[0-3][0-9]"
    rf"|(?P<one>[0-3]?[0-9])(?P<between>[./])(?P<other>[0-3]?[0-9])(?P=between)(?P<their_year>{_YEAR}))"
)
_SEVERAL: Final = r"(?:couple of|two|three|four|five|six|seven|eight|nine|ten|[0-9]{1,2})"
_UNIT: Final = r"(?:day|week|month|year)"
_NO_HOUR: Final = r"(?!:[0-9]| ?[ap]m\b)"


def _range(begin: str, to: str) -> str:
    """Two days, of which either may leave month and year to the other."""
    return (
        rf"{begin}(?:"
        rf"(?P<first_day>{_DAY})(?:(?: of)? (?P<first_month>{_MONTH})(?:,? (?P<first_year>{_YEAR}))?)?{to}"
        rf"(?P<last_day>{_DAY})(?: of)? (?P<month>{_MONTH})(?:,? (?P<year>{_YEAR}))?"
        rf"|(?P<month>{_MONTH}) (?P<first_day>{_DAY})(?:, (?P<first_year>{_YEAR}))?{to}"
        rf"(?P<last_day>{_DAY})(?![0-9]){_NO_HOUR}(?:,? (?P<year>{_YEAR}))?"
        rf"|(?P<first_month>{_MONTH}) (?P<first_day>{_DAY})(?:, (?P<first_year>{_YEAR}))?{to}"
        rf"(?P<month>{_MONTH}) (?P<last_day>{_DAY})(?![0-9])(?:,? (?P<year>{_YEAR}))?)"
    )


_RANGE: Final = "|".join(
    (
        _range(r"(?i:between) ", r" (?i:and) "),
        _range(r"(?i:from) ", r" (?i:to|until|till) "),
        _range(r"(?<![0-9]-)", r" ?[-–] ?"),
    )
)
_RELATIVE: Final = (
    rf"(?i:(?:an?|one|(?:a )?{_SEVERAL}) {_UNIT}s? ago)"
    rf"|(?i:(?:last|past) (?P<back>(?:few|{_SEVERAL}) {_UNIT}s?)|past (?P<back>week|month|year)"
    r"|(?<=\b(?:in|during|over|within|for) the )last (?P<back>week|month|year))(?! of\b)"
    r"|(?i:(?:last|this) week(?P<end>end))"
    rf"|(?i:(?:last|this|(?<!\bthe )next) (?:week|month|year)(?! of\b)|(?:last|this) {_WEEKDAY})"
    rf"|(?<=\b(?i:since) )(?i:{_WEEKDAY})"
    r"|(?P<night>(?i:last night))"
    r"|(?P<today>(?i:this (?:morning|afternoon|evening)|tonight))"
    r"|(?i:day before yesterday|day after tomorrow|yesterday|today|tomorrow)"
)
# Of long questions, the words that begin otherwise are most of the time that this takes.
PHRASE: Final = regex.compile(
    r"\b(?=[0-9]|(?i:[abdefjlmnopstuwy]))(?P<since>(?i:since) (?:the )?)?"
    r"(?P<side>(?i:before|after|until|till) (?:the )?)?"
    r"(?:(?P<part>(?i:early|mid|middle of|late|beginning of|start of|end of))[ -](?:the )?)?"
    r"(?P<when>"
    rf"{_RANGE}"
    rf"|{_FIGURES}"
    rf"|{_DAY}(?: of)? {_MONTH}(?:,? {_YEAR})?"
    rf"|{_MONTH} {_DAY}(?![0-9])(?:,? {_YEAR})?"
    rf"|(?:{_MONTH}|(?i:May|March)),? (?:of )?{_YEAR}"
    rf"|(?P<relative>{_RELATIVE})"
    rf"|(?P<relative>(?i:last ))(?i:{_MONTH})"
    rf"|(?P<pointed>(?<=\b(?i:on) ){_WEEKDAY}|(?<=\b(?i:over|at|on|during) the )(?i:weekend))"
    rf"|(?:(?<=\b(?i:in|during|of|since|until|till|before|after|by|for|early|mid|late)[ -]){_MONTH})"
    r"|(?:(?<=\b(?i:in|during) )(?i:May|March))"
    rf"|(?:(?<=\b(?i:in|during|of|since|until|before|after|year|early|mid|late)[ -]){_YEAR})"
    r")\b"
)
"""`when` is the time, `part` of it, all `since` it or on one `side` of it. `relative` are those of its words that no
memory has for its date, `figures` a date without words, `pointed` a day that came last week and comes next week.

Of a range `first_day` to `last_day`, `month` and `year` are the last day's. `back` is how long ago a period
began that ends today. A month alone must be pointed at: "May", "March" and "Jan" are other words, too.
"""
