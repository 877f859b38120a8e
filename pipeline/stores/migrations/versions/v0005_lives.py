"""Where memories stand by their use."""

from alembic import op

revision = "0005"
down_revision = "0004"

UPGRADE = (
    """
    create table memory_lives (
        key uuid primary key references memories (key),
        life jsonb not null,
        told jsonb not null
    )
    """,
    "comment on table memory_lives is 'What was heard of the use of memories; goes with the memory'",
    "comment on column memory_lives.told is 'What was told of it last: tier, strength, archived or not'",
)


def upgrade() -> None:
    for statement in UPGRADE:
        op.execute(statement)


def downgrade() -> None:
    op.execute("drop table memory_lives")
