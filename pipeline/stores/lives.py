"""A batch of events in, the lives to keep out: what the record decides, whichever keeps it.

A life is kept beside its memory and goes with it. What is heard of a memory that the record does not have
is not kept: it was forgotten, or its recall was faster than its writing, and the next one will do.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Final
from uuid import UUID

from pydantic import TypeAdapter

from pipeline.domain.identity import memory_key
from pipeline.domain.tiers import (
    Life,
    Tiers,
    archived_until,
    is_archived,
    lived,
    tier_of,
    tiered,
)
from schemas.events import Lived, MemoryArchived, MemoryConsolidated, MemoryTiered

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
    """Decides what a batch comes to. `living` are the memories that there are, with the
    precedence of their states.

    Both hold what there is of the keys that `looked_at` names.
    """
    now = dict(known)
    writes: dict[UUID, KeptLife] = {}
    told: list[MemoryTiered | None] = []
    for event in events:
        key = memory_key(event.user_id, event.memory_id)
        changed = dict[UUID, KeptLife]()
        if key in living and (kept := _with(event, now, living, tiers)):
            changed[key] = kept
        changed |= _named_in_vain(event, now | changed, living)
        now |= changed
        writes |= changed
        # What changes nothing is told again all the same: nobody knows whether it was, before a crash.
        told.append(of_state(now[key].told, living[key]) if key in living and key in now else None)
    return DecidedLives(writes, told)


def _with(
    event: Lived, known: Mapping[UUID, KeptLife], living: Mapping[UUID, int], tiers: Tiers
) -> KeptLife | None:
    """The life of the event's memory with what it tells; None where that is nothing new."""
    if _comes_to_nothing(event, known, living):
        return None
    before = known.get(memory_key(event.user_id, event.memory_id))
    life = before.life if before else _UNHEARD_OF
    of = living[memory_key(event.user_id, event.memory_id)]
    after = lived(life, _still_so(event, known, living), tiers, of)
    return None if after is life else KeptLife(after, of_state(tiered(after, event, tiers), of))


def _named_in_vain(
    event: Lived, known: Mapping[UUID, KeptLife], living: Mapping[UUID, int]
) -> Mapping[UUID, KeptLife]:
    """The life of who was said to stand for a memory that is not put away for it after all.

    The two words lie in two partitions: what the second one finds may be gone, or away, since the first.
    """
    match event:
        case MemoryArchived(into=str(into), memory_id=memory_id):
            mine = memory_key(event.user_id, memory_id)
            survivor = memory_key(event.user_id, into)
            kept = known.get(survivor)
            if kept is None or memory_id not in kept.told.consolidated:
                return {}
            if mine in living and mine in known and known[mine].told.into == into:
                return {}
            # A parting of the same moment: the word that named it changes nothing when it is repeated.
            version, _ = kept.life.merged[memory_id]
            return {survivor: _standing_for(kept, memory_id, {memory_id: (version, False)})}
        case _:
            return {}


def told_of(row: Any) -> MemoryTiered | None:
    """What was told of a life, as it is kept; None where there is none."""
    return MemoryTiered.model_validate_json(row) if row else None


def of_state(told: MemoryTiered, precedence: int) -> MemoryTiered:
    """What is told of the life of a memory whose state has this `precedence`, which may have changed since."""
    return told.model_copy(update={"of_precedence": precedence})


def standing_of(told: MemoryTiered | None, precedence: int, now: datetime) -> dict[str, Any]:
    """How a memory whose newest state has this `precedence` stands at `now`: fields of a RecordedMemory."""
    tier = tier_of(told, precedence, now)
    if told is None:
        return {"tier": tier}
    into = told.into if tier == "archived" else None
    return {"tier": tier, "consolidated": told.consolidated, "into": into}


def looked_at(events: Sequence[Lived]) -> set[UUID]:
    """The keys of all memories that must be known to decide on the events."""
    named = {(event.user_id, event.memory_id) for event in events}
    for event in events:
        match event:
            case MemoryArchived(into=str(into)):
                named.add((event.user_id, into))
            case MemoryConsolidated():
                named.update((event.user_id, id_) for id_ in event.merged)
            case _:
                pass
    return {memory_key(*each) for each in named}


def _still_so(event: Lived, known: Mapping[UUID, KeptLife], living: Mapping[UUID, int]) -> Lived:
    """The event without whom it says that a memory stands for, as far as that came to nothing meanwhile."""
    match event:
        case MemoryConsolidated():
            stands = _in_sight(event.user_id, event.memory_id, known, living)
            merged = [id_ for id_ in event.merged if memory_key(event.user_id, id_) in living]
            return event.model_copy(update={"merged": tuple(merged) if stands else ()})
        case _:
            return event


def _comes_to_nothing(
    event: Lived, known: Mapping[UUID, KeptLife], living: Mapping[UUID, int]
) -> bool:
    """Whether it puts a memory away for another one that is itself forgotten or put away by now."""
    match event:
        case MemoryArchived(into=str(into)):
            return not _in_sight(event.user_id, into, known, living)
        case _:
            return False


def _in_sight(
    user_id: str, memory_id: str, known: Mapping[UUID, KeptLife], living: Mapping[UUID, int]
) -> bool:
    key = memory_key(user_id, memory_id)
    archived = archived_until(known[key].told) if key in known else None
    return key in living and not is_archived(archived, living[key])


def touched_by(gone: Sequence[KeptLife]) -> set[UUID]:
    """The keys of those that stood for what was forgotten, and of those that it stood for."""
    return {
        memory_key(each.told.user_id, id_)
        for each in gone
        for id_ in (each.told.into or "", *each.told.consolidated)
    }


def inherited(gone: Sequence[KeptLife], known: Mapping[UUID, KeptLife]) -> Mapping[UUID, KeptLife]:
    """The lives that change with those that were forgotten and were archived `into` another memory.

    Nobody stands for what is gone; who stood for it stands for those that it stood for.
    """
    now = dict(known)
    names = {(each.told.user_id, each.told.memory_id) for each in gone}
    for each in gone:
        user_id, memory_id, into = each.told.user_id, each.told.memory_id, each.told.into or ""
        heir = now.get(memory_key(user_id, into))
        if heir is None:
            continue
        words = {
            id_: word
            for id_, word in each.life.merged.items()
            if word[1] and id_ != into and (user_id, id_) not in names
        }
        now[memory_key(user_id, into)] = _standing_for(heir, memory_id, words)
        for key in [memory_key(user_id, id_) for id_ in words]:
            if key in now and now[key].told.into == memory_id:
                now[key] = _moved(now[key], into)
    return {key: kept for key, kept in now.items() if kept is not known[key]}


def _standing_for(kept: KeptLife, gone: str, instead: Mapping[str, tuple[int, bool]]) -> KeptLife:
    merged = {id_: word for id_, word in kept.life.merged.items() if id_ != gone}
    for id_, word in instead.items():
        merged[id_] = max(word, merged.get(id_, word), key=lambda each: (each[0], not each[1]))
    named = tuple(sorted(id_ for id_, (_, stands) in merged.items() if stands))
    told = kept.told.model_copy(update={"consolidated": named})
    return KeptLife(replace(kept.life, merged=merged), told)


def _moved(kept: KeptLife, into: str) -> KeptLife:
    mark = replace(kept.life.mark, into=into) if kept.life.mark else None
    return KeptLife(replace(kept.life, mark=mark), kept.told.model_copy(update={"into": into}))
