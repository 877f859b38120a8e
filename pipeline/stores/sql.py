"""What the record says to Postgres. Rows travel as one JSON array, named, so a batch is one parameter."""

LOCK_USERS = """
select case
    when exclusive then pg_advisory_xact_lock($1, lock)::text
    else pg_advisory_xact_lock_shared($1, lock)::text
end
from unnest($2::int[], $3::bool[]) as taken (lock, exclusive)
"""

KNOWN = "select key, precedence, tie, forgotten from memories where key = any($1::uuid[])"

KNOWN_LOCKED = f"{KNOWN} order by key for update"

WATERMARKS = """
select user_id, version, event_id, published_at from forgotten_users where user_id = any($1::text[])
"""

UPSERT = """
insert into memories (
    key, user_id, memory_id, precedence, tie, version, event_id, published_at, forgotten, content_hash,
    text, occurred_at, speaker, agent_id, app_id, run_id, metadata, domain, topics, importance, model
)
select
    key, user_id, memory_id, precedence, tie, version, event_id, published_at, forgotten, content_hash,
    text, occurred_at, speaker, agent_id, app_id, run_id, metadata, domain, topics, importance, model
from json_to_recordset($1::json) as row (
    key uuid, user_id text, memory_id text, precedence bigint, tie bigint, version bigint,
    event_id uuid, published_at timestamptz, forgotten boolean, content_hash text,
    text text, occurred_at timestamptz, speaker text, agent_id text, app_id text, run_id text,
    metadata jsonb, domain text, topics text[], importance double precision, model text
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
    stored_at = now()
where (excluded.precedence, excluded.tie) >= (memories.precedence, memories.tie)
"""

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
on conflict (key, event_id) do nothing
"""

ERASE_STATES = """
update memory_states state set
    text = null, occurred_at = null, speaker = null, agent_id = null, app_id = null, run_id = null,
    metadata = null
from memory_states later
where later.key = any($1::uuid[]) and later.forgotten
    and state.key = later.key and state.text is not null
    and (state.precedence, state.tie) <= (later.precedence, later.tie)
"""

FORGET_USER = """
insert into forgotten_users (key, user_id, version, event_id, published_at)
values ($5, $1, $2, $3, $4)
on conflict (user_id) do update set
    version = excluded.version, event_id = excluded.event_id, published_at = excluded.published_at
where excluded.version >= forgotten_users.version
returning version
"""

ERASE_USER = """
update memories set
    precedence = $2, tie = $3, version = $2, event_id = $4, published_at = $5,
    forgotten = true, content_hash = '',
    text = null, occurred_at = null, speaker = null, agent_id = null, app_id = null, run_id = null,
    metadata = null, domain = null, topics = null, importance = null, model = null,
    stored_at = now()
where user_id = $1 and version <= $2 and (precedence, tie) <> ($2, $3)
"""

ERASE_USER_STATES = """
update memory_states state set
    text = null, occurred_at = null, speaker = null, agent_id = null, app_id = null, run_id = null,
    metadata = null
from memories
where memories.user_id = $1 and state.key = memories.key
    and state.version <= $2 and state.text is not null
"""

GET = """
select memory_id, text, occurred_at, version, speaker, agent_id, app_id, run_id, domain, topics, metadata
from memories
where key = $1 and not forgotten
"""

IS_FORGOTTEN = "select exists (select from memories where key = $1 and forgotten)"

AUDITED = """
select key, event_id from memory_states where key = any($1::uuid[]) and event_id = any($2::uuid[])
"""

HISTORY = """
select version, event_id, published_at, forgotten, text, metadata from memory_states where key = $1
"""

COUNT = """
select count(*) from memories where not forgotten and ($1::text is null or user_id = $1)
"""

FINGERPRINTS = """
select key, precedence, tie, forgotten, content_hash, false as watermark from memories
where key > $1 order by key limit $2
"""

PAGE = f"""
select * from (
    ({FINGERPRINTS})
    union all
    (
        select key, version, 0, true, '', true from forgotten_users
        where key > $1 order by key limit $2
    )
) as page
order by key limit $2
"""  # noqa: S608

FINGERPRINTS_OF = """
select key, precedence, tie, forgotten, content_hash, false as watermark from memories
where key = any($1::uuid[])
union all
select key, version, 0, true, '', true from forgotten_users where key = any($1::uuid[])
"""

PUBLISHABLE = """
select
    key, user_id, memory_id, precedence, version, event_id, published_at, forgotten,
    text, occurred_at, speaker, agent_id, app_id, run_id, metadata, before.preceding
from memories
left join lateral (
    select json_agg(said order by said.occurred_at, said.version) as preceding from (
        select earlier.text, earlier.speaker, earlier.occurred_at, earlier.version
        from memories earlier
        where earlier.user_id = memories.user_id and earlier.run_id = memories.run_id
            and not earlier.forgotten
            and (earlier.occurred_at, earlier.version) < (memories.occurred_at, memories.version)
        order by earlier.occurred_at desc, earlier.version desc
        limit 2
    ) as said
) as before on true
where key = any($1::uuid[])
"""

MARKS_OF = """
select user_id, version, event_id, published_at from forgotten_users where key = any($1::uuid[])
"""
