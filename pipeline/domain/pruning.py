"""Which memories may be put away: what was never important, has faded, and was not used for long.

All three must hold. What somebody asks for stays, and so does what was important when it was told. Nothing
is deleted: what is put away is archived, and can be brought back.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta

from pipeline.domain.tiers import Tiers, archived_until, is_archived, stood, strength_at
from schemas.events import MemoryTiered


@dataclass(frozen=True, slots=True)
class Rule:
    """How little a memory must be worth, and how long unused."""

    below: float
    """Importance and strength must both be less; 0 to 1."""
    unused_for: timedelta
    """Since it was last recalled, and since its newest state was published."""


@dataclass(frozen=True, slots=True)
class Worth:
    """What a memory is worth at a moment."""

    importance: float
    strength: float
    unused: timedelta
    archived: bool


def worth(
    told: MemoryTiered | None,
    *,
    importance: float,
    precedence: int,
    published_at: datetime,
    now: datetime,
    tiers: Tiers,
) -> Worth:
    """What a memory is worth at `now`; `precedence` and `published_at` are those of its newest state."""
    last = stood(told) if told else None
    used_at = max(published_at, last.at) if last else published_at
    archived = told is not None and is_archived(archived_until(told), precedence)
    return Worth(importance, strength_at(last, now, tiers), now - used_at, archived)


def may_go(worth: Worth, rule: Rule) -> bool:
    """Whether the memory may be put away."""
    worthless = worth.importance < rule.below and worth.strength < rule.below
    return worthless and worth.unused >= rule.unused_for and not worth.archived
