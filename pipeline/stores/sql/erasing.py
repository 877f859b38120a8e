"""The forgetting of a user: a watermark, and then page by page what is left of what the user had."""

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
