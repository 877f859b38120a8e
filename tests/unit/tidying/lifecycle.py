"""What is published is heard at once, by a record in memory."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from pipeline.domain.tiers import Tiers
from pipeline.stores.records_in_memory import RecordsInMemory
from pipeline.tidying.looking import Tools
from schemas.events import Lived

NOW = datetime.now(UTC)


@dataclass
class Lifecycle:
    """What is published is what the stage hears, at once."""

    records: RecordsInMemory
    heard: list[Lived] = field(default_factory=list[Lived])

    async def publish(self, _: object, events: Sequence[Lived]) -> None:
        self.heard += events
        await self.records.live(events, Tiers())


def tools(records: RecordsInMemory, *, dry: bool = False) -> Tools:
    publishing: Any = None if dry else Lifecycle(records)
    return Tools(records, publishing, Tiers(), NOW)


async def tier(records: RecordsInMemory, memory_id: str, user_id: str = "alice") -> str | None:
    memory = await records.get(user_id, memory_id)
    return memory.tier if memory else None
