"""What is wrong with an input, in one line, without repeating the input."""

from pydantic import ValidationError
from pydantic_core import ErrorDetails

MAX_PROBLEMS = 5
MAX_CHARS = 160


def told(error: ValueError) -> str:
    """One line for a log, a dead letter or a caller. Contents stay out: they may be secret, or long."""
    if not isinstance(error, ValidationError):
        return f"cannot be read: {error}"
    problems = error.errors(include_url=False, include_input=False, include_context=False)
    return "; ".join(_one_line(problem) for problem in problems[:MAX_PROBLEMS])


def _one_line(problem: ErrorDetails) -> str:
    # Fields have names of ours, but what stands below metadata was named by somebody else.
    where = ".".join(str(part) for part in problem["loc"]) or "the message"
    what = problem["msg"].removeprefix("Value error, ")
    return f"{_short(where)}: {_short(what)}"


def _short(text: str) -> str:
    """At most MAX_CHARS of `text`, and nothing in it that UTF-8 does not have."""
    whole = text.encode("utf-8", "replace").decode()
    return whole if len(whole) <= MAX_CHARS else f"{whole[:MAX_CHARS]}…"
