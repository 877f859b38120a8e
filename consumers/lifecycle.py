"""memory.recalled -> Postgres, memory.tiered: let memories rise that are asked for, and put away what is archived.

What an answer told of has been of use; what an operator prunes or consolidates is kept, out of sight.
Safe to repeat, in any order: a life is what was heard of a memory, not how often it was heard.
"""

from collections.abc import Sequence

from pipeline.domain.tiers import Tiers
from pipeline.ports import MemoryRecords
from pipeline.stage import Stage
from schemas.events import LIVED, Lived, MemoryTiered
from schemas.topics import RECALLED, TIERED


def stage(records: MemoryRecords, tiers: Tiers) -> Stage:
    """The lifecycle stage."""

    async def live(events: Sequence[Lived]) -> Sequence[MemoryTiered | tuple[()]]:
        return [told or () for told in await records.live(events, tiers)]

    return Stage(
        name="lifecycle",
        reads=RECALLED,
        writes=TIERED,
        decode=LIVED.validate_json,
        react=live,
    )
