"""Which processes of the stack were started again, read off their ages: a stack starts all of them at once.

And which were not, because it would not help: they halted, and wait for a person.
"""

import time
from typing import TYPE_CHECKING

import psutil

from pipeline.cli.printing import duration

if TYPE_CHECKING:
    from pipeline.embedded.state import PartState, Stack

FIRST_START_S = 10.0
"""Processes that began so soon after the stack belong to its first start."""
NEWS_FOR_S = 120.0
RESTARTING = "restarting"
HALTED = "halted"


def restarted(stack: "Stack | None", name: str) -> str:
    """What to say of the process of a part or a stage; "" where there is nothing to say."""
    part = _part(stack, name) if stack else None
    if stack is None or part is None:
        return ""
    if part.halted:
        return HALTED
    return manner(_began_at(part.pid), stack.started_at, time.time())


def why_halted(stack: "Stack | None", name: str) -> str:
    """What the process of a stage said last, where it halted; "" where it did not."""
    part = _part(stack, name) if stack else None
    return " ".join(part.halted.split()) if part else ""


def manner(began_at: float | None, stack_began_at: float, now: float) -> str:
    """From when a process began, in epoch seconds; None where there is none now."""
    if began_at is None:
        return RESTARTING
    if began_at - stack_began_at < FIRST_START_S or now - began_at > NEWS_FOR_S:
        return ""
    return f"restarted {duration(now - began_at)} ago"


def _part(stack: "Stack", name: str) -> "PartState | None":
    # One process may run several stages, and Kafka may be several nodes: the one with trouble tells.
    found = [
        part
        for key, part in stack.parts.items()
        if name in key.split("+") or key.startswith(f"{name}-")
    ]
    return min(found, key=lambda part: part.pid or 0, default=None)


def _began_at(pid: int | None) -> float | None:
    try:
        return psutil.Process(pid).create_time() if pid is not None else None
    except psutil.NoSuchProcess:
        return None
