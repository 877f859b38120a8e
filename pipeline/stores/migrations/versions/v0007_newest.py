"""What is newest of a user: asked before each forgetting of a user, and of each question about the past."""

from alembic import op

revision = "0007"
down_revision = "0006"


def upgrade() -> None:
    op.execute("create index memories_by_version on memories (user_id, version)")


def downgrade() -> None:
    op.execute("drop index memories_by_version")
