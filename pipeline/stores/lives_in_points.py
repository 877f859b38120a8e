"""A tiering in, what it changes of a point out: where a memory stands, beside its state.

State and life are written by two hands. A state takes along the life that is there, and a life is set where the
state is still the one that was looked at; of a memory that was forgotten before this one it tells nothing.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from uuid import UUID

from pipeline.domain.identity import memory_key, user_key
from pipeline.domain.tiers import Standing, archived_until, is_archived, tier_at
from pipeline.stores.conditions import Below, Every, HasId, Is, Not, Present, Some
from pipeline.stores.payloads import held, watermark
from pipeline.stores.points import ARCHIVED, LIFE_FIELDS, MEMORY, Amendment, Payload, Point
from schemas.events import MemoryTiered, Tier


def with_life(point: Point, there: Payload | None) -> Point:
    """The point with the life of the memory that is `there`, if that is alive as this one is.

    One that is remembered anew knows up to where it was forgotten: a life of before is not its own.
    """
    if there is None or point.payload["kind"] != MEMORY:
        return point
    if there["kind"] != MEMORY:
        until = held(there).stamp.precedence
        return replace(point, payload=point.payload | {"forgotten_until": until})
    kept = {name: there[name] for name in ("forgotten_until", *LIFE_FIELDS) if name in there}
    if "life" in kept:
        kept["tier"] = _tier(kept, point.payload["precedence"])
    return replace(point, payload=point.payload | kept)


def amendment(told: MemoryTiered, key: UUID, there: Payload) -> Amendment:
    """What a tiering changes of the memory that is `there`, unless that has changed meanwhile."""
    life = lived_payload(told, there["precedence"])
    same = (Is(name, there[name]) for name in ("user_id", "kind", "precedence", "tie"))
    older = Some((Not(Present("life")), Below("life", told.version)))
    return Amendment(life, Every((HasId(key), *same, older)))


def lived_payload(told: MemoryTiered, precedence: int) -> Payload:
    """The LIFE_FIELDS of a memory whose newest state has this precedence."""
    life: Payload = {
        "life": told.version,
        "strength": told.strength,
        "recalled_at": _written(told.recalled_at),
        "medium_until": _written(told.medium_until),
        "long_until": _written(told.long_until),
        "archived_version": told.archived_version,
        "archived_precedence": archived_until(told),
        "consolidated": list(told.consolidated),
    }
    return life | {"tier": _tier(life, precedence)}


def unheard_of(
    told: Sequence[MemoryTiered], there: Mapping[UUID, Payload]
) -> Mapping[UUID, MemoryTiered]:
    """By memory key the newest tiering that the memory which is `there` has not heard of.

    `there` are the points of the memories and the watermarks of their users.
    """
    newest: dict[UUID, MemoryTiered] = {}
    for each in sorted(told, key=lambda each: each.version):
        key = memory_key(each.user_id, each.memory_id)
        mark = there.get(user_key(each.user_id))
        if _is_older_life(there.get(key), each) and not _is_of_another(there[key], mark, each):
            newest[key] = each
    return newest


def _is_older_life(there: Payload | None, told: MemoryTiered) -> bool:
    """Whether `there` is a living memory that has not heard of this tiering, nor of a newer one."""
    return there is not None and there["kind"] == MEMORY and there.get("life", 0) < told.version


def _is_of_another(there: Payload, mark: Payload | None, told: MemoryTiered) -> bool:
    """Whether the tiering is of the memory that was forgotten before this one came under its id."""
    until = there.get("forgotten_until")
    if told.of_precedence is None:
        # Nothing says whose it is.
        return until is not None
    went_with_user = mark is not None and abs(told.of_precedence) <= watermark(mark).version
    return went_with_user or (until is not None and told.of_precedence <= until)


def hides(there: Payload, told: MemoryTiered) -> bool:
    """Whether a tiering that is unheard of changes what a search may find: the memory is put away, or back."""
    archived = is_archived(archived_until(told), there["precedence"])
    return archived != (there.get("tier") == ARCHIVED)


def _tier(life: Payload, precedence: int) -> Tier:
    # A life from before there were precedences in it.
    until = life.get("archived_precedence", life.get("archived_version"))
    if is_archived(until, precedence):
        return ARCHIVED
    stood = standing_of(life)
    return stood.tier if stood else "short"


def tier_in(payload: Payload, now: datetime) -> Tier:
    """The tier at `now` of the memory that a point holds."""
    return ARCHIVED if payload.get("tier") == ARCHIVED else tier_at(*_ends(payload), now)


def standing_of(payload: Payload) -> Standing | None:
    """Where the memory stood when it was recalled last; None where it never was."""
    recalled_at = _read(payload.get("recalled_at"))
    if recalled_at is None:
        return None
    return Standing(tier_at(*_ends(payload), recalled_at), payload["strength"], recalled_at)


def _ends(payload: Payload) -> tuple[datetime | None, datetime | None]:
    """Until when it is at least of medium, and of long term."""
    return _read(payload.get("medium_until")), _read(payload.get("long_until"))


def _written(moment: datetime | None) -> str | None:
    return moment.isoformat(timespec="microseconds") if moment else None


def _read(moment: str | None) -> datetime | None:
    return datetime.fromisoformat(moment) if moment else None
