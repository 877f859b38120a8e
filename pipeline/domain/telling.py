"""What is wrong with an input, in one line, without repeating the input."""

from pydantic import ValidationError


def told(error: ValueError) -> str:
    """One line for a log, a dead letter or a caller. Contents stay out: they may be secret, or long."""
    if not isinstance(error, ValidationError):
        return f"cannot be read: {error}"
    problems = error.errors(include_url=False, include_input=False, include_context=False)
    return "; ".join(
        f"{'.'.join(str(part) for part in problem['loc']) or 'the message'}: "
        f"{problem['msg'].removeprefix('Value error, ')}"
        for problem in problems[:5]
    )
