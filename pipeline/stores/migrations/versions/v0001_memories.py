"""Memories, the states they had, and the users that were forgotten."""

from alembic import op

revision = "0001"
down_revision = None

UPGRADE = (
    """
    create table memories (
        key uuid primary key,
        user_id text collate "C" not null,
        memory_id text collate "C" not null,
        precedence bigint not null,
        tie bigint not null,
        version bigint not null,
        event_id uuid not null,
        published_at timestamptz not null,
        forgotten boolean not null,
        text text,
        content_hash text not null,
        occurred_at timestamptz,
        speaker text,
        agent_id text,
        app_id text,
        run_id text,
        domain text,
        topics text[],
        importance double precision,
        metadata jsonb,
        model text,
        stored_at timestamptz not null default now(),
        unique (user_id, memory_id),
        check (forgotten = (text is null))
    )
    """,
    "comment on table memories is 'The newest state of each memory; of a forgotten one only that'",
    "comment on column memories.precedence is 'Which state wins: the greatest, then the greatest tie'",
    """
    create table memory_states (
        key uuid not null,
        event_id uuid not null,
        precedence bigint not null,
        tie bigint not null,
        version bigint not null,
        published_at timestamptz not null,
        forgotten boolean not null,
        text text,
        occurred_at timestamptz,
        speaker text,
        agent_id text,
        app_id text,
        run_id text,
        metadata jsonb,
        recorded_at timestamptz not null default now(),
        primary key (key, event_id)
    )
    """,
    "comment on table memory_states is 'Every state a memory had; without content once forgotten'",
    """
    create table forgotten_users (
        user_id text collate "C" primary key,
        version bigint not null,
        event_id uuid not null,
        published_at timestamptz not null
    )
    """,
    "comment on table forgotten_users is 'Up to which version each of them was forgotten'",
)


def upgrade() -> None:
    for statement in UPGRADE:
        op.execute(statement)


def downgrade() -> None:
    op.execute("drop table memories, memory_states, forgotten_users")
