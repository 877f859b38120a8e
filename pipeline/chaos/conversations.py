"""What every memory of a conversation has heard in the end, against what stands beside it. Pure.

A memory is understood by up to two texts on either side. Those that follow come late: a notice that nobody
took up leaves it where it was, and no count and no content hash tells. So what is beside each memory is
worked out here anew, from what the record holds, and must be what its vectors were made with.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from uuid import UUID

from pipeline.chaos.finding import Finding, MemoryName, named
from pipeline.domain.identity import context_hash
from schemas.events import Said

_BESIDE = 2
"""Texts on each side."""


@dataclass(frozen=True, slots=True)
class Turn:
    """One living memory of a conversation, as the record holds it."""

    name: MemoryName
    run_id: str
    said: Said
    version: int
    event_id: UUID
    heard: str | None
    """The hash of the texts on both sides that its vectors were made with, by the record."""
    context: int
    """Which reading of its conversation the record has."""


Reading = tuple[UUID, int]
"""Event and context: one making of a memory's vectors."""


@dataclass(frozen=True)
class Talk:
    """Everything that was read of conversations at the end."""

    turns: Sequence[Turn] = ()
    in_index: Mapping[MemoryName, int] = field(default_factory=dict[MemoryName, int])
    """Which reading the index has of each memory."""
    readings: Mapping[Reading, set[str]] = field(default_factory=dict[Reading, set[str]])
    """What was heard in each, as the log of vectors tells."""


def unheard(talk: Talk) -> Iterable[Finding]:
    """Memories that have heard something else than what stands beside them, by store."""
    conversations: dict[tuple[str, str], list[Turn]] = defaultdict(list)
    for turn in talk.turns:
        conversations[turn.name[0], turn.run_id].append(turn)
    for turns in conversations.values():
        turns.sort(key=_place)
        for place, turn in enumerate(turns):
            before = turns[max(0, place - _BESIDE) : place]
            after = turns[place + 1 : place + 1 + _BESIDE]
            beside = context_hash([t.said for t in before], [t.said for t in after])
            yield from _unheard(turn, beside, talk)


def _unheard(turn: Turn, beside: str, talk: Talk) -> Iterable[Finding]:
    if turn.heard != beside:
        yield Finding("stale", "record", f"{named(turn.name)} has not heard what is beside it")
    # A memory that the index lacks is found to be lost by who compares contents.
    held = talk.in_index.get(turn.name, turn.context)
    if held != turn.context or beside not in talk.readings.get((turn.event_id, held), ()):
        yield Finding("stale", "index", f"{named(turn.name)} has not heard what is beside it")


def _place(turn: Turn) -> tuple[object, ...]:
    return (turn.said.occurred_at, turn.version, turn.name[1])
