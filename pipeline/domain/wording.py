"""A memory, put into words for the models: what was said, by whom, and on which day.

A question names people and days as readily as things ("what did Ana plan in May?"), so both belong to what
is embedded and to what is matched by words. Days are English words and never digits alone, because
that is how people ask for them. The preceding texts stay out: whoever weighs them does so separately.
"""

from datetime import datetime

from schemas.events import MemoryState

_MONTHS = (
    "January February March April May June July August September October November December".split()
)
_WEEKDAYS = "Monday Tuesday Wednesday Thursday Friday Saturday Sunday".split()


def worded(state: MemoryState) -> str:
    """What the embedder reads: `(8 May 2023) Caroline: I went to the lake`."""
    return f"({day_in_words(state.occurred_at)}) {_said(state)}"


def worded_for_terms(state: MemoryState) -> str:
    """What is matched word by word: as `worded`, with the weekday too."""
    weekday = _WEEKDAYS[state.occurred_at.weekday()]
    return f"({weekday} {day_in_words(state.occurred_at)}) {_said(state)}"


def day_in_words(moment: datetime) -> str:
    """`8 May 2023`, in the moment's own time zone, whatever this machine's locale."""
    return f"{moment.day} {_MONTHS[moment.month - 1]} {moment.year}"


def _said(state: MemoryState) -> str:
    return f"{state.speaker}: {state.text}" if state.speaker else state.text
