"""What the publisher said was said just before, kept beside each memory.

By user and conversation it can be found again: when one of those texts is forgotten, it goes here too.
"""

from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    op.execute("alter table memories add column preceding jsonb")
    op.execute(
        "create index memories_with_preceding on memories (user_id, coalesce(run_id, '')) "
        "where preceding is not null"
    )


def downgrade() -> None:
    op.execute("alter table memories drop column preceding")
