"""What a batch of memories says to the record: locks, the newest states, the audit trail, what was forgotten."""

from pipeline.stores.sql.parts import KNOWN, LIVING, MEMORIES, beside, kept

LOCK_USERS = """
select case
    when exclusive then pg_advisory_xact_lock($1, lock)::text
    else pg_advisory_xact_lock_shared($1, lock)::text
end
from unnest($2::int[], $3::bool[]) as taken (lock, exclusive)
"""

KNOWN_LOCKED = f"{KNOWN} order by memories.key for update of memories"

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
    neighbours = {kept("memories.neighbours || excluded.neighbours")},
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
    ({beside("memories", "before", "other.key")})
    union all
    ({beside("memories", "after", "other.key")})
) as neighbours
from {MEMORIES}
where memories.key = any($1::uuid[]) and run_id is not null and {LIVING}
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
    neighbours = {kept("neighbours || coalesce(heard_by, '{}')")}
from touched where memories.key = touched.key
"""  # noqa: S608
