"""What comparing the record with the index asks: users in the order of their keys, and who spoke before."""

from alembic import op
from sqlalchemy import text

from pipeline.domain.identity import user_key

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    op.execute("alter table forgotten_users add column key uuid")
    connection = op.get_bind()
    for (user_id,) in connection.execute(text("select user_id from forgotten_users")).all():
        connection.execute(
            text("update forgotten_users set key = :key where user_id = :user_id"),
            {"key": user_key(user_id), "user_id": user_id},
        )
    op.execute("alter table forgotten_users alter column key set not null, add unique (key)")
    op.execute(
        "create index memories_of_a_run on memories (user_id, run_id, occurred_at, version) "
        "where run_id is not null and not forgotten"
    )


def downgrade() -> None:
    op.execute("drop index memories_of_a_run")
    op.execute("alter table forgotten_users drop column key")
