"""Brings back what was archived, and parts it from what stood for it."""

from collections.abc import Callable

from pipeline.ports import Belonging
from pipeline.tidying.looking import TEXT_CHARS, Tidied, Tools, said_of
from schemas.events import Lived, MemoryConsolidated, MemoryRestored


async def restore(
    tools: Tools, tidied: Tidied, whose: str | None, wanted: Callable[[Belonging], bool]
) -> None:
    """Brings back what is `wanted` of a user's memories, with None of everybody's."""
    async for page in tools.pages(tidied, whose):
        events: list[Lived] = []
        for each in filter(wanted, page):
            # Later than the word that archived it, which a clock that is ahead may have said.
            heard = max(each.told.version if each.told else 0, each.version + 1)
            if each.told and each.told.into:
                # Also where it was said anew, and is in sight by that.
                fields = said_of(each.user_id, each.told.into, heard)
                events.append(MemoryConsolidated(**fields, parted=(each.memory_id,)))
            if named := await _named_in_vain(tools, each):
                fields = said_of(each.user_id, each.memory_id, heard)
                events.append(MemoryConsolidated(**fields, parted=named))
            if not tools.worth(each).archived:
                continue
            events.append(MemoryRestored(**said_of(each.user_id, each.memory_id, heard)))
            tidied.add(
                "restored",
                user=each.user_id,
                memory_id=each.memory_id,
                text=each.text[:TEXT_CHARS],
            )
        await tools.publish(events)


async def _named_in_vain(tools: Tools, survivor: Belonging) -> tuple[str, ...]:
    """Whom the memory is said to stand for, though they are in sight, forgotten, or put away otherwise."""
    named = survivor.told.consolidated if survivor.told else ()
    there = [(id_, await tools.records.get(survivor.user_id, id_)) for id_ in named]
    return tuple(
        id_ for id_, memory in there if memory is None or memory.into != survivor.memory_id
    )
