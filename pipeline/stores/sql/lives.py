"""What is kept of memories' use, beside them."""

from pipeline.stores.sql.parts import LIVING, MEMORIES

LIVING_LOCKED = f"""
select memories.key, memories.precedence from {MEMORIES}
where memories.key = any($1::uuid[]) and {LIVING}
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
from {MEMORIES}
join memory_lives lives on lives.key = memories.key
where lives.key > $1 and {LIVING}
order by lives.key limit $2
"""  # noqa: S608

REMEMBERED_ANEW = f"""
select distinct on (memories.key)
    memories.user_id, memories.memory_id, state.version, state.event_id, state.published_at
from {MEMORIES}
join memory_states state on state.key = memories.key and state.forgotten
where memories.key > $1 and {LIVING}
order by memories.key, state.precedence desc, state.tie desc limit $2
"""  # noqa: S608

BELONGINGS = f"""
select
    memories.user_id, memories.memory_id, text, speaker, agent_id, app_id, run_id, metadata,
    occurred_at, memories.published_at, memories.version, memories.precedence, importance, lives.told
from {MEMORIES}
left join memory_lives lives on lives.key = memories.key
where {LIVING} and ($1::text is null or memories.user_id = $1)
    and (memories.user_id, memories.memory_id) > ($2, $3)
order by memories.user_id, memories.memory_id limit $4
"""  # noqa: S608
