"""What each memory's vectors have heard of its conversation, and whom a memory leaves behind.

A memory is found among its conversation by time, version and id, so that there is one order whatever the
times are.
"""

from alembic import op

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    op.execute(
        "alter table memories add column heard text, add column context bigint not null default 0, "
        "add column neighbours uuid[]"
    )
    op.execute(
        "comment on column memories.heard is "
        "'The hash of what was said beside it when its vectors were made; null where nobody knows'"
    )
    op.execute(
        "comment on column memories.neighbours is "
        "'The memories beside the place that it left, by being forgotten or revised'"
    )
    op.execute(
        "create index memories_with_neighbours on memories (user_id) where neighbours is not null"
    )
    op.execute("drop index memories_of_a_run")
    op.execute(
        "create index memories_of_a_run on memories (user_id, run_id, occurred_at, version, memory_id) "
        "where run_id is not null and not forgotten"
    )


def downgrade() -> None:
    op.execute("drop index memories_of_a_run")
    op.execute(
        "create index memories_of_a_run on memories (user_id, run_id, occurred_at, version) "
        "where run_id is not null and not forgotten"
    )
    op.execute(
        "alter table memories drop column heard, drop column context, drop column neighbours"
    )
