"""How a run says what must not be. The words are those of Kafka's checkers."""

from dataclasses import dataclass
from typing import Literal

Word = Literal["lost", "duplicated", "stale", "resurrected", "unseen"]
WORDS: tuple[Word, ...] = ("lost", "duplicated", "stale", "resurrected", "unseen")

MemoryName = tuple[str, str]
"""User and memory id."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that must not be."""

    word: Word
    where: str
    what: str


def named(name: MemoryName) -> str:
    """A memory as people are told of it."""
    return f"memory {name[1]} of {name[0]}"
