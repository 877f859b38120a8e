"""memory.enriched -> Qdrant, memory.stored: make each memory findable.

Points are written durably before the offset is committed, and the newest version of each memory wins.
Safe to repeat: an event that is already there changes nothing.
"""

from collections.abc import Sequence

from pipeline.domain.receipts import done
from pipeline.ports import MemoryVectors
from pipeline.stage import Stage
from schemas.events import ENRICHED as ENRICHED_EVENTS
from schemas.events import Enriched, Stored
from schemas.topics import ENRICHED, STORED


def stage(vectors: MemoryVectors) -> Stage:
    """The vector writer stage."""

    async def write(changes: Sequence[Enriched]) -> Sequence[Stored]:
        outcomes = await vectors.write(changes)
        return [
            done(change, "index", outcome)
            for change, outcome in zip(changes, outcomes, strict=True)
        ]

    return Stage(
        name="vector_writer",
        reads=ENRICHED,
        writes=STORED,
        decode=ENRICHED_EVENTS.validate_json,
        react=write,
    )
