"""The record, page by page -> memory.recalled: what is to happen to its memories; the stages do it.

What was looked at and what was found goes into a `Tidied`; a dry run finds the same and publishes nothing.
"""

import time
from collections import Counter
from collections.abc import AsyncGenerator, Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Literal
from uuid import uuid4

from pipeline.domain.pruning import Worth, worth
from pipeline.domain.tiers import Tiers
from pipeline.kafka.publishing import Publishing
from pipeline.ports import Belonging, MemoryRecords
from schemas.events import Lived, MemoryArchived
from schemas.topics import RECALLED

PAGE = 500
TEXT_CHARS = 200
"""How much of a text is kept to be told."""


@dataclass
class Tidied:
    """What was, or would be, put away or brought back."""

    batch: str
    keep: int
    """How many are told one by one; the others are only counted."""
    looked_at: int = 0
    counts: Counter[str] = field(default_factory=Counter[str])
    told: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])
    apart: int = 0
    """That say the same, too, but were told further apart in time than is merged."""
    apart_days: int = 0
    """Within so many days all of them were told."""

    def add(self, what: str, **told: Any) -> None:
        """Counts one, and keeps the first of them."""
        self.counts[what] += 1
        if len(self.told) < self.keep:
            self.told.append(told)


@dataclass(frozen=True)
class Tools:
    """What who tidies up works with."""

    records: MemoryRecords
    publishing: Publishing | None
    """None for a dry run."""
    tiers: Tiers
    now: datetime
    on_progress: Callable[[float, int], object] = lambda _share, _seen: None
    """Is told the share of the way that is done, and how many memories were looked at."""

    async def pages(self, tidied: Tidied, whose: str | None) -> AsyncGenerator[Sequence[Belonging]]:
        """All memories of a user, with None of everybody, a page in memory at a time."""
        after: tuple[str, str] | None = None
        total = max(1, await self.records.count(whose))
        while page := await self.records.belongings(whose, after, PAGE):
            after = (page[-1].user_id, page[-1].memory_id)
            tidied.looked_at += len(page)
            yield page
            self.on_progress(min(1.0, tidied.looked_at / total), tidied.looked_at)

    async def publish(self, events: Sequence[Lived]) -> None:
        """Publishes what is to happen, unless it is a dry run."""
        if self.publishing is not None and events:
            await self.publishing.publish(RECALLED, events)

    def worth(self, each: Belonging) -> Worth:
        """What a memory is worth now."""
        return worth(
            each.told,
            importance=each.importance,
            precedence=each.precedence,
            published_at=each.published_at,
            now=self.now,
            tiers=self.tiers,
        )


def archived(
    user_id: str,
    memory_id: str,
    version: int,
    *,
    batch: str,
    reason: Literal["pruned", "consolidated"],
    into: str | None = None,
) -> MemoryArchived:
    """The state of that version is put away; what was said of the memory since is not."""
    fields = said_of(user_id, memory_id, version)
    return MemoryArchived(**fields, of_version=version, reason=reason, batch=batch, into=into)


def said_of(user_id: str, memory_id: str, after: int) -> dict[str, Any]:
    """What every event carries; later than `after`, should the publishers' clocks be ahead."""
    now = time.time_ns() // 1_000
    return {
        "event_id": uuid4(),
        "user_id": user_id,
        "memory_id": memory_id,
        "version": max(now, after + 1),
        "published_at": datetime.now(UTC),
    }
