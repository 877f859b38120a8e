"""Room for long ids in the index of conversations.

A user's, a conversation's and a memory's id of 256 characters are 3 kB, and Postgres keeps 2.7 kB in a row of
an index. Memories of one time and version are told apart by their ids in the table.
"""

from alembic import op

revision = "0008"
down_revision = "0007"


def upgrade() -> None:
    op.execute("drop index memories_of_a_run")
    op.execute(
        "create index memories_of_a_run on memories (user_id, run_id, occurred_at, version) "
        "where run_id is not null and not forgotten"
    )


def downgrade() -> None:
    op.execute("drop index memories_of_a_run")
    op.execute(
        "create index memories_of_a_run on memories (user_id, run_id, occurred_at, version, memory_id) "
        "where run_id is not null and not forgotten"
    )
