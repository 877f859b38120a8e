"""What the record is asked: states, counts, fingerprints, and what is told of a memory once more."""

from pipeline.stores.sql.parts import KNOWN_COLUMNS, LIVING, MEMORIES, beside

_TOLD = "other.text, other.speaker, other.occurred_at, other.version, other.memory_id"
_IN_ITS_CONVERSATION = f"""
left join lateral (
    select jsonb_agg(said order by said.occurred_at, said.version, said.memory_id) as preceding
    from ({beside("memories", "before", _TOLD)}) as said
    where coalesce(memories.preceding, '[]') = '[]'
) as before on true
left join lateral (
    select jsonb_agg(said order by said.occurred_at, said.version, said.memory_id) as following
    from ({beside("memories", "after", _TOLD)}) as said
) as after on true
"""  # noqa: S608
_STATE = """
    text, occurred_at, speaker, agent_id, app_id, run_id, metadata,
    coalesce(nullif(memories.preceding, '[]'), before.preceding) as preceding,
    after.following,
    case
        when run_id is null and memories.preceding is null and memories.context = 0 then 0
        -- Greater than that of any reading before, whatever became of the clock.
        else greatest((extract(epoch from clock_timestamp()) * 1e6)::bigint, memories.context + 1)
    end as context
"""

GET = f"""
select
    memories.memory_id, text, occurred_at, memories.version, speaker, agent_id, app_id, run_id, domain,
    topics, metadata, memories.published_at, importance, preceding, memories.precedence,
    (select told from memory_lives lives where lives.key = memories.key) as told
from {MEMORIES}
where memories.key = $1 and {LIVING}
"""  # noqa: S608

IS_FORGOTTEN = f"""
select exists (select from {MEMORIES} where memories.key = $1 and not ({LIVING}))
"""  # noqa: S608

FORGOTTEN_UNTIL = """
select greatest(
    0,
    (select version from memories where key = $1 and forgotten),
    (select version from forgotten_users where user_id = $2)
)
"""

AUDITED = """
select key, event_id from memory_states where key = any($1::uuid[]) and event_id = any($2::uuid[])
"""

NEWEST = "select coalesce(max(version), 0) from memories where user_id = $1"

HISTORY = """
select precedence, tie, version, event_id, published_at, forgotten, text, metadata
from memory_states where key = $1
"""

COUNT = f"""
select count(*) from {MEMORIES}
where {LIVING} and ($1::text is null or memories.user_id = $1)
"""  # noqa: S608

_FINGERPRINT = f"""
select
    {KNOWN_COLUMNS},
    case when mark.version is null then memories.content_hash else '' end as content_hash,
    false as watermark,
    coalesce((
        select (told ->> 'version')::bigint from memory_lives lives
        where lives.key = memories.key and {LIVING}
    ), 0) as life
from {MEMORIES}
"""  # noqa: S608

PAGE = f"""
select * from (
    ({_FINGERPRINT} where memories.key > $1 order by memories.key limit $2)
    union all
    (
        select key, version, 0, true, '', true, 0 from forgotten_users
        where key > $1 order by key limit $2
    )
) as page
order by key limit $2
"""  # noqa: S608

FINGERPRINTS_OF = f"""
{_FINGERPRINT} where memories.key = any($1::uuid[])
union all
select key, version, 0, true, '', true, 0 from forgotten_users where key = any($1::uuid[])
"""  # noqa: S608

PUBLISHABLE = f"""
select
    {KNOWN_COLUMNS}, memories.user_id, memories.memory_id,
    coalesce(mark.version, memories.version) as version,
    coalesce(mark.event_id, memories.event_id) as event_id,
    coalesce(mark.published_at, memories.published_at) as published_at,
    {_STATE}
from {MEMORIES}
{_IN_ITS_CONVERSATION}
where memories.key = any($1::uuid[])
"""  # noqa: S608

GONE_WITH = """
select user_id, memory_id, version, event_id, published_at from memories
where user_id = $1 and memory_id > $2 and precedence = $3 and tie = $4
order by memory_id limit $5
"""

CONTEXTS = f"""
with changed as (
    select * from memories where key = any($1::uuid[])
    union all
    select * from memories where key = any($2::uuid[]) and neighbours is not null
    union all
    select * from memories where user_id = any($3::text[]) and neighbours is not null
),
looked_at (key) as (
    select unnest($4::uuid[])
    union select key from changed
    union select unnest(neighbours) from changed
    union select beside.key from changed cross join lateral (
        ({beside("changed", "before", "other.key")})
        union all
        ({beside("changed", "after", "other.key")})
    ) as beside
)
select
    {KNOWN_COLUMNS}, memories.user_id, memories.memory_id, memories.version, memories.event_id,
    memories.published_at, domain, topics, importance, heard,
    memories.context as reading,
    {_STATE}
from {MEMORIES}
{_IN_ITS_CONVERSATION}
where memories.key in (select key from looked_at) and {LIVING}
    and (run_id is not null or memories.preceding is not null or memories.key = any($5::uuid[]))
"""  # noqa: S608

READINGS = "select key, context from memories where key = any($1::uuid[]) and context > 0"

MARKS_OF = """
select user_id, version, event_id, published_at from forgotten_users where key = any($1::uuid[])
"""
