"""Where a memory's time goes between its publishing and its being found: heard on memory.stored."""

import asyncio
from collections.abc import AsyncGenerator, Collection, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from statistics import median
from typing import TYPE_CHECKING
from uuid import UUID

if TYPE_CHECKING:
    from pipeline.kafka.connection import KafkaConnection
    from schemas.events import Event

STEPS = (
    ("classifier", None),
    ("embedder", "classifier"),
    ("record_writer", "embedder"),
    ("vector_writer", "embedder"),
)
"""Each stage, and the one before it; None is the publisher."""


@dataclass
class Heard:
    """The moments at which each event left the publisher and each stage."""

    moments: dict[UUID, dict[str | None, datetime]] = field(
        default_factory=dict[UUID, dict[str | None, datetime]]
    )
    users: dict[UUID, str] = field(default_factory=dict[UUID, str])
    taken: set[UUID] = field(default_factory=set[UUID])
    """Events that were told of: `stored` leaves them out."""

    def stored(self, users: Collection[str | None]) -> Sequence[UUID]:
        """The events of these users that both stores have done with."""
        writers = {"record_writer", "vector_writer"}
        return [
            event_id
            for event_id, passed in self.moments.items()
            if writers <= passed.keys()
            and self.users[event_id] in users
            and event_id not in self.taken
        ]

    def medians_ms(self, event_ids: Sequence[UUID]) -> dict[str, float]:
        """The median time of each stage over these events; `searchable` is from first to last."""
        passed = [self.moments[event_id] for event_id in event_ids if event_id in self.moments]
        steps = {
            stage: [_ms(moments, before, stage) for moments in passed if stage in moments]
            for stage, before in STEPS
        }
        steps["searchable"] = [_ms(m, None, max(m, key=lambda stage: m[stage])) for m in passed]
        return {stage: median(times) for stage, times in steps.items() if times}


def _ms(moments: Mapping[str | None, datetime], before: str | None, stage: str | None) -> float:
    return (moments[stage] - moments[before]).total_seconds() * 1_000


@asynccontextmanager
async def hearing(connection: "KafkaConnection", prefix: str) -> AsyncGenerator[Heard]:
    """Listens to what is published from now on, to the end of the block."""
    from pipeline.ending import cancelled
    from pipeline.kafka.following import following
    from schemas.topics import STORED

    heard, since = Heard(), datetime.now(UTC)
    async with following(connection, STORED.under(prefix)) as consumer:
        listening = asyncio.create_task(_hear(consumer, heard, since))
        try:
            yield heard
        finally:
            await cancelled(listening)


async def _hear(consumer: object, heard: Heard, since: datetime) -> None:
    from aiokafka import AIOKafkaConsumer

    from pipeline.kafka.following import records
    from schemas.events import STORED, Event

    assert isinstance(consumer, AIOKafkaConsumer)
    async for record in records(consumer, commit=False):
        with suppress(ValueError):
            notice = STORED.validate_json(record.value or b"")
            if isinstance(notice, Event) and _is_new(notice, since):
                moments = heard.moments.setdefault(notice.event_id, {None: notice.published_at})
                moments.update(notice.hops)
                heard.users[notice.event_id] = notice.user_id


def _is_new(notice: "Event", since: datetime) -> bool:
    # A memory that comes once more, as its conversation went on, was searchable before; so was what was
    # published earlier, and is told again.
    return notice.published_at >= since and not getattr(notice, "context", 0)
