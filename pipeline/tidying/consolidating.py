"""Archives what another memory of the same user says in the same words, and stands for wherever it is looked for.

"Approved" says something else in another conversation, or of another amount. Whatever a search is narrowed
by, but times, finds the one that stays where it would have found the others.
"""

import json
from collections.abc import Mapping, Sequence
from datetime import timedelta

from pipeline.domain.duplicates import Candidate, Group, apart, groups, says
from pipeline.domain.pruning import Worth
from pipeline.errors import Refused
from pipeline.ports import Belonging
from pipeline.tidying.looking import TEXT_CHARS, Tidied, Tools, archived, said_of
from schemas.events import Lived, MemoryConsolidated

MOST_OF_A_USER = 200_000
"""Memories of one user whose texts are compared: some 130 MB."""
_DAY = timedelta(days=1)

Mine = Mapping[str, tuple[Candidate, str]]
"""The memories of one user by their ids, each with the beginning of its text."""


async def consolidate(tools: Tools, tidied: Tidied, whose: str | None, within: timedelta) -> None:
    """Merges what was told `within` such a time, user by user: the record tells them in this order."""
    user_id: str | None = None
    mine: dict[str, tuple[Candidate, str]] = {}
    async for page in tools.pages(tidied, whose):
        for each in page:
            if each.user_id != user_id:
                await _merge(tools, tidied, user_id, mine, within)
                user_id, mine = each.user_id, {}
            if not (worth := tools.worth(each)).archived:
                mine[each.memory_id] = (_candidate(each, worth), each.text[:TEXT_CHARS])
            if len(mine) > MOST_OF_A_USER:
                raise Refused(f"{each.user_id} has more than {MOST_OF_A_USER:,} memories.")
    await _merge(tools, tidied, user_id, mine, within)


def _candidate(each: Belonging, worth: Worth) -> Candidate:
    return Candidate(
        each.memory_id,
        says(each.text, *_narrowed_by(each)),
        each.occurred_at,
        worth.strength,
        each.version,
        len(each.told.consolidated) if each.told else 0,
    )


def _narrowed_by(each: Belonging) -> Sequence[str | None]:
    metadata = json.dumps(dict(each.metadata), sort_keys=True)
    return each.speaker, each.agent_id, each.app_id, each.run_id, metadata


async def _merge(
    tools: Tools, tidied: Tidied, user_id: str | None, mine: Mine, within: timedelta
) -> None:
    if user_id is None:
        return
    candidates = [candidate for candidate, _ in mine.values()]
    near, ever = groups(candidates, within=within), groups(candidates, within=timedelta.max)
    more, furthest = apart(near, ever)
    tidied.apart += more
    tidied.apart_days = max(tidied.apart_days, -(-furthest // _DAY))
    for group in near:
        await tools.publish(_merged(user_id, group, tidied.batch))
        for each in group.others:
            tidied.add(
                "archived",
                user=user_id,
                memory_id=each.memory_id,
                text=mine[each.memory_id][1],
                into=group.survivor.memory_id,
                into_text=mine[group.survivor.memory_id][1],
            )


def _merged(user_id: str, group: Group, batch: str) -> Sequence[Lived]:
    survivor = group.survivor.memory_id
    return [
        *(
            archived(
                user_id,
                each.memory_id,
                each.version,
                batch=batch,
                reason="consolidated",
                into=survivor,
            )
            for each in group.others
        ),
        MemoryConsolidated(
            **said_of(user_id, survivor, 0),
            merged=tuple(each.memory_id for each in group.others),
        ),
    ]
