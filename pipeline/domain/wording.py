"""A memory, put into words for the models: what was said, by whom, and on which day.

A question names people and days as readily as things ("what did Ana plan in May?"), so both belong to what
is embedded and to what is matched by words. Days are English words and never digits alone, because
that is how people ask for them. What was said before stays out: whoever weighs it words it by itself.
"""

from datetime import datetime

from schemas.events import MemoryState, Said
from schemas.search import KnownMemory

_MONTHS = (
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
)
_WEEKDAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")


def worded(said: MemoryState | Said | KnownMemory) -> str:
    """What a model reads: `(8 May 2023) Caroline: I went to the lake`, as far as it is known."""
    told = _told(said)
    return f"({day_in_words(said.occurred_at)}) {told}" if said.occurred_at else told


def worded_for_terms(said: MemoryState | Said) -> str:
    """What is matched word by word: as `worded`, with the weekday too."""
    moment = said.occurred_at
    return f"{_WEEKDAYS[moment.weekday()]} {worded(said)}" if moment else worded(said)


def day_for_terms(moment: datetime) -> str:
    """`Monday 8 May 2023`: what can be matched of a moment word by word."""
    return f"{_WEEKDAYS[moment.weekday()]} {day_in_words(moment)}"


def day_in_words(moment: datetime) -> str:
    """`8 May 2023`, in the moment's own time zone, whatever this machine's locale."""
    return f"{moment.day} {_MONTHS[moment.month - 1]} {moment.year}"


def _told(said: MemoryState | Said | KnownMemory) -> str:
    return f"{said.speaker}: {said.text}" if said.speaker else said.text
