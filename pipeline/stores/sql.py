"""What the record says to Postgres. Rows travel as one JSON array, named, so a batch is one parameter.

A user is forgotten at once and erased page by page. So nothing is read from `memories` alone: a memory up to
its user's watermark is told as what it will be in a moment, a tombstone.
"""

from typing import Literal

from pipeline.domain.versions import erased
from pipeline.stores.states import MOST_NEIGHBOURS
from schemas.events import MOST_BESIDE

_GONE_TIE = erased(1).stamp.tie
_MEMORIES = """
memories left join forgotten_users mark
    on mark.user_id = memories.user_id and mark.version >= memories.version
"""
_LIVING = "not memories.forgotten and mark.version is null"


def _beside(memory: str, side: Literal["before", "after"], columns: str) -> str:
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


_TOLD = "other.text, other.speaker, other.occurred_at, other.version, other.memory_id"
_IN_ITS_CONVERSATION = f"""
left join lateral (
    select jsonb_agg(said order by said.occurred_at, said.version, said.memory_id) as preceding
    from ({_beside("memories", "before", _TOLD)}) as said
    where coalesce(memories.preceding, '[]') = '[]'
) as before on true
left join lateral (
    select jsonb_agg(said order by said.occurred_at, said.version, said.memory_id) as following
    from ({_beside("memories", "after", _TOLD)}) as said
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


def _kept(neighbours: str) -> str:
    """Each once, the last ones: who goes from place to place leaves ever more behind."""
    return f"""(
    select array_agg(key order by place) from (
        select key, max(place) as place
        from unnest({neighbours}) with ordinality as beside (key, place)
        group by key order by max(place) desc limit {MOST_NEIGHBOURS}
    ) as last
)"""  # noqa: S608


LOCK_USERS = """
select case
    when exclusive then pg_advisory_xact_lock($1, lock)::text
    else pg_advisory_xact_lock_shared($1, lock)::text
end
from unnest($2::int[], $3::bool[]) as taken (lock, exclusive)
"""

_KNOWN = f"""
    memories.key,
    coalesce(mark.version, memories.precedence) as precedence,
    case when mark.version is null then memories.tie else {_GONE_TIE} end as tie,
    memories.forgotten or mark.version is not null as forgotten
"""

KNOWN = f"select {_KNOWN} from {_MEMORIES} where memories.key = any($1::uuid[])"  # noqa: S608

KNOWN_LOCKED = f"{KNOWN} order by memories.key for update of memories"

WATERMARKS = """
select user_id, version, event_id, published_at, erased_until from forgotten_users
where user_id = any($1::text[])
"""

UPSERT = f"""
insert into memories (
    key, user_id, memory_id, precedence, tie, version, event_id, published_at, forgotten, content_hash,
    text, occurred_at, speaker, agent_id, app_id, run_id, metadata, domain, topics, importance, model,
    preceding, heard, context, neighbours
)
select
    key, user_id, memory_id, precedence, tie, version, event_id, published_at, forgotten, content_hash,
    text, occurred_at, speaker, agent_id, app_id, run_id, metadata, domain, topics, importance, model,
    preceding, heard, context, neighbours
from json_to_recordset($1::json) as row (
    key uuid, user_id text, memory_id text, precedence bigint, tie bigint, version bigint,
    event_id uuid, published_at timestamptz, forgotten boolean, content_hash text,
    text text, occurred_at timestamptz, speaker text, agent_id text, app_id text, run_id text,
    metadata jsonb, domain text, topics text[], importance double precision, model text,
    preceding jsonb, heard text, context bigint, neighbours uuid[]
)
on conflict (key) do update set
    precedence = excluded.precedence,
    tie = excluded.tie,
    version = excluded.version,
    event_id = excluded.event_id,
    published_at = excluded.published_at,
    forgotten = excluded.forgotten,
    content_hash = excluded.content_hash,
    text = excluded.text,
    occurred_at = excluded.occurred_at,
    speaker = excluded.speaker,
    agent_id = excluded.agent_id,
    app_id = excluded.app_id,
    run_id = excluded.run_id,
    metadata = excluded.metadata,
    domain = excluded.domain,
    topics = excluded.topics,
    importance = excluded.importance,
    model = excluded.model,
    preceding = case
        when excluded.forgotten then null
        -- The same event once more: what was forgotten since must not come back with it.
        when (excluded.precedence, excluded.tie) = (memories.precedence, memories.tie) then case
            when excluded.context = 0 then coalesce(memories.preceding, excluded.preceding)
            -- What a reading tells, the record has made out: that is no word of the publisher.
            when excluded.context <= memories.context then memories.preceding
            when memories.preceding is not null then (
                select coalesce(jsonb_agg(said order by place), '[]')
                from jsonb_array_elements(memories.preceding) with ordinality as told (said, place)
                where excluded.preceding @> jsonb_build_array(said)
            )
        end
        when excluded.preceding is not null then excluded.preceding
        when memories.run_id is not distinct from excluded.run_id and not exists (
            select from forgotten_users mark
            where mark.user_id = memories.user_id and mark.version >= memories.version
        ) then memories.preceding
    end,
    heard = excluded.heard,
    context = excluded.context,
    neighbours = {_kept("memories.neighbours || excluded.neighbours")},
    stored_at = now()
where (excluded.precedence, excluded.tie) > (memories.precedence, memories.tie)
    -- The same event once more is written where it mends or adds something: as in the index, no older
    -- reading of it, and of two with one number the last.
    or (excluded.precedence, excluded.tie, excluded.context)
        >= (memories.precedence, memories.tie, memories.context)
    and (
        excluded.context > memories.context
        or excluded.context = 0 and memories.preceding is null and excluded.preceding is not null
        or (
            excluded.forgotten, excluded.content_hash, excluded.domain, excluded.topics,
            excluded.importance, excluded.model, excluded.heard
        ) is distinct from (
            memories.forgotten, memories.content_hash, memories.domain, memories.topics,
            memories.importance, memories.model, memories.heard
        )
    )
"""  # noqa: S608

PLACES = f"""
select memories.key, run_id, occurred_at, array(
    ({_beside("memories", "before", "other.key")})
    union all
    ({_beside("memories", "after", "other.key")})
) as neighbours
from {_MEMORIES}
where memories.key = any($1::uuid[]) and run_id is not null and {_LIVING}
"""  # noqa: S608

RECORD = """
insert into memory_states (
    key, event_id, precedence, tie, version, published_at, forgotten,
    text, occurred_at, speaker, agent_id, app_id, run_id, metadata
)
select
    row.key, row.event_id, row.precedence, row.tie, row.version, row.published_at, row.forgotten,
    kept.text, kept.occurred_at, kept.speaker, kept.agent_id, kept.app_id, kept.run_id, kept.metadata
from json_to_recordset($1::json) as row (
    key uuid, event_id uuid, precedence bigint, tie bigint, version bigint,
    published_at timestamptz, forgotten boolean,
    text text, occurred_at timestamptz, speaker text, agent_id text, app_id text, run_id text,
    metadata jsonb
)
left join lateral (
    select row.text, row.occurred_at, row.speaker, row.agent_id, row.app_id, row.run_id, row.metadata
    where not exists (
        select from memory_states later
        where later.key = row.key and later.forgotten
            and (later.precedence, later.tie) >= (row.precedence, row.tie)
    )
) as kept on true
-- Of what is told of one event the state that wins, as the memory has it.
on conflict (key, event_id) do update set
    precedence = excluded.precedence,
    tie = excluded.tie,
    version = excluded.version,
    published_at = excluded.published_at,
    text = excluded.text,
    occurred_at = excluded.occurred_at,
    speaker = excluded.speaker,
    agent_id = excluded.agent_id,
    app_id = excluded.app_id,
    run_id = excluded.run_id,
    metadata = excluded.metadata
where (excluded.precedence, excluded.tie) > (memory_states.precedence, memory_states.tie)
    or (excluded.precedence, excluded.tie) = (memory_states.precedence, memory_states.tie)
    and (excluded.text, excluded.metadata) is distinct from (memory_states.text, memory_states.metadata)
"""

# The last alone, looked up key by key: a memory may be forgotten thousands of times, and each of them compared
# with each of its states would hold everybody up.
_FORGETTINGS = """(
    select asked.key, last.precedence, last.tie
    from unnest($1::uuid[]) as asked (key)
    cross join lateral (
        select precedence, tie from memory_states
        where key = asked.key and forgotten
        order by precedence desc, tie desc
        limit 1
    ) as last
) as later"""

ERASE_STATES = f"""
update memory_states state set
    text = null, occurred_at = null, speaker = null, agent_id = null, app_id = null, run_id = null,
    metadata = null
from {_FORGETTINGS}
where state.key = later.key and state.text is not null
    and (state.precedence, state.tie) <= (later.precedence, later.tie)
"""  # noqa: S608

FORGET_PRECEDING = f"""
with gone as (
    select key, user_id, text
    from json_to_recordset($2::json) as said (key uuid, user_id text, text text)
    union
    select key, user_id, text
    from json_to_recordset($3::json) as late (
        key uuid, user_id text, text text, precedence bigint, tie bigint
    )
    where exists (
        select from memory_states state
        where state.key = late.key and state.forgotten
            and (state.precedence, state.tie) >= (late.precedence, late.tie)
    )
    union
    select memories.key, memories.user_id, state.text
    from {_FORGETTINGS}
    join memory_states state on state.key = later.key
        and (state.precedence, state.tie) <= (later.precedence, later.tie)
    join memories on memories.key = later.key
    where state.text is not null
),
heard as (
    select distinct gone.key, told.key as by
    from gone cross join lateral (
        select key, user_id, preceding from memories
        where preceding is not null and told_of(user_id, preceding)
            @> array[hashtextextended(gone.user_id || E'\\n' || gone.text, 0)]
        -- Looked up text by text: Postgres takes a user for small, and would read all that he has.
        offset 0
    ) as told
    where told.user_id = gone.user_id
        and told.preceding @> jsonb_build_array(jsonb_build_object('text', gone.text))
),
touched as (
    select key, array_agg(by) filter (where by is not null) as heard_by
    from (select key, by from heard union all select by, null from heard) as either
    group by key
)
update memories set
    preceding = case when preceding is not null then (
        select coalesce(jsonb_agg(said order by place), '[]')
        from jsonb_array_elements(memories.preceding) with ordinality as told (said, place)
        where (memories.user_id, said ->> 'text') not in (select user_id, text from gone)
    ) end,
    -- Those who have heard it are to be looked at with what was forgotten.
    neighbours = {_kept("neighbours || coalesce(heard_by, '{}')")}
from touched where memories.key = touched.key
"""  # noqa: S608

FORGET_USER = """
insert into forgotten_users (key, user_id, version, event_id, published_at)
values ($5, $1, $2, $3, $4)
on conflict (user_id) do update set
    version = excluded.version, event_id = excluded.event_id, published_at = excluded.published_at
where excluded.version >= forgotten_users.version
"""

PAGE_OF_USER = """
select key, memory_id from memories where user_id = $1 and memory_id > $2 order by memory_id limit $3
"""

LOCK_MEMORIES = "select from memories where key = any($1::uuid[]) order by key for update"

ERASE_MEMORIES = """
update memories set
    precedence = $2, tie = $3, version = $2, event_id = $4, published_at = $5,
    forgotten = true, content_hash = '',
    text = null, occurred_at = null, speaker = null, agent_id = null, app_id = null, run_id = null,
    metadata = null, domain = null, topics = null, importance = null, model = null,
    preceding = null, heard = null, context = 0, neighbours = null,
    stored_at = now()
where key = any($1::uuid[]) and version <= $2 and (precedence, tie) <> ($2, $3)
"""

FORGET_TOLD = """
with gone as (
    select distinct text from memory_states
    where key = any($1::uuid[]) and version <= $2 and text is not null
),
heard as (
    select distinct memories.key from memories
    cross join lateral jsonb_array_elements(memories.preceding) as said
    join gone on gone.text = said ->> 'text'
    where memories.user_id = $3 and memories.version > $2 and memories.preceding is not null
)
update memories set
    preceding = (
        select coalesce(jsonb_agg(said order by place), '[]')
        from jsonb_array_elements(memories.preceding) with ordinality as told (said, place)
        where said ->> 'text' not in (select text from gone)
    )
where key in (
    select key from memories where key in (select key from heard) order by key for update
)
"""

FORGET_BESIDE = """
update memories set
    preceding = case
        -- Who was there before may have been told it then, whatever has become of it since.
        when preceding is not null and exists (
            select from memory_states state
            where state.key = memories.key and state.version <= $2 and state.text is not null
        ) then '[]'::jsonb
        else preceding
    end,
    -- It is to be looked at when all is erased.
    neighbours = array_append(array_remove(neighbours, key), key)
where key = any($1::uuid[]) and version > $2 and not forgotten
    and (run_id is not null or preceding is not null)
"""

ERASE_STATES_UNTIL = """
update memory_states set
    text = null, occurred_at = null, speaker = null, agent_id = null, app_id = null, run_id = null,
    metadata = null
where key = any($1::uuid[]) and version <= $2 and text is not null
"""

USER_ERASED = """
update forgotten_users set erased_until = greatest(erased_until, $2) where user_id = $1
"""

GET = f"""
select
    memories.memory_id, text, occurred_at, memories.version, speaker, agent_id, app_id, run_id, domain,
    topics, metadata, memories.published_at, importance, preceding, memories.precedence,
    (select told from memory_lives lives where lives.key = memories.key) as told
from {_MEMORIES}
where memories.key = $1 and {_LIVING}
"""  # noqa: S608


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

IS_FORGOTTEN = f"""
select exists (select from {_MEMORIES} where memories.key = $1 and not ({_LIVING}))
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
select count(*) from {_MEMORIES}
where {_LIVING} and ($1::text is null or memories.user_id = $1)
"""  # noqa: S608

_FINGERPRINT = f"""
select
    {_KNOWN},
    case when mark.version is null then memories.content_hash else '' end as content_hash,
    false as watermark,
    coalesce((
        select (told ->> 'version')::bigint from memory_lives lives
        where lives.key = memories.key and {_LIVING}
    ), 0) as life
from {_MEMORIES}
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
    {_KNOWN}, memories.user_id, memories.memory_id,
    coalesce(mark.version, memories.version) as version,
    coalesce(mark.event_id, memories.event_id) as event_id,
    coalesce(mark.published_at, memories.published_at) as published_at,
    {_STATE}
from {_MEMORIES}
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
        ({_beside("changed", "before", "other.key")})
        union all
        ({_beside("changed", "after", "other.key")})
    ) as beside
)
select
    {_KNOWN}, memories.user_id, memories.memory_id, memories.version, memories.event_id,
    memories.published_at, domain, topics, importance, heard,
    memories.context as reading,
    {_STATE}
from {_MEMORIES}
{_IN_ITS_CONVERSATION}
where memories.key in (select key from looked_at) and {_LIVING}
    and (run_id is not null or memories.preceding is not null or memories.key = any($5::uuid[]))
"""  # noqa: S608

READINGS = "select key, context from memories where key = any($1::uuid[]) and context > 0"

MARKS_OF = """
select user_id, version, event_id, published_at from forgotten_users where key = any($1::uuid[])
"""

LIVING_LOCKED = f"""
select memories.key, memories.precedence from {_MEMORIES}
where memories.key = any($1::uuid[]) and {_LIVING}
order by memories.key for update of memories
"""  # noqa: S608

LIVES_LOCKED = """
select key, life, told from memory_lives where key = any($1::uuid[]) order by key for update
"""

KEEP_LIVES = """
insert into memory_lives (key, life, told)
select key, life, told from json_to_recordset($1::json) as row (key uuid, life jsonb, told jsonb)
on conflict (key) do update set life = excluded.life, told = excluded.told
"""

_ERASE_LIVES = """
with gone as (
    delete from memory_lives lives using memories
    where lives.key = memories.key and {which} and lives.key = any($1::uuid[])
    returning lives.life, lives.told
)
select life, told from gone where told ->> 'into' is not null
"""

ERASE_LIVES = _ERASE_LIVES.format(which="true")

ERASE_LIVES_OF_FORGOTTEN = _ERASE_LIVES.format(which="memories.forgotten")

LIVES = f"""
select memories.key, memories.precedence, lives.told
from {_MEMORIES}
join memory_lives lives on lives.key = memories.key
where lives.key > $1 and {_LIVING}
order by lives.key limit $2
"""  # noqa: S608

REMEMBERED_ANEW = f"""
select distinct on (memories.key)
    memories.user_id, memories.memory_id, state.version, state.event_id, state.published_at
from {_MEMORIES}
join memory_states state on state.key = memories.key and state.forgotten
where memories.key > $1 and {_LIVING}
order by memories.key, state.precedence desc, state.tie desc limit $2
"""  # noqa: S608

BELONGINGS = f"""
select
    memories.user_id, memories.memory_id, text, speaker, agent_id, app_id, run_id, occurred_at,
    memories.published_at, memories.version, memories.precedence, importance, lives.told
from {_MEMORIES}
left join memory_lives lives on lives.key = memories.key
where {_LIVING} and ($1::text is null or memories.user_id = $1)
    and (memories.user_id, memories.memory_id) > ($2, $3)
order by memories.user_id, memories.memory_id limit $4
"""  # noqa: S608
