"""What is wrong with an input, in one line, without repeating the input."""

from collections.abc import Iterable, Sequence
from itertools import groupby

from pydantic import ValidationError
from pydantic_core import ErrorDetails

MAX_PROBLEMS = 5
MAX_CHARS = 160
MOST_LISTED = 1_000
"""Mistakes of one input that are looked at: to list a million takes ten seconds and a gigabyte."""

_WORDS = {
    "missing": "is missing",
    "extra_forbidden": "is no field that is known here",
    "string_type": "must be text",
    "string_unicode": "is no text that UTF-8 can say",
    "int_type": "must be a whole number",
    "int_parsing": "must be a whole number",
    "int_from_float": "must be a whole number",
    "float_type": "must be a number",
    "float_parsing": "must be a number",
    "finite_number": "must be a finite number",
    "bool_type": "must be true or false",
    "bool_parsing": "must be true or false",
    "tuple_type": "must be a list",
    "list_type": "must be a list",
    "dataclass_type": "must be an object with names and values",
    "dict_type": "must be an object with names and values",
    "model_type": "must be an object with named fields",
    "timezone_aware": "has no time zone: write it as 2025-01-31T08:20:15+00:00",
    "datetime_type": "is no time: write it as 2025-01-31T08:20:15+00:00",
    "datetime_parsing": "is no time: write it as 2025-01-31T08:20:15+00:00",
    "datetime_from_date_parsing": "is no time: write it as 2025-01-31T08:20:15+00:00",
    "literal_error": "must be {expected}",
    "string_too_long": "has more than {max_length} characters",
    "too_long": "has more than {max_length} entries",
    "too_short": "has fewer than {min_length} entries",
    "greater_than_equal": "must be {ge} or more",
    "less_than_equal": "must be {le} or less",
    "recursion_depth_exceeded": "is nested too deep",
    "invalid-json-value": "is nothing that JSON can say",
}
"""By pydantic's name of a mistake. It words them for those who know pydantic."""

_SCALARS = {"str": "text", "int": "a whole number", "float": "a number", "bool": "true or false"}
"""How pydantic calls the choices where one of several kinds is allowed."""


def told(error: ValueError, *within: str) -> str:
    """One line for a log, a dead letter or a caller. Contents stay out: they may be secret, or long.

    `within` names what was checked, where its fields alone do not say it.
    """
    if not isinstance(error, ValidationError):
        return f"cannot be read: {error}"
    if error.error_count() > MOST_LISTED:
        return f"{error.title}: has {error.error_count():,} mistakes"
    problems = error.errors(include_url=False, include_input=False)
    lines = [_one_line(same, within) for _, same in groupby(problems, key=_place)]
    return "; ".join(lines[:MAX_PROBLEMS])


def _place(problem: ErrorDetails) -> Sequence[int | str]:
    """Where it is; a value that may be of several kinds has one problem with each of them."""
    return problem["loc"][:-1] if _kind(problem) else problem["loc"]


def _kind(problem: ErrorDetails) -> str | None:
    """Which of several kinds that are allowed it is not; None where only one is."""
    above, last = problem["loc"][:-1], problem["loc"][-1:]
    of_a_kind = problem["type"].startswith(("string_", "int_", "float_", "bool_"))
    return _SCALARS.get(str(last[0])) if above and of_a_kind else None


def _one_line(same_place: Iterable[ErrorDetails], within: Sequence[str]) -> str:
    problems = list(same_place)
    # Fields have names of ours, but what stands below metadata was named by somebody else.
    where = ".".join(str(part) for part in (*within, *_place(problems[0]))) or "the message"
    *kinds, last = [_kind(problem) for problem in problems]
    what = f"must be {', '.join(filter(None, kinds))} or {last}" if kinds and last else None
    return f"{_short(where)}: {_short(what or _what(problems[0]))}"


def _what(problem: ErrorDetails) -> str:
    words = _WORDS.get(problem["type"])
    return words.format(**problem.get("ctx", {})) if words else _said(problem["msg"])


def _said(msg: str) -> str:
    return msg.removeprefix("Value error, ").replace("Input should be", "must be")


def _short(text: str) -> str:
    """At most MAX_CHARS of `text`, and nothing in it that UTF-8 does not have."""
    whole = text.encode("utf-8", "replace").decode()
    return whole if len(whole) <= MAX_CHARS else f"{whole[:MAX_CHARS]}…"
