"""What the record knows of the use of memories, told to the index once more.

An index that was made anew, or a memory that was put into it again, has no lives: they are kept beside the
memories, in the record. The guard of the index makes it harmless to tell them to who has them.
"""

from uuid import UUID

from pipeline.kafka.publishing import Publishing
from pipeline.ports import MemoryRecords, MemoryVectors
from pipeline.verifying.verifying import Progress
from schemas.topics import TIERED

PAGE = 500


async def fill_lives(records: MemoryRecords, fresh: MemoryVectors, on_progress: Progress) -> None:
    """Writes where all memories stand into a fresh index. Raises Unavailable."""
    after: UUID | None = None
    seen = 0
    while page := await records.lives(after, PAGE):
        after, seen = page[-1][0], seen + len(page)
        await fresh.tier([told for _, told in page])
        on_progress(after.int / 2**128, seen)
    on_progress(1.0, seen)


async def tell_lives(records: MemoryRecords, publishing: Publishing) -> None:
    """Publishes where all memories stand, for the tier writer. Raises Unavailable."""
    after: UUID | None = None
    while page := await records.lives(after, PAGE):
        after = page[-1][0]
        await publishing.publish(TIERED, [told for _, told in page])
