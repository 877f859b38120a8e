"""What several statements share: who is alive, what is known of a memory, who stands beside it."""

from typing import Literal

from pipeline.domain.versions import erased
from pipeline.stores.states import MOST_NEIGHBOURS
from schemas.events import MOST_BESIDE

GONE_TIE = erased(1).stamp.tie
MEMORIES = """
memories left join forgotten_users mark
    on mark.user_id = memories.user_id and mark.version >= memories.version
"""
LIVING = "not memories.forgotten and mark.version is null"


def beside(memory: str, side: Literal["before", "after"], columns: str) -> str:
    """The two memories of the same conversation that are nearest to one, on one side of it; nearest first."""
    comparison, order = ("<", "desc") if side == "before" else (">", "asc")
    return f"""
select {columns} from memories other
where other.user_id = {memory}.user_id and other.run_id = {memory}.run_id
    and other.run_id is not null and not other.forgotten
    and (other.occurred_at, other.version, other.memory_id)
        {comparison} ({memory}.occurred_at, {memory}.version, {memory}.memory_id)
    and not exists (
        select from forgotten_users gone
        where gone.user_id = other.user_id and gone.version >= other.version
    )
order by other.occurred_at {order}, other.version {order}, other.memory_id {order}
limit {MOST_BESIDE}
"""  # noqa: S608


def kept(neighbours: str) -> str:
    """Each once, the last ones: who goes from place to place leaves ever more behind."""
    return f"""(
    select array_agg(key order by place) from (
        select key, max(place) as place
        from unnest({neighbours}) with ordinality as beside (key, place)
        group by key order by max(place) desc limit {MOST_NEIGHBOURS}
    ) as last
)"""  # noqa: S608


KNOWN_COLUMNS = f"""
    memories.key,
    coalesce(mark.version, memories.precedence) as precedence,
    case when mark.version is null then memories.tie else {GONE_TIE} end as tie,
    memories.forgotten or mark.version is not null as forgotten
"""

KNOWN = f"select {KNOWN_COLUMNS} from {MEMORIES} where memories.key = any($1::uuid[])"  # noqa: S608

WATERMARKS = """
select user_id, version, event_id, published_at, erased_until from forgotten_users
where user_id = any($1::text[])
"""
