"""Recalls -> tiers: what is asked for rises, what is never used fades.

A memory's strength grows halfway to 1 with each use and halves in a time that its tier sets, after the
forgetting curve as MemoryBank has it (Zhong et al. 2023, arXiv:2305.10250): recalled at intervals it
climbs from short to medium to long term and fades ever more slowly. A tier is left at a lower strength
than it was reached at, so that a memory does not flicker between two.

A life is kept as what was heard of it, not as a sum: the clock hours in which the memory was of use, and the
newest word on whether it is archived. So hearing something twice is hearing it once, and the order does not
matter. Uses within one hour count once: asking again is no second use. Beyond RECENT hours of use the
oldest are settled into a standing, and what is even older and comes late is not counted.

Nothing has to sweep: how strong a memory is, and in which tier, follows from the moment one looks.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from datetime import UTC, datetime, timedelta
from math import isfinite, log2
from typing import Final, assert_never
from uuid import UUID, uuid5

from pipeline.domain.clock import version_at
from schemas.events import (
    Lived,
    LivingTier,
    MemoryArchived,
    MemoryConsolidated,
    MemoryRecalled,
    MemoryRestored,
    MemoryTiered,
    Tier,
)

RECENT: Final = 24
"""Hours of use that are kept apart: so much later an event may come and still count in its place."""
RISES: Final[Mapping[LivingTier, tuple[float, LivingTier]]] = {
    "short": (0.6, "medium"),
    "medium": (0.8, "long"),
}
"""How strong a use must leave a memory to lift it: twice within nine days, then weekly for some weeks."""
FALLS: Final[Mapping[LivingTier, tuple[float, LivingTier]]] = {
    "long": (0.4, "medium"),
    "medium": (0.3, "short"),
}
"""At which strength it falls, unused."""
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_HOUR: Final = timedelta(hours=1)


@dataclass(frozen=True, slots=True)
class Tiers:
    """How fast memories fade, and how much of an answer counts as used."""

    short_half_life_days: float = 7.0
    medium_half_life_days: float = 30.0
    long_half_life_days: float = 180.0
    recalled_hits: int = 3
    """Hits of an answer that count as recalled, the best ones; 0 tells of no recalls, and nothing rises."""

    def __post_init__(self) -> None:
        halves = [getattr(self, each.name) for each in fields(self)][:3]
        if not all(isfinite(half) and half > 0 for half in halves):
            raise ValueError("half-lives are more than 0 days")
        if not 0 <= self.recalled_hits <= 10:
            raise ValueError("recalled_hits is 0 to 10")

    def half_life(self, tier: LivingTier) -> timedelta:
        """In which a memory of this tier loses half of its strength."""
        return timedelta(days=getattr(self, f"{tier}_half_life_days"))


@dataclass(frozen=True, slots=True)
class Standing:
    """Where a memory stood at a moment."""

    tier: LivingTier = "short"
    strength: float = 0.0
    """0 to 1."""
    at: datetime = _EPOCH


@dataclass(frozen=True, slots=True)
class Mark:
    """The newest word on whether a memory is archived."""

    version: int
    event_id: UUID
    archived: bool
    reason: str = ""
    into: str | None = None
    """The memory that stands for it."""
    batch: str | None = None
    """What it was archived with."""
    of_version: int | None = None
    """Of the state that was archived; later ones are not. `version` unless given."""
    of_precedence: int | None = None
    """The same, where it is known whether that state yields to any other."""

    @property
    def place(self) -> tuple[int, int]:
        return (self.version, self.event_id.int)


@dataclass(frozen=True, slots=True)
class Life:
    """What was heard of the use of one memory."""

    version: int = 0
    """Orders the states of a life; the greatest is the newest."""
    settled: Standing = Standing()
    """Before the `uses`."""
    uses: tuple[int, ...] = ()
    """Clock hours since 1970, ascending, each once."""
    mark: Mark | None = None
    merged: Mapping[str, tuple[int, bool]] = field(default_factory=dict[str, tuple[int, bool]])
    """Memories that this one stands for: by id the newest word on it, and whether it still does."""


def hour_of(moment: datetime) -> int:
    """The clock hour, counted since 1970."""
    return (moment - _EPOCH) // _HOUR


def faded(standing: Standing, now: datetime, tiers: Tiers) -> Standing:
    """Where it stands at `now` without further use; an earlier `now` changes nothing."""
    while now > standing.at:
        ends = _falls_at(standing, tiers)
        if ends is None or ends > now:
            passed = (now - standing.at) / tiers.half_life(standing.tier)
            return Standing(standing.tier, standing.strength * 0.5**passed, now)
        floor, below = FALLS[standing.tier]
        standing = Standing(below, min(standing.strength, floor), max(ends, standing.at))
    return standing


def _falls_at(standing: Standing, tiers: Tiers) -> datetime | None:
    """When it falls into the tier below; None where there is none."""
    if standing.tier not in FALLS:
        return None
    floor, _ = FALLS[standing.tier]
    if standing.strength <= floor:
        return standing.at
    return standing.at + tiers.half_life(standing.tier) * log2(standing.strength / floor)


def used(standing: Standing, at: datetime, tiers: Tiers) -> Standing:
    """Where it stands after a use."""
    before = faded(standing, at, tiers)
    strength = before.strength + (1 - before.strength) / 2
    tier = before.tier
    if tier in RISES and strength >= RISES[tier][0]:
        tier = RISES[tier][1]
    return Standing(tier, strength, at)


def standing(life: Life, tiers: Tiers) -> Standing:
    """Where the memory stood at its latest use."""
    last = life.settled
    for hour in life.uses:
        last = used(last, _EPOCH + hour * _HOUR, tiers)
    return last


def until(stood: Standing, tiers: Tiers) -> tuple[datetime | None, datetime | None]:
    """Until when it is at least of medium, and of long term; None for never."""
    long = _falls_at(stood, tiers) if stood.tier == "long" else None
    medium = _falls_at(faded(stood, long, tiers) if long else stood, tiers)
    return medium, long


def tier_at(
    medium_until: datetime | None, long_until: datetime | None, now: datetime
) -> LivingTier:
    """The tier at `now` of a memory that is not archived."""
    if long_until is not None and now < long_until:
        return "long"
    return "medium" if medium_until is not None and now < medium_until else "short"


def heard(life: Life, event: Lived, tiers: Tiers, precedence: int | None = None) -> Life:
    """The life with what the event tells. The same life where it tells nothing new.

    `precedence` is that of the state that there is.
    """
    match event:
        case MemoryRecalled():
            return _recalled(life, hour_of(event.at), tiers)
        case MemoryArchived():
            why = (event.reason, event.into, event.batch)
            which = (event.of_version, _archived_until(event, precedence))
            return _marked(life, Mark(event.version, event.event_id, True, *why, *which))
        case MemoryRestored():
            return _marked(life, Mark(event.version, event.event_id, archived=False))
        case MemoryConsolidated():
            return _merged(life, event)
        case _:
            assert_never(event)


def _archived_until(event: MemoryArchived, precedence: int | None) -> int:
    """The greatest precedence of a state that the word puts away."""
    if event.of_version is None:
        return event.version
    if precedence is None or event.of_version <= precedence:
        return event.of_version
    # A greater version than that of the state that there is, or which came since and won: it yields.
    return -event.of_version


def _recalled(life: Life, hour: int, tiers: Tiers) -> Life:
    if hour in life.uses or _EPOCH + hour * _HOUR <= life.settled.at:
        return life
    uses = sorted((*life.uses, hour))
    settled = life.settled
    while len(uses) > RECENT:
        settled = used(settled, _EPOCH + uses.pop(0) * _HOUR, tiers)
    return replace(life, uses=tuple(uses), settled=settled)


def _marked(life: Life, mark: Mark) -> Life:
    if life.mark is not None and mark.place <= life.mark.place:
        return life
    return replace(life, mark=mark)


def _merged(life: Life, event: MemoryConsolidated) -> Life:
    merged = dict(life.merged)
    for ids, stands in ((event.merged, True), (event.parted, False)):
        for memory_id in ids:
            # Of two words of one moment the parting wins: nothing is said to stand for what it may not.
            word = (event.version, stands)
            known = merged.get(memory_id, (0, False))
            if (word[0], not stands) > (known[0], not known[1]):
                merged[memory_id] = word
    return life if merged == life.merged else replace(life, merged=merged)


def tiered(life: Life, event: Lived, tiers: Tiers) -> MemoryTiered:
    """What is told of a life that `event` has changed."""
    stood = standing(life, tiers)
    medium, long = until(stood, tiers)
    mark = life.mark if life.mark and life.mark.archived else None
    return MemoryTiered(
        type="MemoryTiered",
        event_id=uuid5(event.event_id, str(life.version)),
        user_id=event.user_id,
        memory_id=event.memory_id,
        version=life.version,
        published_at=event.published_at,
        tier="archived" if mark else stood.tier,
        strength=round(stood.strength, 6),
        recalled_at=stood.at if stood.strength else None,
        medium_until=medium,
        long_until=long,
        archived_version=(mark.of_version or mark.version) if mark else None,
        archived_precedence=mark.of_precedence if mark else None,
        reason=_reason(event),
        into=mark.into if mark else None,
        batch=mark.batch if mark else None,
        consolidated=tuple(sorted(id_ for id_, (_, stands) in life.merged.items() if stands)),
    )


def _reason(event: Lived) -> str:
    match event:
        case MemoryArchived():
            return event.reason
        case MemoryRecalled():
            return "recalled"
        case MemoryRestored():
            return "restored"
        case MemoryConsolidated():
            return "consolidated"
        case _:
            assert_never(event)


def lived(life: Life, event: Lived, tiers: Tiers, precedence: int | None = None) -> Life:
    """The life after the event, its version raised where that changed anything. Otherwise as `heard`."""
    after = heard(life, event, tiers, precedence)
    if after is life:
        return life
    # The event's time and no clock of ours: repeating it gives the same.
    return replace(after, version=max(life.version + 1, version_at(event.published_at)))


def archived_until(told: MemoryTiered) -> int | None:
    """The greatest precedence of a state that is archived; None where none is."""
    return told.archived_version if told.archived_precedence is None else told.archived_precedence


def is_archived(until: int | None, precedence: int) -> bool:
    """Whether a memory whose newest state has this `precedence` is archived; `until` as `archived_until`.

    What was said anew after it was archived is no old memory any more. Which of two states is newer the
    stamps say, and not the versions alone: a plain one wins over one that yields, whatever their clocks.
    """
    return until is not None and until >= precedence


def tier_of(told: MemoryTiered | None, precedence: int, now: datetime) -> Tier:
    """The tier at `now` of a memory whose newest state has this `precedence`."""
    if told is None:
        return "short"
    if is_archived(archived_until(told), precedence):
        return "archived"
    return tier_at(told.medium_until, told.long_until, now)


def strength_at(stood: Standing | None, now: datetime, tiers: Tiers) -> float:
    """How strong a memory is at `now`; 0 where it was never recalled."""
    return faded(stood, now, tiers).strength if stood else 0.0


def stood(told: MemoryTiered) -> Standing | None:
    """Where the memory stood at its latest use, as it was told; None where it was never recalled."""
    if told.recalled_at is None:
        return None
    return Standing(
        tier_at(told.medium_until, told.long_until, told.recalled_at),
        told.strength,
        told.recalled_at,
    )
