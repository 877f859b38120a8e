"""Why Mem0 cannot be looked at, in the words of the poller of the stack that runs here.

The poller tells on Kafka what it has seen, and nothing of what it could not see: that is in its log alone.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.cli.printing import on_one_line

if TYPE_CHECKING:
    from pipeline.embedded.state import PartState, Stack

MOST_LINES = 100


@dataclass(frozen=True)
class Trouble:
    """What the poller said last, where that is why it tries again."""

    at: datetime
    reason: str


def trouble_of(lines: Sequence[str]) -> Trouble | None:
    """What its newest line says; None where that is no failure, or it says nothing any more."""
    from pipeline.embedded.logged import logged
    from pipeline.sources.mem0_api import WAITING
    from producers.mem0_poller import TRIED_AGAIN

    said = next((told for line in reversed(lines) if (told := logged(line))), None)
    if said is None or said.event not in {WAITING, TRIED_AGAIN}:
        return None
    return Trouble(said.at, on_one_line(said.reason).rstrip("."))


def trouble(stack: "Stack | None") -> Trouble | None:
    """Why the last look at Mem0 failed; None where it did not, or nobody knows."""
    from pipeline.embedded.process import tail

    poller = poller_of(stack)
    if stack is None or poller is None or poller.pid is None:
        return None
    return trouble_of(tail(log_of(stack), lines=MOST_LINES).splitlines())


def poller_of(stack: "Stack | None") -> "PartState | None":
    """The poller of a stack; None where it has none."""
    return stack.parts.get("mem0") if stack else None


def log_of(stack: "Stack") -> Path:
    """Where the poller writes what it does."""
    return stack.data / "logs" / "mem0.log"
