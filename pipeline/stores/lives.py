"""A batch of events in, the lives to keep out: what the record decides, whichever keeps it.

A life is kept beside its memory and goes with it. What is heard of a memory that the record does not have
is not kept: it was forgotten, or its recall was faster than its writing, and the next one will do.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final
from uuid import UUID

from pydantic import TypeAdapter

from pipeline.domain.identity import memory_key
from pipeline.domain.tiers import Life, Tiers, lived, tiered
from schemas.events import Lived, MemoryTiered

LIFE: TypeAdapter[Life] = TypeAdapter(Life)
"""A life as JSON."""
_UNHEARD_OF: Final = Life()


@dataclass(frozen=True, slots=True)
class KeptLife:
    """A life, and what was told of it last."""

    life: Life
    told: MemoryTiered


@dataclass(frozen=True, slots=True)
class DecidedLives:
    """What a batch comes to: the lives to write, by memory key, and what to tell for each event."""

    writes: Mapping[UUID, KeptLife]
    told: Sequence[MemoryTiered | None]


def decide_lives(
    events: Sequence[Lived],
    known: Mapping[UUID, KeptLife],
    living: Mapping[UUID, int],
    tiers: Tiers,
) -> DecidedLives:
    """Decides what a batch comes to. `living` are the memories that there are, with their versions."""
    now = dict(known)
    writes: dict[UUID, KeptLife] = {}
    told: list[MemoryTiered | None] = []
    for event in events:
        key = memory_key(event.user_id, event.memory_id)
        if key not in living:
            told.append(None)
            continue
        before = now.get(key)
        life = lived(before.life if before else _UNHEARD_OF, event, tiers)
        if life is not (before.life if before else _UNHEARD_OF):
            now[key] = writes[key] = KeptLife(life, tiered(life, event, tiers))
        # What changes nothing is told again all the same: nobody knows whether it was, before a crash.
        told.append(now[key].told if key in now else None)
    return DecidedLives(writes, told)


def told_of(row: Any) -> MemoryTiered | None:
    """What was told of a life, as it is kept; None where there is none."""
    return MemoryTiered.model_validate_json(row) if row else None


def parted(kept: KeptLife, memory_id: str) -> KeptLife:
    """The life of a memory that stood for one that was forgotten."""
    merged = {id_: word for id_, word in kept.life.merged.items() if id_ != memory_id}
    named = tuple(id_ for id_ in kept.told.consolidated if id_ != memory_id)
    told = kept.told.model_copy(update={"consolidated": named})
    return KeptLife(replace(kept.life, merged=merged), told)
