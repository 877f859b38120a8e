"""memory.enriched -> Postgres, memory.stored: keep the record.

One statement for many memories, and the newest version of each wins.
Safe to repeat: an event that is already there changes nothing.
"""

from collections.abc import Sequence

from pipeline.domain.receipts import done
from pipeline.ports import MemoryRecords
from pipeline.stage import Stage
from schemas.events import ENRICHED as ENRICHED_EVENTS
from schemas.events import Enriched, Stored
from schemas.topics import ENRICHED, STORED


def stage(records: MemoryRecords) -> Stage:
    """The record writer stage."""

    async def write(changes: Sequence[Enriched]) -> Sequence[Stored]:
        outcomes = await records.write(changes)
        return [
            done(change, "record", outcome)
            for change, outcome in zip(changes, outcomes, strict=True)
        ]

    return Stage(
        name="record_writer",
        reads=ENRICHED,
        writes=STORED,
        decode=ENRICHED_EVENTS.validate_json,
        react=write,
    )
