"""The states that memories had at a moment, of those that have changed since."""


def _past(whose: str) -> str:
    """The states that memories had at version $1, of those that have changed since."""
    return f"""
select
    memories.user_id, memories.memory_id, memories.precedence as newest, lives.told, past.*
from memories
cross join lateral (
    select
        event_id, version, published_at, precedence, text, occurred_at, speaker, agent_id, app_id,
        run_id, metadata
    from memory_states state
    where state.key = memories.key and state.version <= $1
    order by state.precedence desc, state.tie desc
    limit 1
) as past
left join memory_lives lives on lives.key = memories.key
where {whose} and memories.version > $1 and not memories.forgotten and past.text is not null
    and not exists (
        select from forgotten_users mark
        where mark.user_id = memories.user_id and mark.version >= past.version
    )
"""  # noqa: S608


# Up to the one with which all of them have more than $4 bytes.
PAST = f"""
select * from (
    select
        past.*, own.bytes, sum(own.bytes) over (order by past.memory_id rows unbounded preceding) as said
    from ({_past("memories.user_id = $2")} order by memories.memory_id limit $3) as past
    cross join lateral (
        select octet_length(text) + coalesce(octet_length(metadata::text), 0) as bytes
    ) as own
) as past
where said - bytes <= $4
order by memory_id
"""  # noqa: S608

PAST_OF = _past("memories.key = $2")

NEWER = """
select count(*) from (
    select from memories where user_id = $2 and version > $1 and not forgotten limit $3
) as newer
"""
