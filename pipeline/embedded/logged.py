"""A line of a log -> what a process of the stack says there, whichever of its two forms it logs in.

What does not look like a line of ours is none: libraries and the interpreter write there, too.
"""

import ast
import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

_LINE = re.compile(r"(?P<at>\S+) \[(?P<level>\w+) *\] (?P<event>.*?)\s*(?P<fields> \w+=.*)?")
_REASON = re.compile(r" reason=(?P<reason>'(?:[^'\\]|\\.)*'|\"(?:[^\"\\]|\\.)*\"|\S+)")


@dataclass(frozen=True)
class Logged:
    """One line."""

    at: datetime
    level: str
    event: str
    reason: str = ""


def logged(line: str) -> Logged | None:
    """The line in its parts; None where it is none of ours."""
    try:
        if line.startswith("{"):
            told: Any = json.loads(line)
            at = datetime.fromisoformat(told["timestamp"])
            return Logged(at, told["level"], told["event"], str(told.get("reason", "")))
        found = _LINE.fullmatch(line)
        if found is None:
            return None
        at = datetime.fromisoformat(found["at"])
        return Logged(at, found["level"], found["event"], _reason(found["fields"] or ""))
    except (ValueError, TypeError, KeyError):
        return None


def _reason(fields: str) -> str:
    found = _REASON.search(fields)
    if found is None:
        return ""
    written = found["reason"]
    return str(ast.literal_eval(written)) if written[0] in "'\"" else written


def last_reason(lines: Iterable[str]) -> str:
    """Why a process could not go on, as its last critical line says; "" where none does."""
    read = [said for line in lines if (said := logged(line)) and said.level == "critical"]
    return read[-1].reason if read else ""
