"""memory.tiered -> Qdrant: let searches see where memories stand.

A tiering is written beside the memory's state, by its own order, and never onto what was forgotten.
Safe to repeat: an older word on a memory than the index has changes nothing.
"""

from collections.abc import Sequence

from pipeline.ports import MemoryVectors
from pipeline.stage import Stage
from schemas.events import MemoryTiered
from schemas.topics import TIERED


def stage(vectors: MemoryVectors) -> Stage:
    """The tier writer stage."""

    async def write(told: Sequence[MemoryTiered]) -> Sequence[tuple[()]]:
        await vectors.tier(told)
        return [()] * len(told)

    return Stage(
        name="tier_writer",
        reads=TIERED,
        writes=None,
        decode=MemoryTiered.model_validate_json,
        react=write,
    )
